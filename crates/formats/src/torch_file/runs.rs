//! The bytes of a tensor in row-major order, for any strides.

use super::info::{Source, TensorInfo};
use super::{contiguous, elements};
use crate::Error;

/// Calls a function with runs of consecutive bytes, in row-major order, of storages that are as they were saved.
pub(super) fn for_each_run<E: From<Error>>(
    info: &TensorInfo,
    source: &Source,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if info.elements() == 0 {
        return Ok(());
    }
    let piece = match source {
        Source::Joined(pieces) => {
            return pieces.iter().try_for_each(|piece| {
                piece.archive.check(&piece.range)?;
                take(piece.archive.bytes(piece.range.clone()))
            });
        }
        Source::View(piece) => piece,
    };
    piece.archive.check(&piece.range)?;
    let bytes = piece.archive.bytes(piece.range.clone());
    let size = info.dtype.size_bytes();
    // Trailing axes without gaps form one run.
    let dense = info
        .shape
        .iter()
        .zip(&info.stride)
        .zip(contiguous(&info.shape))
        .rev()
        .take_while(|&((&axis, &stride), dense)| axis == 1 || stride == dense)
        .count();
    let (outer, inner) = info.shape.split_at(info.shape.len() - dense);
    let run = elements(inner).unwrap_or(0) * size;
    let mut position = vec![0usize; outer.len()];
    let mut start = 0;
    loop {
        take(
            bytes
                .get(start * size..start * size + run)
                .unwrap_or_default(),
        )?;
        // The next position of the outer axes, the last one fastest.
        let mut axes = position.iter_mut().zip(outer).zip(&info.stride).rev();
        loop {
            let Some(((at, &axis), &stride)) = axes.next() else {
                return Ok(());
            };
            *at += 1;
            // The stride of an axis of length 1 is never used and may be any number; what is added here is subtracted
            // again.
            start = start.wrapping_add(stride);
            if *at < axis {
                break;
            }
            start = start.wrapping_sub(stride.wrapping_mul(*at));
            *at = 0;
        }
    }
}

//! The ranks' slices of one parameter group.

use std::sync::Arc;

use crate::torch_file::Piece;

/// Several slices of 32-bit numbers, read in order as if they were one.
pub(super) struct Joined {
    slices: std::vec::IntoIter<Piece>,
    current: Option<Piece>,
    /// Elements of all slices.
    pub(super) total: usize,
    /// Elements taken so far.
    pub(super) taken: usize,
}

const F32_BYTES: usize = size_of::<f32>();

impl Joined {
    pub(super) fn new(slices: Vec<Piece>) -> Joined {
        let total = slices
            .iter()
            .map(|slice| slice.range.len() / F32_BYTES)
            .sum();
        Joined {
            slices: slices.into_iter(),
            current: None,
            total,
            taken: 0,
        }
    }

    /// The next `count` elements; `None` if fewer are left.
    pub(super) fn take(&mut self, count: usize) -> Option<Vec<Piece>> {
        if count > self.total - self.taken {
            return None;
        }
        let mut pieces = Vec::new();
        let mut left_bytes = count * F32_BYTES;
        while left_bytes > 0 {
            let mut piece = match self.current.take() {
                Some(piece) => piece,
                None => self.slices.next()?,
            };
            if piece.range.len() > left_bytes {
                let cut = piece.range.start + left_bytes;
                self.current = Some(Piece {
                    archive: Arc::clone(&piece.archive),
                    range: cut..piece.range.end,
                });
                piece.range.end = cut;
            }
            left_bytes -= piece.range.len();
            pieces.push(piece);
        }
        self.taken += count;
        Some(pieces)
    }
}

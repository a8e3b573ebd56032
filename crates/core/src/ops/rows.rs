//! Rows of a value apart, and together again, in inference.

use super::Recorder;
use crate::tensor::Tensor;
use std::ops::Range;
use tokenformer_device::{Result, RowsToStore, Temp};

/// Each span of rows of `x` `[1, R, D]` as a separate value, `[1, n, D]`.
pub(crate) fn split_rows(
    rec: &mut Recorder,
    x: &Tensor,
    spans: &[Range<usize>],
) -> Result<Vec<Tensor>> {
    let width = x.width();
    let part = |span: &Range<usize>| {
        let rows: Vec<u32> = span.clone().map(|row| row as u32).collect();
        let rows = Temp::indices(&rec.device, &rows)?;
        let mut y = rec.temp(span.len() * width)?;
        rec.device.gather_rows(&x.data, &rows, width, &mut y)?;
        Ok((y, span.len()))
    };
    let parts: Vec<_> = spans.iter().map(part).collect::<Result<_>>()?;
    Ok((parts.into_iter())
        .map(|(y, len)| rec.tensor(y.share(), [1, len, width]))
        .collect())
}

/// The rows of `parts` `[1, n, D]` one after the other: `[1, R, D]`.
pub(crate) fn join_rows(rec: &mut Recorder, parts: &[Tensor], width: usize) -> Result<Tensor> {
    let rows = parts.iter().map(Tensor::rows).sum();
    let mut y = rec.temp(rows * width)?;
    let mut at = 0;
    for part in parts {
        let dims = RowsToStore {
            batch: 1,
            length: part.rows(),
            width,
            at,
            capacity: rows,
        };
        rec.device.store_rows(&part.data, dims, &mut y)?;
        at += part.rows();
    }
    Ok(rec.tensor(y.share(), [1, rows, width]))
}

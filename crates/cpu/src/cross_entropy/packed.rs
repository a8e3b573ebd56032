//! The output head with a table that was packed for inference.

use super::{Logits, Targets, chunks, row_losses, targets_len};
use crate::exec::Exec;
use crate::gemm::{Job, Mat, PackedWeights, par_products};
use tokenformer_device::Write;

/// `logits` `[R, V] = scale · h[R, D] · table`, the table being packed as `[D, V]`.
pub fn logits_packed(
    exec: &mut Exec<'_>,
    h: &[f32],
    table: &PackedWeights,
    scale: f32,
    logits: &mut [f32],
) {
    let [d, v] = table.shape();
    let job = Job {
        y: logits,
        y_stride: v,
        write: Write::Replace,
        x: Mat::new(h, h.len() / d, d),
        weights: table,
        scale,
    };
    par_products(exec, &mut [job]);
}

/// Per-row loss `losses` `[R]` (nats) for hidden states `h` `[R, D]` and a bias `[V]`.
pub fn losses_packed(
    exec: &mut Exec<'_>,
    h: &[f32],
    table: &PackedWeights,
    bias: Option<&[f32]>,
    scale: f32,
    targets: Targets<'_>,
    losses: &mut [f32],
) {
    let ([d, v], r) = (table.shape(), losses.len());
    assert_eq!((h.len(), targets_len(targets, v)), (r * d, r));
    let chunks = chunks(r, v);
    let mut work = exec.scratch.take_shared(chunks.size() * v);
    for rows in (0..chunks.count()).map(|i| chunks.range(i)) {
        let logits = &mut work[..rows.len() * v];
        logits_packed(exec, &h[rows.start * d..rows.end * d], table, scale, logits);
        let logits = Logits {
            rows: logits,
            stride: v,
            classes: v,
            bias,
        };
        row_losses(exec, logits, targets, rows.start, &mut losses[rows], None);
    }
}

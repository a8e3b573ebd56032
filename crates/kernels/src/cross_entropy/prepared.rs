//! The output head with a table that was laid out for inference.

use super::{chunks, row_loss};
use crate::exec::{Disjoint, Exec};
use crate::gemm::{Job, Mat, Prepared, Write, par_products};

/// `logits` `[R, V] = scale · h[R, D] · table`, the table being prepared as `[D, V]`.
pub fn logits_prepared(
    exec: &mut Exec<'_>,
    h: &[f32],
    table: &Prepared,
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

/// Per-row loss `nll` `[R]` (nats, NaN where a logit is not finite) of `targets` `[R]` for hidden states `h` `[R, D]`.
pub fn losses_prepared(
    exec: &mut Exec<'_>,
    h: &[f32],
    table: &Prepared,
    scale: f32,
    targets: &[u32],
    nll: &mut [f32],
) {
    let ([d, v], r) = (table.shape(), targets.len());
    assert_eq!((h.len(), nll.len()), (r * d, r));
    let chunks = chunks(r, v);
    let mut work = exec.scratch.take_shared(chunks.size() * v);
    for rows in (0..chunks.count()).map(|i| chunks.range(i)) {
        let logits = &mut work[..rows.len() * v];
        logits_prepared(exec, &h[rows.start * d..rows.end * d], table, scale, logits);
        let (logits, nll) = (Disjoint::new(logits), Disjoint::new(&mut nll[rows.clone()]));
        let targets = &targets[rows.clone()];
        exec.run(rows.len(), 0, |row, _| {
            // SAFETY: each task owns one row.
            let logits = unsafe { logits.part(row * v..(row + 1) * v) };
            // SAFETY: as above.
            let nll = unsafe { nll.part(row..row + 1) };
            nll[0] = row_loss(logits, targets[row] as usize, 0.0, false);
        });
    }
}

//! The output head and its loss: `logits = scale · H·Eᵀ`, and cross-entropy against target tokens without
//! ever holding the logits of the whole batch.
//!
//! The gradient of a mean loss is known as soon as a row's probabilities are, so the forward pass of a
//! training step produces it at once, one chunk of rows at a time, instead of computing logits twice.

use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{Mat, Write, few_rows_dot, par_gemm};
use crate::math::exp;
use crate::simd::{lane_sum, simd};

/// Rows per chunk: about 16 MB of logits, so that the chunk count depends on the vocabulary alone.
pub fn chunk_rows(vocab: usize) -> usize {
    ((4 << 20) / vocab.max(1)).clamp(32, 1024)
}

/// Gradients that [`forward`] writes.
pub struct Gradient<'a> {
    /// Factor of every row's loss in the objective, for instance 1/R for a mean.
    pub weight: f32,
    /// Gradient of `h` `[R, D]`, written.
    pub dh: &'a mut [f32],
    /// Gradient of the table `[V, D]`, added to; `None` if it is frozen.
    pub dtable: Option<&'a mut [f32]>,
}

/// `logits` `[R, V] = scale · h[R, D] · table[V, D]ᵀ`.
pub fn logits(
    exec: &mut Exec<'_>,
    h: &[f32],
    table: &[f32],
    scale: f32,
    logits: &mut [f32],
    d: usize,
) {
    let (r, v) = (h.len() / d, table.len() / d);
    assert_eq!(logits.len(), r * v);
    if r < 8 {
        few_rows_dot(exec, logits, v, h, table, d, scale);
    } else {
        par_gemm(
            exec,
            logits,
            Write::Replace,
            Mat::new(h, r, d),
            Mat::new(table, v, d).t(),
            scale,
        );
    }
}

/// Per-row loss `nll` `[R]` (nats) of `targets` `[R]`, and with `gradient` the gradients of
/// `weight · Σ nll`.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    exec: &mut Exec<'_>,
    h: &[f32],
    table: &[f32],
    scale: f32,
    targets: &[u32],
    nll: &mut [f32],
    mut gradient: Option<Gradient<'_>>,
    d: usize,
) {
    let (r, v) = (targets.len(), table.len() / d);
    assert_eq!((h.len(), nll.len()), (r * d, r));
    let chunks = Pieces::new(r, chunk_rows(v));
    let embedding = Mat::new(table, v, d);
    let mut work = exec.scratch.take_shared(chunk_rows(v).min(r) * v);
    for chunk in (0..chunks.count()).map(|i| chunks.range(i)) {
        let n = chunk.len();
        let rows = chunk.start * d..chunk.end * d;
        let h = Mat::new(&h[rows.clone()], n, d);
        let logits = &mut work[..n * v];
        par_gemm(exec, logits, Write::Replace, h, embedding.t(), scale);
        let weight = gradient.as_ref().map(|g| g.weight);
        {
            let (logits, nll) = (Disjoint::new(&mut *logits), Disjoint::new(&mut *nll));
            let (targets, start) = (&targets[chunk.clone()], chunk.start);
            exec.run(n, 0, |row, _| {
                // SAFETY: each task owns one row.
                let logits = unsafe { logits.part(row * v..(row + 1) * v) };
                // SAFETY: as above.
                let nll = unsafe { nll.part(start + row..start + row + 1) };
                nll[0] = row_loss(
                    logits,
                    targets[row] as usize,
                    weight.unwrap_or(0.0),
                    weight.is_some(),
                );
            });
        }
        if let Some(gradient) = &mut gradient {
            let d_logits = Mat::new(logits, n, v);
            par_gemm(
                exec,
                &mut gradient.dh[rows],
                Write::Replace,
                d_logits,
                embedding,
                scale,
            );
            if let Some(dtable) = &mut gradient.dtable {
                par_gemm(exec, dtable, Write::Add, d_logits.t(), h, scale);
            }
        }
    }
    exec.scratch.give_shared(work);
}

simd! {
    /// −log softmax(logits)[target]; with `differentiate`, logits become their gradient times `weight`.
    fn row_loss(logits: &mut [f32], target: usize, weight: f32, differentiate: bool) -> f32 {
        let max = logits.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m });
        let own = logits[target];
        logits.iter_mut().for_each(|l| *l = exp(*l - max));
        let sum = lane_sum(logits.len(), |i| logits[i]);
        if differentiate {
            let scale = weight / sum;
            logits.iter_mut().for_each(|l| *l *= scale);
            logits[target] -= weight;
        }
        max + sum.ln() - own
    }
}

//! The output head and its loss: `logits = scale · H·Eᵀ`, and cross-entropy against target tokens without
//! ever holding the logits of the whole batch.
//!
//! The gradient of a mean loss is known as soon as a row's probabilities are, so the forward pass of a
//! training step produces it at once, one chunk of rows at a time, instead of computing logits twice.

mod prepared;

use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{
    Mat, MatMut, Packed, Precision, Source, Write, few_rows_dot, packed_lines, par_gemm_packed,
    par_pack,
};
use crate::math::exp;
use crate::simd::{lane_max, lane_sum, simd};

pub use prepared::{logits_prepared, losses_prepared};

/// Fewer rows than these are not worth packing the table for.
const FEW_ROWS: usize = 8;

/// Rows in equal chunks: as many as make 64 MiB of logits, but not above 1024, and 64 of any vocabulary.
pub fn chunks(rows: usize, vocab: usize) -> Pieces {
    let most = ((16 << 20) / vocab.max(1)).clamp(64, 1024);
    Pieces::new(rows, rows.div_ceil(rows.div_ceil(most).max(1)).max(1))
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

/// Elements of the table that are packed at a time.
const STRIPE: usize = 1 << 21;

/// The rows of the table in pieces that are packed at a time.
fn stripes<P: Precision>(v: usize, d: usize) -> Pieces {
    let columns = Packed::<P>::COLS;
    Pieces::new(v, (STRIPE / d / columns).max(1) * columns)
}

/// `logits` `[R, V] = scale · h[R, D] · table[V, D]ᵀ`.
pub fn logits<P: Precision>(
    exec: &mut Exec<'_>,
    h: &[f32],
    table: &[f32],
    scale: f32,
    logits: &mut [f32],
    d: usize,
) where
    f32: Source<P>,
{
    let (r, v) = (h.len() / d, table.len() / d);
    assert_eq!(logits.len(), r * v);
    if r < FEW_ROWS {
        return few_rows_dot(exec, logits, v, h, table, d, scale);
    }
    let (h, table) = (Mat::new(h, r, d), Mat::new(table, v, d));
    let stripes = stripes::<P>(v, d);
    for cols in (0..stripes.count()).map(|i| stripes.range(i)) {
        let mut lines = exec.scratch.take_lines(packed_lines::<P>(d, cols.len()));
        let block = table.row_block(cols.start, cols.len()).t();
        let packed = par_pack::<P, f32>(exec, &mut lines, block);
        let out = MatMut::strided(&mut logits[cols.start..], r, cols.len(), v);
        par_gemm_packed(exec, out, Write::Replace, h, packed, scale);
    }
}

/// Per-row loss `nll` `[R]` (nats, NaN where a logit is not finite) of `targets` `[R]`, and with `gradient` the gradients of
/// `weight · Σ nll`.
#[allow(clippy::too_many_arguments)]
pub fn forward<P: Precision>(
    exec: &mut Exec<'_>,
    h: &[f32],
    table: &[f32],
    scale: f32,
    targets: &[u32],
    nll: &mut [f32],
    mut gradient: Option<Gradient<'_>>,
    d: usize,
) where
    f32: Source<P>,
{
    let (r, v) = (targets.len(), table.len() / d);
    assert_eq!((h.len(), nll.len()), (r * d, r));
    let chunks = chunks(r, v);
    let mut work = exec.scratch.take_shared(chunks.size() * v);
    for chunk in (0..chunks.count()).map(|i| chunks.range(i)) {
        let n = chunk.len();
        let rows = chunk.start * d..chunk.end * d;
        let probabilities = &mut work[..n * v];
        logits::<P>(exec, &h[rows.clone()], table, scale, probabilities, d);
        let weight = gradient.as_ref().map(|g| g.weight);
        {
            let (logits, nll) = (Disjoint::new(&mut *probabilities), Disjoint::new(&mut *nll));
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
            let d_logits = Mat::new(probabilities, n, v);
            let h = Mat::new(&h[rows.clone()], n, d);
            head_gradient::<P>(exec, probabilities, table, scale, &mut gradient.dh[rows], d);
            if let Some(dtable) = &mut gradient.dtable {
                let mut lines = exec.scratch.take_lines(packed_lines::<P>(n, d));
                let packed = par_pack::<P, f32>(exec, &mut lines, h);
                let out = MatMut::new(dtable, v, d);
                par_gemm_packed(exec, out, Write::Add, d_logits.t(), packed, scale);
            }
        }
    }
}

/// `dh` `[R, D] = scale · d_logits[R, V] · table[V, D]`.
fn head_gradient<P: Precision>(
    exec: &mut Exec<'_>,
    d_logits: &[f32],
    table: &[f32],
    scale: f32,
    dh: &mut [f32],
    d: usize,
) where
    f32: Source<P>,
{
    let (r, v) = (dh.len() / d, table.len() / d);
    let stripes = stripes::<P>(v, d);
    for (i, rows) in (0..stripes.count()).map(|i| stripes.range(i)).enumerate() {
        let mut lines = exec.scratch.take_lines(packed_lines::<P>(rows.len(), d));
        let block = Mat::new(table, v, d).row_block(rows.start, rows.len());
        let packed = par_pack::<P, f32>(exec, &mut lines, block);
        let d_logits = Mat::strided(&d_logits[rows.start..], r, rows.len(), v);
        par_gemm_packed(
            exec,
            MatMut::new(dh, r, d),
            Write::nth(i),
            d_logits,
            packed,
            scale,
        );
    }
}

simd! {
    /// −log softmax(logits)[target], NaN if a logit is not finite; with `differentiate`, logits become their gradient
    /// times `weight`.
    fn row_loss(logits: &mut [f32], target: usize, weight: f32, differentiate: bool) -> f32 {
        let max = lane_max(logits);
        // The exponential of −∞ is 0 and would hide it; 0 · x is 0 for every finite x, and NaN for others.
        let zero = lane_sum(logits.len(), |i| logits[i] * 0.0);
        let own = logits[target];
        logits.iter_mut().for_each(|l| *l = exp(*l - max));
        let sum = lane_sum(logits.len(), |i| logits[i]);
        if differentiate {
            let scale = weight / sum;
            logits.iter_mut().for_each(|l| *l *= scale);
            logits[target] -= weight;
        }
        max + sum.ln() - own + zero
    }
}

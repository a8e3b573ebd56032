//! The output head and its loss: `logits = scale · H·Eᵀ + bias`, and cross-entropy against classes or soft targets,
//! without storing the logits of the whole batch.
//!
//! The gradient of a mean loss is known as soon as a row's probabilities are. So the forward pass of a training step
//! computes it immediately, one chunk of rows at a time, instead of computing logits twice.

mod packed;

use crate::elementwise;
use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{
    Element, Mat, MatMut, Source, packed_lines, par_gemm_packed, par_matmul, par_pack, stripes,
};
use crate::line::LINE;
use crate::math::exp;
use crate::simd::{lane_map_sum, lane_max, lane_sum, simd};
use tokenformer_device::Write;

pub use packed::{logits_packed, losses_packed};

/// Divides the rows into equal chunks: as many rows as make 64 MiB of logits, but at least 64 and at most 1024.
pub fn chunks(rows: usize, vocab: usize) -> Pieces {
    let most = ((16 << 20) / vocab.max(1)).clamp(64, 1024);
    Pieces::new(rows, rows.div_ceil(rows.div_ceil(most).max(1)).max(1))
}

/// The targets of the rows: a class per row `[R]`, or a weight per row and class `[R, V]`.
pub type Targets<'a> = tokenformer_device::RowTargets<&'a [u32], &'a [f32]>;

/// Gradients that [`forward`] writes.
pub struct Gradient<'a> {
    /// Factor of every row's loss in the objective, for instance 1/R for a mean.
    pub weight: f32,
    /// Gradient of `h` `[R, D]`, written.
    pub dh: &'a mut [f32],
    /// Gradient of the table `[V, D]`, added to; `None` if it is frozen.
    pub dtable: Option<&'a mut [f32]>,
    /// Gradient of the bias `[V]`, added to; `None` if there is none, or it is frozen.
    pub dbias: Option<&'a mut [f32]>,
}

/// A head: hidden states `[R, D]`, table `[V, D]`, bias `[V]`, factor of the logits, width `D`.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// Hidden states.
    pub hidden: &'a [f32],
    /// Table.
    pub table: &'a [f32],
    /// Bias, if there is one.
    pub bias: Option<&'a [f32]>,
    /// Factor of the logits, before the bias is added.
    pub scale: f32,
    /// Width of a row.
    pub width: usize,
}

/// Per-row loss `losses` `[R]` (nats; NaN where a logit is not finite), and with `gradient` the gradients of
/// `weight · Σ losses`.
pub fn forward<P: Element>(
    exec: &mut Exec<'_>,
    head: Head<'_>,
    targets: Targets<'_>,
    losses: &mut [f32],
    mut gradient: Option<Gradient<'_>>,
) where
    f32: Source<P>,
{
    let Head {
        hidden: h,
        table,
        bias,
        scale,
        width: d,
    } = head;
    let (r, v) = (losses.len(), table.len() / d);
    assert_eq!((h.len(), targets_len(targets, v)), (r * d, r));
    let chunks = chunks(r, v);
    let stride = row_stride(v);
    let mut work = exec.scratch.take_shared(chunks.size() * stride);
    for chunk in (0..chunks.count()).map(|i| chunks.range(i)) {
        let n = chunk.len();
        let rows = chunk.start * d..chunk.end * d;
        let probabilities = &mut work[..n * stride];
        let (hidden, all) = (Mat::new(&h[rows.clone()], n, d), Mat::new(table, v, d));
        let logits = MatMut::strided(&mut *probabilities, n, v, stride);
        par_matmul::<P>(exec, logits, Write::Replace, hidden, all.t(), scale);
        let weight = gradient.as_ref().map(|g| g.weight);
        let losses = &mut losses[chunk.clone()];
        let logits = Logits {
            rows: &mut *probabilities,
            stride,
            classes: v,
            bias,
        };
        row_losses(exec, logits, targets, chunk.start, losses, weight);
        if let Some(gradient) = &mut gradient {
            if let Some(dbias) = &mut gradient.dbias {
                elementwise::sum_rows_at(exec, dbias, probabilities, stride);
            }
            let d_logits = Mat::strided(probabilities, n, v, stride);
            let dh = &mut gradient.dh[rows.clone()];
            head_gradient::<P>(exec, d_logits, table, scale, dh, d);
            if let Some(dtable) = &mut gradient.dtable {
                let mut lines = exec.scratch.take_lines(packed_lines::<P>(n, d));
                let packed = par_pack::<P, f32>(exec, &mut lines, hidden);
                let out = MatMut::new(dtable, v, d);
                par_gemm_packed(exec, out, Write::Add, d_logits.t(), packed, scale);
            }
        }
    }
}

/// Number of rows that have targets.
fn targets_len(targets: Targets<'_>, v: usize) -> usize {
    match targets {
        Targets::Classes(classes) => classes.len(),
        Targets::Soft(weights) => weights.len() / v,
    }
}

/// Distance of rows of `v` logits in floats. Rows at multiples of a page would compete for the same lines of the caches
/// when products read columns, so whole lines are followed by another line.
fn row_stride(v: usize) -> usize {
    match v.is_multiple_of(LINE) {
        true => v + LINE,
        false => v,
    }
}

/// Rows of `classes` logits.
struct Logits<'a> {
    rows: &'a mut [f32],
    /// Floats from a row to the next; the last row has as many elements after it.
    stride: usize,
    classes: usize,
    /// What has yet to be added to each row.
    bias: Option<&'a [f32]>,
}

/// Losses of the rows of `logits`, whose first row is row `first` of the targets. With `weight`, logits are replaced by
/// their gradient times it.
fn row_losses(
    exec: &mut Exec<'_>,
    logits: Logits<'_>,
    targets: Targets<'_>,
    first: usize,
    losses: &mut [f32],
    weight: Option<f32>,
) {
    let (stride, v, bias) = (logits.stride, logits.classes, logits.bias);
    let rows = losses.len();
    let (logits, losses) = (Disjoint::new(logits.rows), Disjoint::new(losses));
    let (factor, differentiate) = (weight.unwrap_or(0.0), weight.is_some());
    exec.run(rows, 0, |row, _| {
        // SAFETY: each task owns one row.
        let logits = unsafe { logits.part(row * stride..row * stride + v) };
        if let Some(bias) = bias {
            elementwise::add_part(logits, bias);
        }
        // SAFETY: as above.
        let loss = unsafe { losses.part(row..row + 1) };
        let at = first + row;
        loss[0] = match targets {
            Targets::Classes(classes) => {
                row_loss(logits, classes[at] as usize, factor, differentiate)
            }
            Targets::Soft(weights) => {
                let weights = &weights[at * v..(at + 1) * v];
                soft_loss(logits, weights, factor, differentiate)
            }
        };
    });
}

/// `dh` `[R, D] = scale · d_logits[R, V] · table[V, D]`. The sum over `V` is done in stripes, so that only a few rows
/// of the table are packed at a time.
fn head_gradient<P: Element>(
    exec: &mut Exec<'_>,
    d_logits: Mat<'_>,
    table: &[f32],
    scale: f32,
    dh: &mut [f32],
    d: usize,
) where
    f32: Source<P>,
{
    let [r, v] = d_logits.shape();
    let stripes = stripes::<P>(v, d);
    for (i, rows) in (0..stripes.count()).map(|i| stripes.range(i)).enumerate() {
        let mut lines = exec.scratch.take_lines(packed_lines::<P>(rows.len(), d));
        let block = Mat::new(table, v, d).row_block(rows.start, rows.len());
        let packed = par_pack::<P, f32>(exec, &mut lines, block);
        let d_logits = d_logits.col_block(rows.start, rows.len());
        let dh = MatMut::new(dh, r, d);
        par_gemm_packed(exec, dh, Write::nth(i), d_logits, packed, scale);
    }
}

simd! {
    /// −log softmax(logits)[target], NaN if a logit is not finite. With `differentiate`, logits are replaced by their
    /// gradient times `weight`.
    fn row_loss(logits: &mut [f32], target: usize, weight: f32, differentiate: bool) -> f32 {
        let max = lane_max(logits);
        // The exponential of −∞ is 0 and would hide it; 0 · x is 0 for every finite x and NaN for other x.
        let zero = lane_sum(logits.len(), |i| logits[i] * 0.0);
        let own = logits[target];
        let sum = lane_map_sum(logits, |l| exp(l - max));
        if differentiate {
            let scale = weight / sum;
            logits.iter_mut().for_each(|l| *l *= scale);
            logits[target] -= weight;
        }
        max + sum.ln() - own + zero
    }
}
simd! {
    /// −Σ w·log softmax(logits), NaN if a logit is not finite; with `differentiate`, logits are replaced by their
    /// gradient times `weight`.
    fn soft_loss(logits: &mut [f32], w: &[f32], weight: f32, differentiate: bool) -> f32 {
        let max = lane_max(logits);
        let n = logits.len();
        let zero = lane_sum(n, |i| logits[i] * 0.0);
        let total = lane_sum(n, |i| w[i]);
        let own = lane_sum(n, |i| w[i] * (logits[i] - max));
        let sum = lane_map_sum(logits, |l| exp(l - max));
        if differentiate {
            let scale = weight * total / sum;
            for (l, &w) in logits.iter_mut().zip(w) {
                *l = scale * *l - weight * w;
            }
        }
        total * sum.ln() - own + zero
    }
}

//! Softmax attention between tokens.

use super::matrices::dot;
use crate::AttentionDims;

/// The numbers of one head at one position.
fn channels<'a>(dims: &AttentionDims, rows: &'a [f64], row: usize, head: usize) -> &'a [f64] {
    &rows[row * dims.width() + head * dims.channels..][..dims.channels]
}

/// For query `i` of one head: the probabilities of its visible keys, and the log of their denominator.
fn probabilities(
    dims: &AttentionDims,
    q: &[f64],
    k: &[f64],
    [b, h, i]: [usize; 3],
) -> (Vec<f64>, f64) {
    let q = channels(dims, q, b * dims.queries + i, h);
    let score = |j| {
        let k = channels(dims, k, b * dims.key_stride + j, h);
        dot(q, k) / (dims.channels as f64).sqrt()
    };
    let scores: Vec<f64> = (0..dims.visible(i)).map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    let p = scores.iter().map(|s| (s - max).exp() / sum).collect();
    (p, max + sum.ln())
}

/// Batch, head and query, in the order of the log-denominators.
fn queries(dims: AttentionDims) -> impl Iterator<Item = [usize; 3]> {
    let heads = (0..dims.batch).flat_map(move |b| (0..dims.heads).map(move |h| (b, h)));
    heads.flat_map(move |(b, h)| (0..dims.queries).map(move |i| [b, h, i]))
}

/// Output and log-denominators of [`crate::Device::attention`].
///
/// # Shapes
/// `q` `[B·T_q, D]`, `k` and `v` `[B·key_stride, D]` to `[B·T_q, D]` and `[B, H, T_q]`.
pub fn attention(dims: AttentionDims, [q, k, v]: [&[f64]; 3]) -> (Vec<f64>, Vec<f64>) {
    let (mut o, mut log_sums) = (vec![0.0; q.len()], Vec::with_capacity(dims.stats_len()));
    for [b, h, i] in queries(dims) {
        let (p, log_sum) = probabilities(&dims, q, k, [b, h, i]);
        log_sums.push(log_sum);
        let at = (b * dims.queries + i) * dims.width() + h * dims.channels;
        let out = &mut o[at..][..dims.channels];
        for (j, p) in p.iter().enumerate() {
            let v = channels(&dims, v, b * dims.key_stride + j, h);
            out.iter_mut().zip(v).for_each(|(o, v)| *o += p * v);
        }
    }
    (o, log_sums)
}

/// Gradients `[dq, dk, dv]` of [`attention`].
///
/// # Shapes
/// Those of the inputs.
pub fn attention_backward(
    dims: AttentionDims,
    [q, k, v]: [&[f64]; 3],
    d_o: &[f64],
) -> [Vec<f64>; 3] {
    let c = dims.channels;
    let scale = 1.0 / (c as f64).sqrt();
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.len()]);
    for [b, h, i] in queries(dims) {
        let (p, _) = probabilities(&dims, q, k, [b, h, i]);
        let row = b * dims.queries + i;
        let (q, d_o) = (channels(&dims, q, row, h), channels(&dims, d_o, row, h));
        let value = |j: usize| channels(&dims, v, b * dims.key_stride + j, h);
        let dp: Vec<f64> = (0..p.len()).map(|j| dot(d_o, value(j))).collect();
        let inner = dot(&p, &dp);
        let at_q = row * dims.width() + h * c;
        for j in 0..p.len() {
            let at = (b * dims.key_stride + j) * dims.width() + h * c;
            let ds = p[j] * (dp[j] - inner) * scale;
            for l in 0..c {
                dq[at_q + l] += ds * k[at + l];
                dk[at + l] += ds * q[l];
                dv[at + l] += p[j] * d_o[l];
            }
        }
    }
    [dq, dk, dv]
}

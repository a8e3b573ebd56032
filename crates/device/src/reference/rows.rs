//! What works row by row: LayerNorm, rotary embedding, the loss; and the optimizer.

use super::matrices::{dot, logits};
use crate::{Adam, RotaryDims, RowTargets};

/// Mean and `1/√(var + ε)` of a row, with the biased variance.
pub fn norm_stats(x: &[f64], eps: f64) -> [f64; 2] {
    let d = x.len() as f64;
    let mean = x.iter().sum::<f64>() / d;
    let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d;
    [mean, 1.0 / (var + eps).sqrt()]
}

/// LayerNorm of rows of `width`; `affine` is gain and bias.
///
/// # Shapes
/// `x` `[R, D]` to `[R, D]`.
pub fn layer_norm(x: &[f64], affine: Option<[&[f64]; 2]>, eps: f64, width: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for x in x.chunks_exact(width) {
        let [mean, rstd] = norm_stats(x, eps);
        for (i, x) in x.iter().enumerate() {
            let unit = (x - mean) * rstd;
            y.push(affine.map_or(unit, |[gain, bias]| unit * gain[i] + bias[i]));
        }
    }
    y
}

/// Gradient of one row of [`layer_norm`] by its input, from the normalised row `unit`.
pub fn norm_row_backward(unit: &[f64], rstd: f64, gain: Option<&[f64]>, dy: &[f64]) -> Vec<f64> {
    let d = unit.len() as f64;
    let scaled = |(i, dy): (usize, &f64)| dy * gain.map_or(1.0, |g| g[i]);
    let du: Vec<f64> = dy.iter().enumerate().map(scaled).collect();
    let (mean, inner) = (du.iter().sum::<f64>() / d, dot(&du, unit) / d);
    let each = du.iter().zip(unit);
    each.map(|(du, unit)| rstd * (du - mean - unit * inner))
        .collect()
}

/// Gradients `[dx, d_gain, d_bias]` of [`layer_norm`]; the last two mean something with a gain only.
///
/// # Shapes
/// `[R, D]`, `[D]`, `[D]`.
pub fn layer_norm_backward(
    x: &[f64],
    gain: Option<&[f64]>,
    eps: f64,
    dy: &[f64],
    width: usize,
) -> [Vec<f64>; 3] {
    let (mut dx, mut d_gain, mut d_bias) = (Vec::new(), vec![0.0; width], vec![0.0; width]);
    for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
        let [mean, rstd] = norm_stats(x, eps);
        let unit: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
        dx.extend(norm_row_backward(&unit, rstd, gain, dy));
        for i in 0..width {
            d_gain[i] += dy[i] * unit[i];
            d_bias[i] += dy[i];
        }
    }
    [dx, d_gain, d_bias]
}

/// Rotary embedding in place, by tables of cosines and sines `[positions, rotated/2]`.
///
/// # Shapes
/// `x` `[B·T, H·C]`.
pub fn rotate(
    x: &mut [f64],
    [cos, sin]: [&[f64]; 2],
    rotated: usize,
    dims: RotaryDims,
    inverse: bool,
) {
    let half = rotated / 2;
    let sign = if inverse { -1.0 } else { 1.0 };
    for (row, x) in x.chunks_exact_mut(dims.heads * dims.channels).enumerate() {
        for head in x.chunks_exact_mut(dims.channels) {
            for i in 0..half {
                let at = (dims.first + row % dims.length) * half + i;
                let (cos, sin) = (cos[at], sign * sin[at]);
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    }
}

/// Losses of rows and gradients, see [`cross_entropy`].
pub struct Loss {
    /// Loss of each row `[R]`, in nats.
    pub losses: Vec<f64>,
    /// Gradient of the hidden states `[R, D]`.
    pub d_hidden: Vec<f64>,
    /// Gradient of the table `[V, D]`.
    pub d_table: Vec<f64>,
    /// Gradient of the bias `[V]`.
    pub d_bias: Vec<f64>,
}

/// Cross-entropy of each row of `scale · H·Eᵀ + bias`, and the gradients of `weight · Σ losses`.
///
/// # Shapes
/// `h` `[R, D]`, `table` `[V, D]`, `bias` `[V]`.
pub fn cross_entropy(
    h: &[f64],
    table: &[f64],
    bias: Option<&[f64]>,
    scale: f64,
    targets: RowTargets<&[u32], &[f64]>,
    weight: f64,
    width: usize,
) -> Loss {
    let v = table.len() / width;
    let (mut losses, mut d_hidden) = (Vec::new(), vec![0.0; h.len()]);
    let (mut d_table, mut d_bias) = (vec![0.0; table.len()], vec![0.0; v]);
    for (r, h) in h.chunks_exact(width).enumerate() {
        let mut row = logits(h, table, scale, width);
        let bias = bias.into_iter().flatten();
        row.iter_mut().zip(bias).for_each(|(l, b)| *l += b);
        let target = |i: usize| match targets {
            RowTargets::Classes(classes) if classes[r] as usize == i => 1.0,
            RowTargets::Classes(_) => 0.0,
            RowTargets::Soft(weights) => weights[r * v + i],
        };
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|l| (l - max).exp()).sum();
        let total: f64 = (0..v).map(target).sum();
        let each = row.iter().enumerate();
        losses.push(each.map(|(i, l)| target(i) * (max + sum.ln() - l)).sum());
        for (i, l) in row.iter().enumerate() {
            let dl = weight * (total * (l - max).exp() / sum - target(i));
            d_bias[i] += dl;
            let dl = scale * dl;
            for j in 0..width {
                d_hidden[r * width + j] += dl * table[i * width + j];
                d_table[i * width + j] += dl * h[j];
            }
        }
    }
    Loss {
        losses,
        d_hidden,
        d_table,
        d_bias,
    }
}

/// The factors of [`crate::Device::clip_factors`].
pub fn clip_factors(sums_of_squares: &[f64], limit: f64, factors: &mut [f64]) {
    let finite = sums_of_squares.iter().all(|sum| sum.is_finite());
    for (factor, sum) in factors.iter_mut().zip(sums_of_squares) {
        let norm = sum.sqrt();
        *factor = match finite {
            false => f64::NAN,
            true if limit > 0.0 && norm > limit => limit / (norm + 1e-6),
            true => 1.0,
        };
    }
}

/// One update of [`crate::Device::adamw`]; the scalars are those of [`Adam::scalars`].
pub fn adamw(
    adam: Adam,
    [rate, inverse_root, kept]: [f64; Adam::SCALARS],
    factor: f64,
    p: &mut [f64],
    g: &[f64],
    m: &mut [f64],
    v: &mut [f64],
) {
    if factor.is_nan() {
        return;
    }
    let [b1, b2, eps] = [adam.beta1, adam.beta2, adam.eps].map(f64::from);
    for i in 0..p.len() {
        let g = g[i] * factor;
        m[i] = b1 * m[i] + (1.0 - b1) * g;
        v[i] = b2 * v[i] + (1.0 - b2) * g * g;
        p[i] = kept * p[i] - rate * m[i] / (v[i].sqrt() * inverse_root + eps);
    }
}

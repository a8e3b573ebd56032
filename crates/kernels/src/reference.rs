//! The same kernels once more, in f64 and as plainly as possible: one loop per sum, nothing fused.
//!
//! They define what the fast kernels compute, and are precise enough for finite differences. Layouts and
//! axis letters are those of the fast versions.

use crate::attention::Shape;
use crate::pattention::{Norm, Theta};
use std::ops::Range;

/// Consecutive parameter tokens of a site; see [`crate::pattention::Segment`].
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// Keys `[N_s, D_in]`.
    pub keys: &'a [f64],
    /// Values `[N_s, D_out]`.
    pub values: &'a [f64],
    /// Tokens `N_s`.
    pub tokens: usize,
    /// Scale used under [`Norm::Segment`].
    pub tau: f64,
}

/// A Pattention site; see [`crate::pattention::Site`].
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// Nonlinearity.
    pub theta: Theta,
    /// Span of the norm.
    pub norm: Norm,
    /// Added to each norm.
    pub eps: f64,
    /// The tokens.
    pub segments: &'a [Segment<'a>],
}

/// Gradients of a site's input and segments.
pub struct SiteGrad {
    /// `[R, D_in]`.
    pub dx: Vec<f64>,
    /// Per segment: gradients of keys and of values.
    pub segments: Vec<(Vec<f64>, Vec<f64>)>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The error function: its Maclaurin series near 0, a continued fraction of erfc elsewhere.
pub fn erf(x: f64) -> f64 {
    let ax = x.abs();
    if ax < 2.5 {
        let (mut term, mut sum, mut n) = (ax, ax, 0.0);
        while term.abs() > 1e-18 * sum.abs() && n < 200.0 {
            n += 1.0;
            term *= -ax * ax / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum.copysign(x) * 2.0 / std::f64::consts::PI.sqrt();
    }
    let mut fraction = 0.0;
    for k in (1..=80).rev() {
        fraction = f64::from(k) / 2.0 / (ax + fraction);
    }
    let erfc = (-ax * ax).exp() / std::f64::consts::PI.sqrt() / (ax + fraction);
    (1.0 - erfc).copysign(x)
}

/// Exact GELU, `z·Φ(z)`.
pub fn gelu(z: f64) -> f64 {
    0.5 * z * (1.0 + erf(z / std::f64::consts::SQRT_2))
}

/// `gelu'(z) = Φ(z) + z·φ(z)`.
pub fn gelu_derivative(z: f64) -> f64 {
    let cdf = 0.5 * (1.0 + erf(z / std::f64::consts::SQRT_2));
    cdf + z * (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

impl Site<'_> {
    /// Token ranges and `τ` of the norm groups.
    fn groups(&self) -> Vec<(Range<usize>, f64)> {
        let tokens: usize = self.segments.iter().map(|s| s.tokens).sum();
        match self.norm {
            Norm::Joint { tau } => vec![(0..tokens, f64::from(tau))],
            Norm::Segment => {
                let mut start = 0;
                let range = |n: usize, start: &mut usize| {
                    *start += n;
                    *start - n..*start
                };
                self.segments
                    .iter()
                    .map(|s| (range(s.tokens, &mut start), s.tau))
                    .collect()
            }
        }
    }

    fn keys(&self, d_in: usize) -> Vec<&[f64]> {
        self.segments
            .iter()
            .flat_map(|s| s.keys.chunks_exact(d_in))
            .collect()
    }

    fn values(&self, d_out: usize) -> Vec<&[f64]> {
        self.segments
            .iter()
            .flat_map(|s| s.values.chunks_exact(d_out))
            .collect()
    }
}

/// `Θ(a)` of one row.
fn theta_row(site: &Site<'_>, a: &[f64]) -> Vec<f64> {
    let mut sigma = a.to_vec();
    for (range, tau) in site.groups() {
        let part = &mut sigma[range];
        match site.theta {
            Theta::L2NormGelu => {
                let scale = tau / (dot(part, part).sqrt() + site.eps);
                part.iter_mut().for_each(|a| *a = gelu(*a * scale));
            }
            Theta::GeluL2Norm => {
                part.iter_mut().for_each(|a| *a = gelu(*a));
                let scale = tau / (dot(part, part).sqrt() + site.eps);
                part.iter_mut().for_each(|a| *a *= scale);
            }
            Theta::Softmax => {
                let max = part.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                part.iter_mut().for_each(|a| *a = (*a - max).exp());
                let scale = tau * tau / part.iter().sum::<f64>();
                part.iter_mut().for_each(|a| *a *= scale);
            }
        }
    }
    sigma
}

/// Gradient of the scores `a` of one row, from that of the weights `Θ(a)`.
fn theta_row_backward(site: &Site<'_>, a: &[f64], d_sigma: &[f64]) -> Vec<f64> {
    let mut da = vec![0.0; a.len()];
    for (range, tau) in site.groups() {
        let (a, d_sigma, da) = (&a[range.clone()], &d_sigma[range.clone()], &mut da[range]);
        // Gradient of u for z = τ·u/(‖u‖ + ε).
        let unnormalise = |u: &[f64], dz: &[f64]| -> Vec<f64> {
            let norm = dot(u, u).sqrt();
            let inner = dot(u, dz);
            let total = norm + site.eps;
            let along = if norm > 0.0 {
                inner / (norm * total)
            } else {
                0.0
            };
            u.iter()
                .zip(dz)
                .map(|(u, dz)| tau / total * (dz - u * along))
                .collect()
        };
        match site.theta {
            Theta::L2NormGelu => {
                let scale = tau / (dot(a, a).sqrt() + site.eps);
                let dz: Vec<f64> = a
                    .iter()
                    .zip(d_sigma)
                    .map(|(a, d)| d * gelu_derivative(a * scale))
                    .collect();
                da.copy_from_slice(&unnormalise(a, &dz));
            }
            Theta::GeluL2Norm => {
                let u: Vec<f64> = a.iter().map(|&a| gelu(a)).collect();
                let du = unnormalise(&u, d_sigma);
                for ((da, a), du) in da.iter_mut().zip(a).zip(du) {
                    *da = du * gelu_derivative(*a);
                }
            }
            Theta::Softmax => {
                let max = a.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let e: Vec<f64> = a.iter().map(|a| (a - max).exp()).collect();
                let sum: f64 = e.iter().sum();
                let p: Vec<f64> = e.iter().map(|e| e / sum).collect();
                let inner = dot(&p, d_sigma);
                for ((da, p), d) in da.iter_mut().zip(p).zip(d_sigma) {
                    *da = tau * tau * p * (d - inner);
                }
            }
        }
    }
    da
}

/// `Y = Θ(X·Kᵀ)·V`.
pub fn pattention(site: &Site<'_>, x: &[f64], [d_in, d_out]: [usize; 2]) -> Vec<f64> {
    let (keys, values) = (site.keys(d_in), site.values(d_out));
    let mut y = Vec::with_capacity(x.len() / d_in * d_out);
    for x in x.chunks_exact(d_in) {
        let a: Vec<f64> = keys.iter().map(|k| dot(x, k)).collect();
        let sigma = theta_row(site, &a);
        let mut row = vec![0.0; d_out];
        for (s, v) in sigma.iter().zip(&values) {
            row.iter_mut().zip(*v).for_each(|(y, v)| *y += s * v);
        }
        y.extend(row);
    }
    y
}

/// Gradients of [`pattention`].
pub fn pattention_backward(
    site: &Site<'_>,
    x: &[f64],
    dy: &[f64],
    [d_in, d_out]: [usize; 2],
) -> SiteGrad {
    let (keys, values) = (site.keys(d_in), site.values(d_out));
    let (mut dk, mut dv) = (vec![0.0; keys.len() * d_in], vec![0.0; keys.len() * d_out]);
    let mut dx = Vec::with_capacity(x.len());
    for (x, dy) in x.chunks_exact(d_in).zip(dy.chunks_exact(d_out)) {
        let a: Vec<f64> = keys.iter().map(|k| dot(x, k)).collect();
        let sigma = theta_row(site, &a);
        let d_sigma: Vec<f64> = values.iter().map(|v| dot(dy, v)).collect();
        let da = theta_row_backward(site, &a, &d_sigma);
        let mut row = vec![0.0; d_in];
        for i in 0..keys.len() {
            row.iter_mut()
                .zip(keys[i])
                .for_each(|(dx, k)| *dx += da[i] * k);
            dk[i * d_in..][..d_in]
                .iter_mut()
                .zip(x)
                .for_each(|(d, x)| *d += da[i] * x);
            dv[i * d_out..][..d_out]
                .iter_mut()
                .zip(dy)
                .for_each(|(d, y)| *d += sigma[i] * y);
        }
        dx.extend(row);
    }
    let mut segments = Vec::new();
    for s in site.segments {
        let rest = (
            dk.split_off(s.tokens * d_in),
            dv.split_off(s.tokens * d_out),
        );
        segments.push((
            std::mem::replace(&mut dk, rest.0),
            std::mem::replace(&mut dv, rest.1),
        ));
    }
    SiteGrad { dx, segments }
}

/// LayerNorm of rows of `d`; `affine` is gain and bias.
pub fn layer_norm(x: &[f64], affine: Option<[&[f64]; 2]>, eps: f64, d: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for x in x.chunks_exact(d) {
        let mean = x.iter().sum::<f64>() / d as f64;
        let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d as f64;
        for (i, x) in x.iter().enumerate() {
            let unit = (x - mean) / (var + eps).sqrt();
            y.push(affine.map_or(unit, |[gain, bias]| unit * gain[i] + bias[i]));
        }
    }
    y
}

/// Gradients `(dx, dgain, dbias)` of [`layer_norm`]; the last two are meaningful with a gain only.
pub fn layer_norm_backward(
    x: &[f64],
    gain: Option<&[f64]>,
    eps: f64,
    dy: &[f64],
    d: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut dx, mut dgain, mut dbias) = (Vec::new(), vec![0.0; d], vec![0.0; d]);
    for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
        let mean = x.iter().sum::<f64>() / d as f64;
        let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d as f64;
        let rstd = 1.0 / (var + eps).sqrt();
        let unit: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
        let du: Vec<f64> = dy
            .iter()
            .enumerate()
            .map(|(i, dy)| dy * gain.map_or(1.0, |g| g[i]))
            .collect();
        let (mean_du, inner) = (
            du.iter().sum::<f64>() / d as f64,
            dot(&du, &unit) / d as f64,
        );
        for i in 0..d {
            dx.push(rstd * (du[i] - mean_du - unit[i] * inner));
            dgain[i] += dy[i] * unit[i];
            dbias[i] += dy[i];
        }
    }
    (dx, dgain, dbias)
}

/// One head's query `i`, and the probabilities of the keys it sees.
fn head_row<'a>(
    shape: Shape,
    q: &'a [f64],
    k: &[f64],
    [b, h, i]: [usize; 3],
) -> (&'a [f64], Vec<f64>) {
    let (d, c) = (shape.heads * shape.channels, shape.channels);
    let q = &q[(b * shape.queries + i) * d + h * c..][..c];
    let seen = if shape.causal {
        shape.keys - shape.queries + i + 1
    } else {
        shape.keys
    };
    let score = |j: usize| dot(q, &k[(b * shape.key_stride + j) * d + h * c..][..c]);
    let scores: Vec<f64> = (0..seen).map(|j| score(j) / (c as f64).sqrt()).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    (q, scores.iter().map(|s| (s - max).exp() / sum).collect())
}

/// Softmax attention between tokens; see [`crate::attention::forward`].
pub fn attention(shape: Shape, [q, k, v]: [&[f64]; 3]) -> Vec<f64> {
    let (d, c) = (shape.heads * shape.channels, shape.channels);
    let mut o = vec![0.0; q.len()];
    for (b, h, i) in heads_and_queries(shape) {
        let (_, p) = head_row(shape, q, k, [b, h, i]);
        let out = &mut o[(b * shape.queries + i) * d + h * c..][..c];
        for (j, p) in p.iter().enumerate() {
            let v = &v[(b * shape.key_stride + j) * d + h * c..][..c];
            out.iter_mut().zip(v).for_each(|(o, v)| *o += p * v);
        }
    }
    o
}

/// Gradients `[dq, dk, dv]` of [`attention`].
pub fn attention_backward(shape: Shape, [q, k, v]: [&[f64]; 3], d_o: &[f64]) -> [Vec<f64>; 3] {
    let (d, c) = (shape.heads * shape.channels, shape.channels);
    let scale = 1.0 / (c as f64).sqrt();
    let [mut dq, mut dk, mut dv] = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
    for (b, h, i) in heads_and_queries(shape) {
        let (q, p) = head_row(shape, q, k, [b, h, i]);
        let at_q = (b * shape.queries + i) * d + h * c;
        let d_o = &d_o[at_q..][..c];
        let dp: Vec<f64> = (0..p.len())
            .map(|j| dot(d_o, &v[(b * shape.key_stride + j) * d + h * c..][..c]))
            .collect();
        let inner = dot(&p, &dp);
        for j in 0..p.len() {
            let at = (b * shape.key_stride + j) * d + h * c;
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

fn heads_and_queries(shape: Shape) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..shape.batch).flat_map(move |b| {
        (0..shape.heads).flat_map(move |h| (0..shape.queries).map(move |i| (b, h, i)))
    })
}

/// Rotary embedding in place; see [`crate::rotary::rotate`].
pub fn rotate(
    x: &mut [f64],
    table: &crate::rotary::Table,
    [t, heads, channels]: [usize; 3],
    first: usize,
    inverse: bool,
) {
    let half = table.dims / 2;
    for (row, x) in x.chunks_exact_mut(heads * channels).enumerate() {
        for head in x.chunks_exact_mut(channels) {
            for i in 0..half {
                let at = (first + row % t) * half + i;
                let (cos, mut sin) = (f64::from(table.cos[at]), f64::from(table.sin[at]));
                if inverse {
                    sin = -sin;
                }
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    }
}

/// `scale · H·Eᵀ`.
pub fn logits(h: &[f64], table: &[f64], scale: f64, d: usize) -> Vec<f64> {
    h.chunks_exact(d)
        .flat_map(|h| table.chunks_exact(d).map(move |e| scale * dot(h, e)))
        .collect()
}

/// Per-row losses, and the gradients `(dh, dtable)` of `weight · Σ nll`.
pub fn cross_entropy(
    h: &[f64],
    table: &[f64],
    scale: f64,
    targets: &[u32],
    weight: f64,
    d: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut nll, mut dh) = (Vec::new(), vec![0.0; h.len()]);
    let mut dtable = vec![0.0; table.len()];
    for (r, (h, &target)) in h.chunks_exact(d).zip(targets).enumerate() {
        let row = logits(h, table, scale, d);
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|l| (l - max).exp()).sum();
        nll.push(max + sum.ln() - row[target as usize]);
        for (i, l) in row.iter().enumerate() {
            let hit = if i == target as usize { 1.0 } else { 0.0 };
            let dl = weight * scale * ((l - max).exp() / sum - hit);
            for j in 0..d {
                dh[r * d + j] += dl * table[i * d + j];
                dtable[i * d + j] += dl * h[j];
            }
        }
    }
    (nll, dh, dtable)
}

/// AdamW; see [`crate::adamw::update`].
pub fn adamw(u: crate::adamw::Update, p: &mut [f64], g: &[f64], m: &mut [f64], v: &mut [f64]) {
    let [lr, b1, b2, eps, decay, scale] =
        [u.lr, u.beta1, u.beta2, u.eps, u.weight_decay, u.grad_scale].map(f64::from);
    let step = u.step as f64;
    let (c1, c2) = (1.0 - b1.powf(step), 1.0 - b2.powf(step));
    for i in 0..p.len() {
        let g = g[i] * scale;
        m[i] = b1 * m[i] + (1.0 - b1) * g;
        v[i] = b2 * v[i] + (1.0 - b2) * g * g;
        p[i] -= lr * decay * p[i] + lr * (m[i] / c1) / ((v[i] / c2).sqrt() + eps);
    }
}

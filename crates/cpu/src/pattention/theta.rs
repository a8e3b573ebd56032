//! `Θ` along the parameter tokens of a row, and its gradient. [`tokenformer_device::Theta`] lists the formulas.

pub(super) mod parts;

use crate::math::{exp, gelu, gelu_and_derivative};
use crate::simd::{lane_dot, lane_map_sum, lane_max, lane_sum, simd};
use tokenformer_device::{Site, Theta};

/// Converts the scores of a row to weights, in place; `stats` receives what the backward pass needs per group.
pub(super) fn theta_row<W>(site: &Site<'_, W>, row: &mut [f32], stats: &mut [f32]) {
    for (group, stat) in stats.iter_mut().enumerate() {
        let (segments, tau) = site.group(group);
        let parts = || segments.clone().map(|s| site.columns(s));
        match site.theta {
            Theta::L2NormGelu => {
                let norm = parts()
                    .map(|c| dot(&row[c.clone()], &row[c]))
                    .sum::<f32>()
                    .sqrt();
                let scale = tau / (norm + site.eps);
                parts().for_each(|c| gelu_scaled(&mut row[c], scale));
                *stat = norm;
            }
            Theta::L1NormGelu => {
                let norm = parts().map(|c| absolute_sum(&row[c])).sum::<f32>();
                let scale = tau * tau / (norm + site.eps);
                parts().for_each(|c| gelu_scaled(&mut row[c], scale));
                *stat = norm;
            }
            Theta::GeluL2Norm => {
                parts().for_each(|c| gelu_scaled(&mut row[c], 1.0));
                let norm = parts()
                    .map(|c| dot(&row[c.clone()], &row[c]))
                    .sum::<f32>()
                    .sqrt();
                let scale = tau / (norm + site.eps);
                parts().for_each(|c| scale_in_place(&mut row[c], scale));
                *stat = norm;
            }
            Theta::Softmax => {
                let max = parts()
                    .map(|c| max(&row[c]))
                    .fold(f32::NEG_INFINITY, f32::max);
                let sum = parts().map(|c| exp_minus(&mut row[c], max)).sum::<f32>();
                parts().for_each(|c| scale_in_place(&mut row[c], tau * tau / sum));
                *stat = max + sum.ln();
            }
            Theta::Gelu => {
                parts().for_each(|c| gelu_scaled(&mut row[c], 1.0));
                *stat = 0.0;
            }
        }
    }
}

/// `scores` A → weights Σ and `da` dΣ → dA, both in place; `spare` is a row of scratch memory.
pub(super) fn theta_row_backward<W>(
    site: &Site<'_, W>,
    scores: &mut [f32],
    da: &mut [f32],
    stats: &[f32],
    spare: &mut [f32],
) {
    for (group, &stat) in stats.iter().enumerate() {
        let (segments, tau) = site.group(group);
        let parts = || segments.clone().map(|s| site.columns(s));
        // For both kinds with a norm: with s = τ/(‖u‖+ε), dU = s·(dZ − U·(U·dZ)/(‖u‖(‖u‖+ε))).
        let (norm, inv) = (stat, 1.0 / (stat + site.eps));
        let scale = tau * inv;
        let projection = |inner: f32| if norm > 0.0 { inner * inv / norm } else { 0.0 };
        match site.theta {
            Theta::L2NormGelu => {
                // dZ = dΣ ⊙ gelu'(Z) replaces dΣ; U = A. Σ = gelu(Z) waits in `spare` until A is not needed any more.
                let inner = parts()
                    .map(|c| {
                        let (da, sigma) = (&mut da[c.clone()], &mut spare[c.clone()]);
                        gelu_grad(da, sigma, &scores[c], scale)
                    })
                    .sum();
                let p = projection(inner);
                for c in parts() {
                    let (da, scores) = (&mut da[c.clone()], &mut scores[c.clone()]);
                    remove_projection(da, scores, &spare[c], scale, p);
                }
            }
            Theta::L1NormGelu => {
                // As above, except for the norm's slope, which is the sign of A, and its scale, which is τ².
                let scale = tau * scale;
                let inner: f32 = parts()
                    .map(|c| {
                        let (da, sigma) = (&mut da[c.clone()], &mut spare[c.clone()]);
                        gelu_grad(da, sigma, &scores[c], scale)
                    })
                    .sum();
                for c in parts() {
                    let (da, scores) = (&mut da[c.clone()], &mut scores[c.clone()]);
                    remove_signs(da, scores, &spare[c], scale, inner * inv);
                }
            }
            Theta::GeluL2Norm => {
                let inner = parts().map(|c| gelu_dot(&da[c.clone()], &scores[c])).sum();
                let p = projection(inner);
                for c in parts() {
                    gelu_l2_backward(&mut da[c.clone()], &mut scores[c], scale, p);
                }
            }
            Theta::Softmax => {
                for c in parts() {
                    exp_minus(&mut scores[c], stat);
                }
                let inner = parts()
                    .map(|c| dot(&da[c.clone()], &scores[c]))
                    .sum::<f32>();
                for c in parts() {
                    softmax_backward(&mut da[c.clone()], &mut scores[c], tau * tau, inner);
                }
            }
            Theta::Gelu => {
                for c in parts() {
                    gelu_backward(&mut da[c.clone()], &mut scores[c]);
                }
            }
        }
    }
}

simd! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        lane_dot(a, b)
    }
}
simd! {
    /// `Σ |a|`.
    fn absolute_sum(a: &[f32]) -> f32 {
        lane_sum(a.len(), |i| a[i].abs())
    }
}
simd! {
    fn max(a: &[f32]) -> f32 {
        lane_max(a)
    }
}
simd! {
    fn scale_in_place(a: &mut [f32], scale: f32) {
        a.iter_mut().for_each(|a| *a *= scale);
    }
}
simd! {
    /// `a = gelu(scale · a)`.
    fn gelu_scaled(a: &mut [f32], scale: f32) {
        a.iter_mut().for_each(|a| *a = gelu(scale * *a));
    }
}
simd! {
    /// `a = exp(a - shift)`; returns the sum.
    fn exp_minus(a: &mut [f32], shift: f32) -> f32 {
        lane_map_sum(a, |a| exp(a - shift))
    }
}
simd! {
    /// `d = d ⊙ gelu'(scale · a)` and `g = gelu(scale · a)`; returns `a·d` afterwards.
    fn gelu_grad(d: &mut [f32], g: &mut [f32], a: &[f32], scale: f32) -> f32 {
        for ((d, g), &a) in d.iter_mut().zip(g).zip(a) {
            let (value, slope) = gelu_and_derivative(scale * a);
            *d *= slope;
            *g = value;
        }
        lane_dot(d, a)
    }
}
simd! {
    /// `d = scale · (d − p · u)`, and then `u = g`.
    fn remove_projection(d: &mut [f32], u: &mut [f32], g: &[f32], scale: f32, p: f32) {
        for ((d, u), &g) in d.iter_mut().zip(u).zip(g) {
            *d = scale * (-p).mul_add(*u, *d);
            *u = g;
        }
    }
}
simd! {
    /// `d = scale · (d − p · sign(u))`, and then `u = g`.
    fn remove_signs(d: &mut [f32], u: &mut [f32], g: &[f32], scale: f32, p: f32) {
        for ((d, u), &g) in d.iter_mut().zip(u).zip(g) {
            // The slope of |u|, 0 at 0.
            let sign = if *u == 0.0 { 0.0 } else { 1.0f32.copysign(*u) };
            *d = scale * (-p).mul_add(sign, *d);
            *u = g;
        }
    }
}
simd! {
    /// `Σ d·gelu(a)`.
    fn gelu_dot(d: &[f32], a: &[f32]) -> f32 {
        lane_sum(d.len(), |i| d[i] * gelu(a[i]))
    }
}
simd! {
    /// With `u = gelu(a)`: `d = scale·(d − p·u)·gelu'(a)` and `a = scale·u`.
    fn gelu_l2_backward(d: &mut [f32], a: &mut [f32], scale: f32, p: f32) {
        for (d, a) in d.iter_mut().zip(a) {
            let (u, du) = gelu_and_derivative(*a);
            *d = scale * (-p).mul_add(u, *d) * du;
            *a = scale * u;
        }
    }
}
simd! {
    /// With probabilities `p`: `d = scale·p·(d − inner)` and `p = scale·p`.
    fn softmax_backward(d: &mut [f32], p: &mut [f32], scale: f32, inner: f32) {
        for (d, p) in d.iter_mut().zip(p) {
            *p *= scale;
            *d = *p * (*d - inner);
        }
    }
}
simd! {
    /// `d = d ⊙ gelu'(a)` and `a = gelu(a)`.
    fn gelu_backward(d: &mut [f32], a: &mut [f32]) {
        for (d, a) in d.iter_mut().zip(a) {
            let (u, du) = gelu_and_derivative(*a);
            *d *= du;
            *a = u;
        }
    }
}

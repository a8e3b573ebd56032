//! Complete Pattention, against which the fused operations of other devices are tested.

use super::matrices::dot;
use super::theta::{theta_row, theta_row_backward};
use crate::{Site, SiteDims};

/// Gradients of a site's input and segments.
pub struct SiteGradient {
    /// Gradient of the input `[R, D_in]`.
    pub dx: Vec<f64>,
    /// Per segment: gradients of keys `[N_s, D_in]` and of values `[N_s, D_out]`.
    pub segments: Vec<[Vec<f64>; 2]>,
}

fn keys<'a>(site: &Site<'a, &'a [f64]>, dims: SiteDims) -> Vec<&'a [f64]> {
    let rows = |keys: &'a [f64]| keys.chunks_exact(dims.d_in);
    site.segments.iter().flat_map(|s| rows(s.keys)).collect()
}

fn values<'a>(site: &Site<'a, &'a [f64]>, dims: SiteDims) -> Vec<&'a [f64]> {
    let rows = |values: &'a [f64]| values.chunks_exact(dims.d_out);
    site.segments.iter().flat_map(|s| rows(s.values)).collect()
}

/// `Y = Θ(X·Kᵀ)·V`.
///
/// # Shapes
/// `x` `[R, D_in]` to `[R, D_out]`.
pub fn pattention<'a>(site: &Site<'a, &'a [f64]>, x: &[f64], dims: SiteDims) -> Vec<f64> {
    let (keys, values) = (keys(site, dims), values(site, dims));
    let mut stats = vec![0.0; site.groups()];
    let mut y = Vec::with_capacity(dims.rows * dims.d_out);
    for x in x.chunks_exact(dims.d_in) {
        let mut weights: Vec<f64> = keys.iter().map(|k| dot(x, k)).collect();
        theta_row(site, &mut weights, &mut stats);
        let mut row = vec![0.0; dims.d_out];
        for (s, v) in weights.iter().zip(&values) {
            row.iter_mut().zip(*v).for_each(|(y, v)| *y += s * v);
        }
        y.extend(row);
    }
    y
}

/// Gradients of [`pattention`].
///
/// # Shapes
/// `x` `[R, D_in]`, `dy` `[R, D_out]`.
pub fn pattention_backward<'a>(
    site: &Site<'a, &'a [f64]>,
    x: &[f64],
    dy: &[f64],
    dims: SiteDims,
) -> SiteGradient {
    let SiteDims { d_in, d_out, .. } = dims;
    let (keys, values) = (keys(site, dims), values(site, dims));
    let (mut dk, mut dv) = (vec![0.0; keys.len() * d_in], vec![0.0; keys.len() * d_out]);
    let mut dx = Vec::with_capacity(x.len());
    for (x, dy) in x.chunks_exact(d_in).zip(dy.chunks_exact(d_out)) {
        let mut weights: Vec<f64> = keys.iter().map(|k| dot(x, k)).collect();
        let mut da: Vec<f64> = values.iter().map(|v| dot(dy, v)).collect();
        theta_row_backward(site, &mut weights, &mut da);
        let mut row = vec![0.0; d_in];
        for i in 0..keys.len() {
            add_scaled(&mut row, da[i], keys[i]);
            add_scaled(&mut dk[i * d_in..][..d_in], da[i], x);
            add_scaled(&mut dv[i * d_out..][..d_out], weights[i], dy);
        }
        dx.extend(row);
    }
    let mut of_segment = |tokens: usize| {
        let (rest_k, rest_v) = (dk.split_off(tokens * d_in), dv.split_off(tokens * d_out));
        [
            std::mem::replace(&mut dk, rest_k),
            std::mem::replace(&mut dv, rest_v),
        ]
    };
    let segments = site.segments.iter().map(|s| of_segment(s.tokens)).collect();
    SiteGradient { dx, segments }
}

/// `to += factor · from`.
fn add_scaled(to: &mut [f64], factor: f64, from: &[f64]) {
    let each = to.iter_mut().zip(from);
    each.for_each(|(to, from)| *to += factor * from);
}

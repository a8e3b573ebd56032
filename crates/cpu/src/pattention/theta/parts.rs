//! `Θ` of a row whose other scores are elsewhere, see [`tokenformer_device::ThetaInParts`].

use super::*;

/// Statistics of the scores of a row.
pub(in super::super) fn row_statistics<W>(site: &Site<'_, W>, row: &[f32], stats: &mut [f32]) {
    for (group, stat) in stats.iter_mut().enumerate() {
        let (segments, _) = site.group(group);
        let parts = || segments.clone().map(|s| &row[site.columns(s)]);
        *stat = match site.theta {
            Theta::L2NormGelu => parts().map(|a| dot(a, a)).sum::<f32>().sqrt(),
            Theta::L1NormGelu => parts().map(absolute_sum).sum(),
            Theta::GeluL2Norm => parts().map(gelu_squares).sum::<f32>().sqrt(),
            Theta::Softmax => {
                let max = parts().map(max).fold(f32::NEG_INFINITY, f32::max);
                match max == f32::NEG_INFINITY {
                    true => max,
                    false => max + parts().map(|a| exp_sum(a, max)).sum::<f32>().ln(),
                }
            }
            Theta::Gelu => 0.0,
        };
    }
}

/// Converts scores to weights, with statistics of all scores of the row.
pub(in super::super) fn row_weights<W>(site: &Site<'_, W>, stats: &[f32], row: &mut [f32]) {
    for (group, &stat) in stats.iter().enumerate() {
        let (segments, tau) = site.group(group);
        let inv = 1.0 / (stat + site.eps);
        for s in segments {
            let part = &mut row[site.columns(s)];
            match site.theta {
                Theta::L2NormGelu => gelu_scaled(part, tau * inv),
                Theta::L1NormGelu => gelu_scaled(part, tau * tau * inv),
                Theta::GeluL2Norm => {
                    gelu_scaled(part, 1.0);
                    scale_in_place(part, tau * inv);
                }
                Theta::Softmax => {
                    exp_minus(part, stat);
                    scale_in_place(part, tau * tau);
                }
                Theta::Gelu => gelu_scaled(part, 1.0),
            }
        }
    }
}

/// What the tokens of a row add to the projections.
pub(in super::super) fn row_projections<W>(
    site: &Site<'_, W>,
    scores: &[f32],
    stats: &[f32],
    da: &[f32],
    projections: &mut [f32],
) {
    for (group, (&stat, projection)) in stats.iter().zip(projections).enumerate() {
        let (segments, tau) = site.group(group);
        let scale = tau / (stat + site.eps);
        let each = segments.map(|s| {
            let (a, d) = (&scores[site.columns(s)], &da[site.columns(s)]);
            match site.theta {
                Theta::L2NormGelu => slope_dot(d, a, scale),
                Theta::L1NormGelu => slope_dot(d, a, tau * scale),
                Theta::GeluL2Norm => gelu_dot(d, a),
                Theta::Softmax => exp_dot(d, a, stat),
                Theta::Gelu => 0.0,
            }
        });
        *projection = each.sum();
    }
}

/// `scores` A → weights Σ and `da` dΣ → dA, with statistics and projections of all scores of the row.
pub(in super::super) fn row_backward<W>(
    site: &Site<'_, W>,
    stats: &[f32],
    projections: &[f32],
    scores: &mut [f32],
    da: &mut [f32],
    spare: &mut [f32],
) {
    for (group, (&stat, &inner)) in stats.iter().zip(projections).enumerate() {
        let (segments, tau) = site.group(group);
        let inv = 1.0 / (stat + site.eps);
        let scale = tau * inv;
        let along = if stat > 0.0 { inner * inv / stat } else { 0.0 };
        for s in segments {
            let columns = site.columns(s);
            let (a, d) = (&mut scores[columns.clone()], &mut da[columns.clone()]);
            let sigma = &mut spare[columns];
            match site.theta {
                Theta::L2NormGelu => {
                    gelu_grad(d, sigma, a, scale);
                    remove_projection(d, a, sigma, scale, along);
                }
                Theta::L1NormGelu => {
                    gelu_grad(d, sigma, a, tau * scale);
                    remove_signs(d, a, sigma, tau * scale, inner * inv);
                }
                Theta::GeluL2Norm => gelu_l2_backward(d, a, scale, along),
                Theta::Softmax => {
                    exp_minus(a, stat);
                    softmax_backward(d, a, tau * tau, inner);
                }
                Theta::Gelu => gelu_backward(d, a),
            }
        }
    }
}

simd! {
    /// `Σ gelu(a)²`.
    fn gelu_squares(a: &[f32]) -> f32 {
        lane_sum(a.len(), |i| {
            let u = gelu(a[i]);
            u * u
        })
    }
}
simd! {
    /// `Σ exp(a - shift)`.
    fn exp_sum(a: &[f32], shift: f32) -> f32 {
        lane_sum(a.len(), |i| exp(a[i] - shift))
    }
}
simd! {
    /// `Σ a·d·gelu'(scale · a)`.
    fn slope_dot(d: &[f32], a: &[f32], scale: f32) -> f32 {
        lane_sum(a.len(), |i| d[i] * gelu_and_derivative(scale * a[i]).1 * a[i])
    }
}
simd! {
    /// `Σ d·exp(a - shift)`.
    fn exp_dot(d: &[f32], a: &[f32], shift: f32) -> f32 {
        lane_sum(a.len(), |i| d[i] * exp(a[i] - shift))
    }
}

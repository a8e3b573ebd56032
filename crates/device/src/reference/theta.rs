//! `Θ` of a site, one row of scores at a time.

use super::gelu::{gelu, gelu_derivative};
use super::matrices::dot;
use crate::{Site, Theta};
use std::ops::Range;

/// Columns and `τ` of a norm group.
fn group<W>(site: &Site<'_, W>, group: usize) -> (Range<usize>, f64) {
    let (segments, tau) = site.group(group);
    let columns = site.offset(segments.start)..site.offset(segments.end);
    (columns, f64::from(tau))
}

/// Converts the scores `[N]` of a row to weights; `stats` `[groups]` receives the norm of each group, or the log of its
/// softmax denominator, or 0 if `Θ` has neither.
pub fn theta_row<W>(site: &Site<'_, W>, row: &mut [f64], stats: &mut [f64]) {
    let eps = f64::from(site.eps);
    for (number, stat) in stats.iter_mut().enumerate() {
        let (columns, tau) = group(site, number);
        let part = &mut row[columns];
        *stat = match site.theta {
            Theta::L2NormGelu => {
                let norm = dot(part, part).sqrt();
                let scale = tau / (norm + eps);
                part.iter_mut().for_each(|a| *a = gelu(*a * scale));
                norm
            }
            Theta::L1NormGelu => {
                let norm: f64 = part.iter().map(|a| a.abs()).sum();
                let scale = tau * tau / (norm + eps);
                part.iter_mut().for_each(|a| *a = gelu(*a * scale));
                norm
            }
            Theta::GeluL2Norm => {
                part.iter_mut().for_each(|a| *a = gelu(*a));
                let norm = dot(part, part).sqrt();
                part.iter_mut().for_each(|a| *a *= tau / (norm + eps));
                norm
            }
            Theta::Softmax => {
                let max = part.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                part.iter_mut().for_each(|a| *a = (*a - max).exp());
                let sum = part.iter().sum::<f64>();
                part.iter_mut().for_each(|a| *a *= tau * tau / sum);
                max + sum.ln()
            }
            Theta::Gelu => {
                part.iter_mut().for_each(|a| *a = gelu(*a));
                0.0
            }
        };
    }
}

/// Converts the scores `[N]` of a row to weights, and `d` `[N]` from the gradient of the weights to that of the scores.
pub fn theta_row_backward<W>(site: &Site<'_, W>, scores: &mut [f64], d: &mut [f64]) {
    let eps = f64::from(site.eps);
    for number in 0..site.groups() {
        let (columns, tau) = group(site, number);
        let (a, d) = (&scores[columns.clone()], &mut d[columns]);
        match site.theta {
            Theta::L2NormGelu => {
                let scale = tau / (dot(a, a).sqrt() + eps);
                let each = d.iter_mut().zip(a);
                each.for_each(|(d, a)| *d *= gelu_derivative(a * scale));
                norm_backward(a, d, tau, eps);
            }
            Theta::L1NormGelu => {
                let total = a.iter().map(|a| a.abs()).sum::<f64>() + eps;
                let scale = tau * tau / total;
                let each = d.iter_mut().zip(a);
                each.for_each(|(d, a)| *d *= gelu_derivative(a * scale));
                let along = dot(a, d) / total;
                let each = d.iter_mut().zip(a);
                each.for_each(|(d, &a)| *d = scale * (*d - sign(a) * along));
            }
            Theta::GeluL2Norm => {
                let u: Vec<f64> = a.iter().map(|&a| gelu(a)).collect();
                norm_backward(&u, d, tau, eps);
                let each = d.iter_mut().zip(a);
                each.for_each(|(d, a)| *d *= gelu_derivative(*a));
            }
            Theta::Softmax => {
                let max = a.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let e: Vec<f64> = a.iter().map(|a| (a - max).exp()).collect();
                let sum: f64 = e.iter().sum();
                let p: Vec<f64> = e.iter().map(|e| e / sum).collect();
                let inner = dot(&p, d);
                let each = d.iter_mut().zip(p);
                each.for_each(|(d, p)| *d = tau * tau * p * (*d - inner));
            }
            Theta::Gelu => {
                let each = d.iter_mut().zip(a);
                each.for_each(|(d, a)| *d *= gelu_derivative(*a));
            }
        }
    }
    theta_row(site, scores, &mut vec![0.0; site.groups()]);
}

/// Converts the gradient `d` of `z = τ·u/(‖u‖ + ε)` to that of `u`.
fn norm_backward(u: &[f64], d: &mut [f64], tau: f64, eps: f64) {
    let norm = dot(u, u).sqrt();
    let total = norm + eps;
    let along = if norm > 0.0 {
        dot(u, d) / (norm * total)
    } else {
        0.0
    };
    let each = d.iter_mut().zip(u);
    each.for_each(|(d, u)| *d = tau / total * (*d - u * along));
}

/// The slope of `|a|`, 0 at 0: a token with a zero key gets no gradient from its part of the norm.
fn sign(a: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a.signum() }
}

/// Statistics of the scores of a row, see [`crate::ThetaInParts::statistics`].
pub fn row_statistics<W>(site: &Site<'_, W>, row: &[f64], stats: &mut [f64]) {
    for (number, stat) in stats.iter_mut().enumerate() {
        let (columns, _) = group(site, number);
        let a = &row[columns];
        *stat = match site.theta {
            Theta::L2NormGelu => dot(a, a).sqrt(),
            Theta::L1NormGelu => a.iter().map(|a| a.abs()).sum(),
            Theta::GeluL2Norm => a.iter().map(|&a| gelu(a).powi(2)).sum::<f64>().sqrt(),
            Theta::Softmax if a.is_empty() => f64::NEG_INFINITY,
            Theta::Softmax => {
                let max = a.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                max + a.iter().map(|a| (a - max).exp()).sum::<f64>().ln()
            }
            Theta::Gelu => 0.0,
        };
    }
}

/// Converts scores to weights with given statistics, see [`crate::ThetaInParts::weights`].
pub fn row_weights<W>(site: &Site<'_, W>, stats: &[f64], row: &mut [f64]) {
    let eps = f64::from(site.eps);
    for (number, stat) in stats.iter().enumerate() {
        let (columns, tau) = group(site, number);
        let weight = |a: f64| match site.theta {
            Theta::L2NormGelu => gelu(a * tau / (stat + eps)),
            Theta::L1NormGelu => gelu(a * tau * tau / (stat + eps)),
            Theta::GeluL2Norm => gelu(a) * tau / (stat + eps),
            Theta::Softmax => tau * tau * (a - stat).exp(),
            Theta::Gelu => gelu(a),
        };
        row[columns].iter_mut().for_each(|a| *a = weight(*a));
    }
}

/// What the tokens of a row add to the projections, see [`crate::ThetaInParts::projections`].
pub fn row_projections<W>(
    site: &Site<'_, W>,
    scores: &[f64],
    stats: &[f64],
    d: &[f64],
    projections: &mut [f64],
) {
    let eps = f64::from(site.eps);
    for (number, (stat, to)) in stats.iter().zip(projections).enumerate() {
        let (columns, tau) = group(site, number);
        let scale = tau / (stat + eps);
        let term = |(a, d): (&f64, &f64)| match site.theta {
            Theta::L2NormGelu => a * d * gelu_derivative(a * scale),
            Theta::L1NormGelu => a * d * gelu_derivative(a * tau * scale),
            Theta::GeluL2Norm => d * gelu(*a),
            Theta::Softmax => d * (a - stat).exp(),
            Theta::Gelu => 0.0,
        };
        *to = scores[columns.clone()]
            .iter()
            .zip(&d[columns])
            .map(term)
            .sum();
    }
}

/// Gradient of the scores with given statistics and projections, see [`crate::ThetaInParts::backward`].
pub fn row_backward<W>(
    site: &Site<'_, W>,
    stats: &[f64],
    projections: &[f64],
    scores: &mut [f64],
    d: &mut [f64],
) {
    let eps = f64::from(site.eps);
    for (number, (&stat, &inner)) in stats.iter().zip(projections).enumerate() {
        let (columns, tau) = group(site, number);
        let total = stat + eps;
        let scale = tau / total;
        let along = if stat > 0.0 {
            inner / (stat * total)
        } else {
            0.0
        };
        let gradient = |a: f64, d: f64| match site.theta {
            Theta::L2NormGelu => scale * (d * gelu_derivative(a * scale) - a * along),
            Theta::L1NormGelu => {
                tau * scale * (d * gelu_derivative(a * tau * scale) - sign(a) * inner / total)
            }
            Theta::GeluL2Norm => scale * (d - gelu(a) * along) * gelu_derivative(a),
            Theta::Softmax => tau * tau * (a - stat).exp() * (d - inner),
            Theta::Gelu => d * gelu_derivative(a),
        };
        let each = d[columns.clone()].iter_mut().zip(&scores[columns]);
        each.for_each(|(d, a)| *d = gradient(*a, *d));
    }
    row_weights(site, stats, scores);
}

//! Exact GELU, with an error function that is precise to about 1e-16.

use std::f64::consts::{PI, SQRT_2};

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
        return sum.copysign(x) * 2.0 / PI.sqrt();
    }
    let mut fraction = 0.0;
    for k in (1..=80).rev() {
        fraction = f64::from(k) / 2.0 / (ax + fraction);
    }
    let erfc = (-ax * ax).exp() / PI.sqrt() / (ax + fraction);
    (1.0 - erfc).copysign(x)
}

/// Exact GELU, `z·Φ(z)`.
pub fn gelu(z: f64) -> f64 {
    0.5 * z * (1.0 + erf(z / SQRT_2))
}

/// `gelu'(z) = Φ(z) + z·φ(z)`.
pub fn gelu_derivative(z: f64) -> f64 {
    let cdf = 0.5 * (1.0 + erf(z / SQRT_2));
    cdf + z * (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

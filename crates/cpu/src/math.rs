//! Scalar functions that the compiler turns into vector code: `exp`, GELU and its derivative.
//!
//! Bounds against f64, which `tests/math_accuracy.rs` measures:
//!
//! | | largest error |
//! |---|---|
//! | `exp` | 1.2 units in the last place, subnormal results included |
//! | `gelu(z)` | 2e-7, absolute below 1 and relative above; relative 2e-6 for z >= -2, 1.5e-5 for z >= -3 |
//! | `gelu'(z)` | 4.5e-7 absolute |
//!
//! For smaller z, where GELU is below 4e-3 in magnitude, only its absolute bound of 1e-7 holds.

/// `e^x`; 0 below the smallest subnormal, infinity above the largest f32, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // e^x = 2^n · e^r with n = round(x / ln 2) and |r| <= ln 2 / 2.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it leaves round(x) in the low mantissa bits.
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    let clamped = x.clamp(-150.0, 128.0);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    // Minimax polynomial of degree 6, relative error 2e-9 before rounding.
    let mut p = 0.001_383_683_3f32;
    p = p.mul_add(r, 0.008_374_822);
    p = p.mul_add(r, 0.041_668_225);
    p = p.mul_add(r, 0.166_664_2);
    p = p.mul_add(r, 0.499_999_9);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    // 2^n in two factors, so that subnormal results and n = 128 come out right.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let pow2 = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
    p * pow2(half) * pow2(n - half)
}

/// `(x, Φ(−x))` with `x = |z|`: the tail of the standard normal distribution, as `1/p⁸`.
///
/// `p` is a polynomial of degree 8 in `x`, fitted to `Φ(−x)^(−1/8)` such that the largest error of
/// `max(x, 1)·Φ(−x)` is least (6e-8). The eighth power decreases as fast as the tail, so no exponential is needed.
#[inline(always)]
fn tail(z: f32) -> (f32, f32) {
    // Beyond this p⁸ is infinite and the tail 0, so x is limited to stay finite; NaN stays NaN.
    const FAR: f32 = 100.0;
    let x = z.abs();
    let x = if x > FAR { FAR } else { x };
    let mut p = 2.952_437_6e-6f32;
    p = p.mul_add(x, -1.514_882_4e-5);
    p = p.mul_add(x, 9.059_143_5e-5);
    p = p.mul_add(x, 1.627_612_5e-4);
    p = p.mul_add(x, 1.010_252e-3);
    p = p.mul_add(x, 9.414_799_5e-3);
    p = p.mul_add(x, 4.882_556e-2);
    p = p.mul_add(x, 1.087_612_9e-1);
    p = p.mul_add(x, 1.090_507_7);
    let p2 = p * p;
    let p4 = p2 * p2;
    // A division takes as long as the polynomial, so the caller multiplies by what this one gives.
    (x, 1.0 / (p4 * p4))
}

/// Exact (erf) GELU, `z·Φ(z)`.
#[inline(always)]
pub fn gelu(z: f32) -> f32 {
    gelu_of(z, tail(z))
}

/// GELU and its derivative, `(z·Φ(z), Φ(z) + z·φ(z))`.
#[inline(always)]
pub fn gelu_and_derivative(z: f32) -> (f32, f32) {
    let (x, beyond) = tail(z);
    // The derivative at −x over Φ(−x), which is 1 − x·φ(x)/Φ(−x): a polynomial of degree 8 with the least largest
    // error of the derivative (6e-8).
    let mut r = -1.096_032_9e-5f32;
    r = r.mul_add(x, 1.402_582_5e-4);
    r = r.mul_add(x, -5.618_109e-4);
    r = r.mul_add(x, -9.198_601_5e-4);
    r = r.mul_add(x, 2.007_983e-2);
    r = r.mul_add(x, -1.094_493_7e-1);
    r = r.mul_add(x, -6.365_203e-1);
    r = r.mul_add(x, -7.978_928_7e-1);
    r = r.mul_add(x, 1.000_000_1);
    let slope = r * beyond;
    let slope = if z < 0.0 { slope } else { 1.0 - slope };
    (gelu_of(z, (x, beyond)), slope)
}

/// `z·Φ(z) = max(z, 0) − x·Φ(−x)`.
#[inline(always)]
fn gelu_of(z: f32, (x, beyond): (f32, f32)) -> f32 {
    let positive = if z < 0.0 { 0.0 } else { z };
    positive - x * beyond
}

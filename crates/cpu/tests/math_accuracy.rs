//! The bounds that the documentation of `math` states, measured against f64.

use tokenformer_cpu::math::{exp, gelu, gelu_and_derivative};
use tokenformer_device::reference;

/// Every `stride`-th f32 of `[low, high]`, both ends included.
fn floats(low: f32, high: f32, stride: usize) -> impl Iterator<Item = f32> {
    // Order-preserving numbering of the floats.
    let key = |x: f32| {
        let bits = x.to_bits() as i32;
        i64::from(if bits < 0 {
            i32::MIN.wrapping_sub(bits)
        } else {
            bits
        })
    };
    let float = |key: i64| {
        let key = key as i32;
        f32::from_bits(if key < 0 {
            i32::MIN.wrapping_sub(key)
        } else {
            key
        } as u32)
    };
    (key(low)..=key(high))
        .step_by(stride)
        .map(float)
        .chain([high])
}

/// Distance of `got` from `want` in units of the last place of `want` as f32.
fn ulps(got: f32, want: f64) -> f64 {
    let unit = 2f64.powi((want.abs().log2().floor() as i32).max(-126) - 23);
    (f64::from(got) - want).abs() / unit
}

/// `1 − Φ(x)` for `x >= 0` to full relative precision.
fn upper_tail(x: f64) -> f64 {
    let t = x / std::f64::consts::SQRT_2;
    if t < 2.0 {
        return 0.5 * (1.0 - reference::erf(t));
    }
    let fraction = (1..=200)
        .rev()
        .fold(0.0, |f, k| f64::from(k) / 2.0 / (t + f));
    0.5 * (-t * t).exp() / std::f64::consts::PI.sqrt() / (t + fraction)
}

fn cdf(z: f64) -> f64 {
    if z < 0.0 {
        upper_tail(-z)
    } else {
        1.0 - upper_tail(z)
    }
}

fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt()
}

/// The largest of some numbers, NaN if one of them is.
fn worst(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |m: f64, x| if x > m || x.is_nan() { x } else { m })
}

#[track_caller]
fn within(what: &str, measured: f64, bound: f64) {
    println!("{what}: {measured:.3e}, documented {bound:.1e}");
    assert!(
        measured <= bound,
        "{what}: {measured:e} is above the documented {bound:e}"
    );
}

#[test]
fn exp_in_units_of_the_last_place() {
    let error = |x: f32| ulps(exp(x), f64::from(x).exp());
    within(
        "exp, normal results (ulp)",
        worst(floats(-87.3, 88.72, 1001).map(error)),
        1.2,
    );
    within(
        "exp, subnormal results (ulp)",
        worst(floats(-103.9, -87.3, 101).map(error)),
        1.2,
    );
}

#[test]
fn exp_at_the_extremes() {
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-0.0), 1.0);
    assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(exp(-104.0).to_bits(), 0);
    assert_eq!(exp(-1e30).to_bits(), 0);
    assert_eq!(exp(-103.2), f32::from_bits(1));
    assert!(exp(88.72).is_finite());
    for x in [88.73, 89.0, 128.0, 1e30, f32::INFINITY] {
        assert_eq!(exp(x), f32::INFINITY, "exp({x})");
    }
    assert!(exp(f32::NAN).is_nan());
    assert!(exp(-f32::NAN).is_nan());
}

#[test]
fn gelu_and_its_derivative() {
    let scaled = |got: f32, want: f64| (f64::from(got) - want).abs() / want.abs().max(1.0);
    let value = |z: f32| scaled(gelu(z), f64::from(z) * cdf(f64::from(z)));
    within(
        "gelu, |error| / max(1, |gelu|)",
        worst(floats(-20.0, 20.0, 997).map(value)),
        2e-7,
    );
    let relative = |z: f32| (f64::from(gelu(z)) / (f64::from(z) * cdf(f64::from(z))) - 1.0).abs();
    within(
        "gelu, relative, z >= -2",
        worst(floats(-2.0, -1e-30, 997).map(relative)),
        2e-6,
    );
    within(
        "gelu, relative, z >= -3",
        worst(floats(-3.0, -2.0, 97).map(relative)),
        1.5e-5,
    );
    within(
        "gelu, absolute, z <= -3",
        worst(floats(-20.0, -3.0, 97).map(value)),
        1e-7,
    );
    let slope = |z: f32| {
        let z64 = f64::from(z);
        scaled(gelu_and_derivative(z).1, cdf(z64) + z64 * density(z64))
    };
    within(
        "gelu', |error|",
        worst(floats(-20.0, 20.0, 997).map(slope)),
        4.5e-7,
    );
    for z in floats(-20.0, 20.0, 9973) {
        assert_eq!(
            gelu(z).to_bits(),
            gelu_and_derivative(z).0.to_bits(),
            "two gelu({z})"
        );
    }
}

#[test]
fn gelu_of_zero_is_zero() {
    // Growth with zero keys rests on this.
    assert_eq!(gelu(0.0).to_bits(), 0);
    assert_eq!(gelu_and_derivative(0.0).0.to_bits(), 0);
    assert!((gelu_and_derivative(0.0).1 - 0.5).abs() <= 2.0 * f32::EPSILON);
}

#[test]
fn gelu_at_the_extremes() {
    for z in [15.0f32, 99.9, 100.1, 1e4, 1e18, f32::MAX] {
        assert_eq!(gelu_and_derivative(z), (z, 1.0), "at {z}");
        let (value, slope) = gelu_and_derivative(-z);
        assert!(value.abs() < 1e-24 && slope.abs() < 1e-24, "at -{z}");
    }
    for z in [100.0, 1e4, f32::MAX, f32::INFINITY] {
        assert_eq!(gelu_and_derivative(-z), (0.0, 0.0), "at -{z}");
    }
    assert_eq!(gelu(f32::INFINITY), f32::INFINITY);
    assert!(gelu(f32::NAN).is_nan());
    assert!(gelu_and_derivative(f32::NAN).1.is_nan());
    for tiny in [f32::MIN_POSITIVE, f32::from_bits(1 << 12)] {
        assert!((gelu(tiny) / tiny - 0.5).abs() < 1e-3, "gelu({tiny:e})");
    }
}

#[test]
fn the_plain_version_is_precise() {
    for z in floats(-6.0, 6.0, 99_991).map(f64::from) {
        assert!((reference::gelu(z) - z * cdf(z)).abs() < 5e-14, "gelu({z})");
        let slope = cdf(z) + z * density(z);
        assert!(
            (reference::gelu_derivative(z) - slope).abs() < 5e-14,
            "gelu'({z})"
        );
    }
    // Tables of the normal distribution.
    let known = [
        (0.5, 0.691_462_461_274_013_1),
        (1.0, 0.841_344_746_068_542_9),
        (3.0, 0.998_650_101_968_369_9),
    ];
    for (z, phi) in known {
        assert!((cdf(z) - phi).abs() < 1e-15 && (cdf(-z) - (1.0 - phi)).abs() < 1e-15);
    }
    assert!((upper_tail(8.0) / 6.220_960_574_271_785e-16 - 1.0).abs() < 1e-12);
}

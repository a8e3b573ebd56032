//! Pattention with factors rounded to bfloat16, against the plain f64 kernels.

mod common;

use common::sites::{Case, Found, any_case};
use proptest::prelude::*;
use tokenformer_cpu::gemm::Bf16;
use tokenformer_device::Write;

/// `‖a − b‖ / ‖b‖`.
fn distance(a: &[f32], b: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - b));
    apart / norm(&mut b.iter().copied()).max(1e-3 * (b.len() as f64).sqrt())
}

fn distances(fast: &Found<f32>, plain: &Found<f64>) -> Vec<f64> {
    let mut all = vec![distance(&fast.y, &plain.y), distance(&fast.dx, &plain.dx)];
    for (fast, plain) in [(&fast.keys, &plain.keys), (&fast.values, &plain.values)] {
        all.extend(fast.iter().zip(plain).map(|(a, b)| distance(a, b)));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A bfloat16 has 8 significant bits: each factor is off by at most 0.4 %. (With very few terms a sum may
    /// cancel to almost nothing, so that roundings are all that is left of it.)
    #[test]
    fn close_to_f64_and_the_same_for_any_number_of_threads(case in any_case(24..140)) {
        prop_assume!(case.d_in >= 16 && case.d_out >= 16);
        let numbers = case.numbers();
        let fast = case.fast_in::<Bf16>(&numbers, 1, 0.0, Write::Replace, &[]);
        for distance in distances(&fast, &case.plain(&numbers)) {
            prop_assert!(distance < 0.05, "{distance} in {case:?}");
        }
        let other = case.fast_in::<Bf16>(&numbers, 3, 0.0, Write::Replace, &[]);
        prop_assert_eq!(fast.y, other.y);
        prop_assert_eq!(fast.dx, other.dx);
        prop_assert_eq!(fast.keys, other.keys);
        prop_assert_eq!(fast.values, other.values);
    }
}

/// The products are rounded: the f32 kernels are a hundred times closer.
#[test]
fn rounds_more_than_f32() {
    let case = Case {
        theta: tokenformer_device::Theta::L2NormGelu,
        joint: true,
        rows: 70,
        d_in: 64,
        d_out: 64,
        tokens: vec![96, 33],
        seed: 7,
    };
    let numbers = case.numbers();
    let plain = case.plain(&numbers);
    let bf16 = case.fast_in::<Bf16>(&numbers, 2, 0.0, Write::Replace, &[]);
    let f32 = case.fast(&numbers, 2, 0.0, Write::Replace, &[]);
    for (bf16, f32) in distances(&bf16, &plain)
        .into_iter()
        .zip(distances(&f32, &plain))
    {
        assert!(bf16 > 100.0 * f32 && bf16 < 0.02, "{bf16} {f32}");
    }
}

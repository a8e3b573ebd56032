//! Pattention with factors rounded to bfloat16, against the plain f64 kernels.

mod common;

use common::sites::{Case, Found, Numbers, any_case};
use common::{bits, cases};
use proptest::prelude::*;
use tokenformer_cpu::gemm::Bf16;
use tokenformer_device::Write;

/// `‖a − b‖ / ‖b‖`.
fn distance<T: Copy + Into<f64>>(a: &[T], b: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(&a, &b)| a.into() - b));
    apart / norm(&mut b.iter().copied()).max(1e-3 * (b.len() as f64).sqrt())
}

fn distances<T: Copy + Into<f64>>(found: &Found<T>, plain: &Found<f64>) -> Vec<f64> {
    let mut all = vec![distance(&found.y, &plain.y), distance(&found.dx, &plain.dx)];
    for (found, plain) in [(&found.keys, &plain.keys), (&found.values, &plain.values)] {
        all.extend(found.iter().zip(plain).map(|(a, b)| distance(a, b)));
    }
    all
}

/// The same numbers, each as the nearest bfloat16.
fn rounded(numbers: &Numbers) -> Numbers {
    let round = |x: &Vec<f32>| x.iter().map(|&x| Bf16::from_f32(x).to_f32()).collect();
    Numbers {
        x: round(&numbers.x),
        dy: round(&numbers.dy),
        keys: numbers.keys.iter().map(round).collect(),
        values: numbers.values.iter().map(round).collect(),
        taus: numbers.taus.clone(),
        ..*numbers
    }
}

proptest! {
    #![proptest_config(cases(48))]

    /// A bfloat16 has 8 significant bits: each factor is off by at most 0.4 %. A sum that nearly cancels, as the gradient
    /// through an L1 norm may, is off by more: by as much as exact arithmetic is after a rounding of its inputs alone.
    #[test]
    fn close_to_f64_and_the_same_for_any_number_of_threads(case in any_case(24..140)) {
        prop_assume!(case.d_in >= 16 && case.d_out >= 16);
        let numbers = case.numbers();
        let plain = case.plain(&numbers);
        let inputs_rounded = distances(&case.plain(&rounded(&numbers)), &plain);
        let fast = case.fast_in::<Bf16>(&numbers, 1, 0.0, Write::Replace, &[]);
        for (distance, unavoidable) in distances(&fast, &plain).into_iter().zip(inputs_rounded) {
            prop_assert!(distance < 0.02 + 1.5 * unavoidable, "{distance}, {unavoidable} of it from inputs, in {case:?}");
        }
        let other = case.fast_in::<Bf16>(&numbers, 3, 0.0, Write::Replace, &[]);
        prop_assert_eq!(fast.y, other.y);
        prop_assert_eq!(fast.dx, other.dx);
        prop_assert_eq!(fast.keys, other.keys);
        prop_assert_eq!(fast.values, other.values);
    }
}

/// A pass that keeps nothing gives the bits of one that does, however few its rows are.
#[test]
fn few_rows_are_rounded_as_many_are() {
    for rows in [1, 2, 7, 8, 9] {
        let case = Case {
            theta: tokenformer_device::Theta::L2NormGelu,
            joint: true,
            rows,
            d_in: 40,
            d_out: 24,
            tokens: vec![50, 17],
            seed: 3,
        };
        let numbers = case.numbers();
        let kept = case
            .fast_in::<Bf16>(&numbers, 2, 0.0, Write::Replace, &[])
            .y;
        assert_eq!(
            bits(&case.infer_in::<Bf16>(&numbers, 2)),
            bits(&kept),
            "{rows} rows"
        );
        let kept = case.fast(&numbers, 2, 0.0, Write::Replace, &[]).y;
        assert_eq!(bits(&case.infer(&numbers, 2)), bits(&kept), "{rows} rows");
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

//! The fast Pattention against the plain f64 one.

mod common;

use common::sites::{Case, Found, any_case};
use common::{assert_near, bits, cases, max_error, widen};
use proptest::prelude::*;
use tokenformer_device::Theta;
use tokenformer_device::Write;

const BAR: f64 = 2e-5;

fn compare(case: &Case, got: &Found<f32>, want: &Found<f64>, bar: f64) {
    assert_near(&format!("y of {case:?}"), &got.y, &want.y, bar);
    assert_near(&format!("dx of {case:?}"), &got.dx, &want.dx, bar);
    for s in 0..case.tokens.len() {
        assert_near(
            &format!("dkeys {s} of {case:?}"),
            &got.keys[s],
            &want.keys[s],
            bar,
        );
        assert_near(
            &format!("dvalues {s} of {case:?}"),
            &got.values[s],
            &want.values[s],
            bar,
        );
    }
}

proptest! {
    #![proptest_config(cases(120))]

    #[test]
    fn any_site(case in any_case(8..90)) {
        let numbers = case.numbers();
        let want = case.plain(&numbers);
        compare(&case, &case.fast(&numbers, 2, 0.0, Write::Replace, &[]), &want, BAR);
        assert_near(&format!("inference of {case:?}"), &case.infer(&numbers, 2), &want.y, BAR);
    }

    /// Groups of one to three tokens: the norm takes away most or all of the gradient, which leaves only
    /// rounding to compare, so errors are measured against the gradient with a wider bar.
    #[test]
    fn tiny_segments(case in any_case(1..4)) {
        let numbers = case.numbers();
        let (got, want) = (case.fast(&numbers, 1, 0.0, Write::Replace, &[]), case.plain(&numbers));
        assert_near(&format!("y of {case:?}"), &got.y, &want.y, BAR);
        assert_near(&format!("inference of {case:?}"), &case.infer(&numbers, 1), &want.y, BAR);
        for s in 0..case.tokens.len() {
            assert_near(&format!("dvalues of {case:?}"), &got.values[s], &want.values[s], BAR);
        }
        let flat = |g: &Found<f32>| [g.dx.clone(), g.keys.concat()].concat();
        let off = flat(&got).iter().zip([want.dx, want.keys.concat()].concat())
            .map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max);
        let size = widen(&numbers.dy).iter().map(|d| d.abs()).fold(0.0, f64::max);
        // Scores near 0 in a group of one make the slope 1/|a| as large as 1/eps.
        let smallest_norm = smallest_norm(&case, &numbers);
        prop_assert!(off <= 1e-4 * size * (1.0 + 1.0 / smallest_norm), "{off:e} at norm {smallest_norm:e}: {case:?}");
    }
}

/// The smallest norm of scores (or of their GELU) of any row and group.
fn smallest_norm(case: &Case, n: &common::sites::Numbers) -> f64 {
    let mut smallest = f64::INFINITY;
    for x in n.x.chunks(case.d_in) {
        let squares = n.keys.iter().map(|keys| -> f64 {
            keys.chunks(case.d_in)
                .map(|k| k.iter().zip(x).map(|(k, x)| f64::from(k * x)).sum::<f64>())
                .map(|a| {
                    if case.theta == Theta::GeluL2Norm {
                        tokenformer_device::reference::gelu(a)
                    } else {
                        a
                    }
                })
                .map(|a| a * a)
                .sum()
        });
        let norm = if case.joint {
            squares.sum()
        } else {
            squares.fold(f64::INFINITY, f64::min)
        };
        smallest = smallest.min(norm.sqrt());
    }
    smallest
}

fn every_kind(rows: usize, tokens: &[usize]) -> impl Iterator<Item = Case> {
    let kinds = Theta::ALL
        .into_iter()
        .flat_map(|theta| [true, false].map(|joint| (theta, joint)));
    kinds.map(move |(theta, joint)| Case {
        theta,
        joint,
        rows,
        d_in: 37,
        d_out: 51,
        tokens: tokens.to_vec(),
        seed: rows as u64,
    })
}

#[test]
fn every_kind_at_every_row_count_around_the_paths() {
    for rows in [1, 2, 7, 8, 9, 63, 64, 65, 129] {
        for tokens in [&[40][..], &[33, 64], &[10, 20, 65]] {
            for case in every_kind(rows, tokens) {
                let numbers = case.numbers();
                let want = case.plain(&numbers);
                compare(
                    &case,
                    &case.fast(&numbers, 2, 0.0, Write::Replace, &[]),
                    &want,
                    BAR,
                );
                assert_near(
                    &format!("inference of {case:?}"),
                    &case.infer(&numbers, 2),
                    &want.y,
                    BAR,
                );
            }
        }
    }
}

#[test]
fn more_rows_and_tokens_than_one_tile() {
    for case in every_kind(300, &[500, 70]) {
        let case = Case {
            d_in: 300,
            d_out: 270,
            ..case
        };
        let numbers = case.numbers();
        let want = case.plain(&numbers);
        compare(
            &case,
            &case.fast(&numbers, 2, 0.0, Write::Replace, &[]),
            &want,
            BAR,
        );
    }
}

#[test]
fn gradients_are_added() {
    for case in every_kind(70, &[20, 30]) {
        let numbers = case.numbers();
        let mut want = case.plain(&numbers);
        let all = want
            .keys
            .iter_mut()
            .chain(&mut want.values)
            .chain([&mut want.dx]);
        all.flatten().for_each(|x| *x += 3.0);
        compare(
            &case,
            &case.fast(&numbers, 2, 3.0, Write::Add, &[]),
            &want,
            BAR,
        );
    }
}

#[test]
fn a_frozen_segment_changes_no_other_gradient() {
    for case in every_kind(70, &[20, 30, 9]) {
        let numbers = case.numbers();
        let all = case.fast(&numbers, 2, 0.0, Write::Replace, &[]);
        let some = case.fast(&numbers, 2, 0.0, Write::Replace, &[1]);
        assert_eq!(bits(&all.dx), bits(&some.dx));
        for s in [0, 2] {
            assert_eq!(bits(&all.keys[s]), bits(&some.keys[s]));
            assert_eq!(bits(&all.values[s]), bits(&some.values[s]));
        }
        assert!(
            some.keys[1]
                .iter()
                .chain(&some.values[1])
                .all(|g| *g == 0.0)
        );
    }
}

#[test]
fn rows_without_scores_stay_finite() {
    for rows in [3, 70] {
        for case in every_kind(rows, &[20, 30]) {
            let mut numbers = case.numbers();
            numbers.x.fill(0.0);
            let (got, want) = (
                case.fast(&numbers, 1, 0.0, Write::Replace, &[]),
                case.plain(&numbers),
            );
            let inferred = case.infer(&numbers, 1);
            let all = [&got.y, &got.dx, &inferred]
                .into_iter()
                .chain(&got.keys)
                .chain(&got.values);
            assert!(all.into_iter().flatten().all(|x| x.is_finite()), "{case:?}");
            if case.theta == Theta::Softmax {
                assert!(max_error(&got.y, &want.y) < BAR);
            } else {
                assert!(got.y.iter().chain(&inferred).all(|y| *y == 0.0), "{case:?}");
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    for case in every_kind(9, &[20, 30]) {
        let mut numbers = case.numbers();
        // Beyond what exp can take, and with squares near the end of f32.
        numbers.x.iter_mut().for_each(|x| *x *= 1e4);
        let (got, want) = (
            case.fast(&numbers, 1, 0.0, Write::Replace, &[]),
            case.plain(&numbers),
        );
        assert_near(
            &format!("y of {case:?}"),
            &got.y,
            &want.y,
            if case.theta == Theta::Softmax {
                1e-2
            } else {
                BAR
            },
        );
        assert!(got.dx.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn zero_keys_behind_leave_every_bit() {
    for case in every_kind(70, &[40]).filter(|c| c.joint && c.theta.ignores_zero_scores()) {
        for rows in [5, 70] {
            let case = Case {
                rows,
                ..case.clone()
            };
            let numbers = case.numbers();
            let grown = Case {
                tokens: vec![40, 25],
                ..case.clone()
            };
            let mut more = grown.numbers();
            (more.x, more.keys[0], more.values[0]) = (
                numbers.x.clone(),
                numbers.keys[0].clone(),
                numbers.values[0].clone(),
            );
            (more.norm, more.tau) = (numbers.norm, numbers.tau);
            more.keys[1].fill(0.0);
            assert_eq!(
                bits(&case.infer(&numbers, 1)),
                bits(&grown.infer(&more, 1)),
                "{case:?}"
            );
            let (before, after) = (
                case.fast(&numbers, 1, 0.0, Write::Replace, &[]),
                grown.fast(&more, 1, 0.0, Write::Replace, &[]),
            );
            assert_eq!(bits(&before.y), bits(&after.y), "{case:?}");
        }
    }
}

#[test]
fn zero_values_in_a_segment_of_its_own_leave_every_bit() {
    for case in every_kind(70, &[40]).filter(|c| !c.joint) {
        for rows in [5, 70] {
            let case = Case {
                rows,
                ..case.clone()
            };
            let numbers = case.numbers();
            let grown = Case {
                tokens: vec![40, 25],
                ..case.clone()
            };
            let mut more = grown.numbers();
            (more.x, more.keys[0], more.values[0]) = (
                numbers.x.clone(),
                numbers.keys[0].clone(),
                numbers.values[0].clone(),
            );
            more.values[1].fill(0.0);
            assert_eq!(
                bits(&case.infer(&numbers, 1)),
                bits(&grown.infer(&more, 1)),
                "{case:?}"
            );
        }
    }
}

#[test]
fn no_rows_are_no_work() {
    for case in every_kind(0, &[5, 6]) {
        let numbers = case.numbers();
        assert!(case.infer(&numbers, 2).is_empty());
        assert!(
            case.fast(&numbers, 2, 0.0, Write::Replace, &[])
                .dx
                .is_empty()
        );
    }
}

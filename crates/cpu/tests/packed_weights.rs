//! Weights laid out for inference: every product has the bits of the plain product with the widened weights (of 8
//! bits, with the integers, scaled block by block), for any shape, format, number of rows, threads and level; and widening loses no more than it may.

mod common;

use common::{Random, bits};
use proptest::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokenformer_cpu::cross_entropy::{Head, Targets, losses_packed};
use tokenformer_cpu::gemm::{
    Bf16, Job, Mat, MatMut, PackedWeights, WEIGHTS_SCRATCH, gemm, gemm_weights, par_matmul,
    par_products,
};
use tokenformer_cpu::pattention::{PackedSite, Segment, Site, forward, forward_packed};
use tokenformer_cpu::simd::{Level, set_level};
use tokenformer_cpu::{Exec, Pool, Scratch, cross_entropy};
use tokenformer_device::{NormSpan, SiteDims, Theta, WeightFormat, Write};

const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];

/// Held by every test here: the level is one for the process, and a product must not see it change.
static LEVEL: Mutex<()> = Mutex::new(());

fn hold_level() -> MutexGuard<'static, ()> {
    LEVEL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_exec<T>(threads: usize, run: impl FnOnce(&mut Exec<'_>) -> T) -> T {
    let pool = Pool::new(threads);
    run(&mut Exec {
        pool: &pool,
        scratch: &mut Scratch::default(),
    })
}

/// The widened weights, row-major `[K, N]`.
fn widened(weights: &PackedWeights) -> Vec<f32> {
    let [k, n] = weights.shape();
    let (mut all, mut column) = (vec![0.0; k * n], vec![0.0; k]);
    for col in 0..n {
        weights.column(col, &mut column);
        for (row, x) in column.iter().enumerate() {
            all[row * n + col] = *x;
        }
    }
    all
}

/// The integers of `b` `[K, N]`, and the scales of its columns in blocks of 256 rows `[⌈K/256⌉, N]`.
fn quantised(b: &[f32], [k, n]: [usize; 2]) -> [Vec<f32>; 2] {
    let (mut integers, mut scales) = (b.to_vec(), vec![0.0; k.div_ceil(256) * n]);
    for (i, scale) in scales.iter_mut().enumerate() {
        let (start, col) = (i / n * 256, i % n);
        let rows = start..k.min(start + 256);
        let most = (rows.clone()).fold(0.0f32, |m, r| m.max(b[r * n + col].abs()));
        *scale = most / 127.0;
        let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
        for row in rows {
            let x = &mut integers[row * n + col];
            // An integer has no negative zero.
            *x = (*x * inverse).round_ties_even() + 0.0;
        }
    }
    [integers, scales]
}

/// The documented value of each number of `b` `[K, N]` in a format.
fn rounded(format: WeightFormat, b: &[f32], [k, n]: [usize; 2]) -> Vec<f32> {
    match format {
        WeightFormat::F32 => b.to_vec(),
        WeightFormat::Bf16 => (b.iter()).map(|x| Bf16::from_f32(*x).to_f32()).collect(),
        WeightFormat::Int8 => {
            let [mut numbers, scales] = quantised(b, [k, n]);
            for (i, x) in numbers.iter_mut().enumerate() {
                *x *= scales[i / n / 256 * n + i % n];
            }
            numbers
        }
    }
}

/// `y = scale · x·b (+ y)` as documented for a format.
fn product(case: &Case, format: WeightFormat, x: &[f32], b: &[f32], y: &mut [f32]) {
    let [m, k, n] = case.shape;
    if format != WeightFormat::Int8 {
        let wide = rounded(format, b, [k, n]);
        let (x, b) = (Mat::new(x, m, k), Mat::new(&wide, k, n));
        gemm(MatMut::new(y, m, n), case.write, x, b, case.scale);
        return;
    }
    let [integers, scales] = quantised(b, [k, n]);
    if k == 0 && case.write == Write::Replace {
        y.fill(0.0);
    }
    for (block, scales) in scales.chunks(n).enumerate() {
        let depth = 256.min(k - 256 * block);
        let mut sums = vec![0.0; m * n];
        gemm(
            MatMut::new(&mut sums, m, n),
            Write::Replace,
            Mat::new(x, m, k).t().row_block(256 * block, depth).t(),
            Mat::new(&integers, k, n).row_block(256 * block, depth),
            1.0,
        );
        for (i, (y, sum)) in y.iter_mut().zip(sums).enumerate() {
            let factor = case.scale * scales[i % n];
            *y = match (block, case.write) {
                (0, Write::Replace) => factor * sum,
                _ => factor.mul_add(sum, *y),
            };
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    shape: [usize; 3],
    transposed: bool,
    write: Write,
    scale: f32,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let rows = prop_oneof![0usize..9, 120usize..140];
    let inner = prop_oneof![0usize..40, 254usize..260, 500usize..530];
    let cols = prop_oneof![1usize..70, 90usize..140];
    let write = prop_oneof![Just(Write::Replace), Just(Write::Add)];
    let scale = prop_oneof![Just(1.0f32), Just(0.176_776_7)];
    (rows, inner, cols, any::<(bool, u64)>(), write, scale).prop_map(
        |(m, k, n, (transposed, seed), write, scale)| Case {
            shape: [m, k, n],
            transposed,
            write,
            scale,
            seed,
        },
    )
}

fn check(case: &Case, format: WeightFormat) {
    let [m, k, n] = case.shape;
    let mut random = Random::new(case.seed);
    let (x, b, y) = (
        random.normals(m * k, 1.0),
        random.normals(k * n, 0.1),
        random.normals(m * n, 1.0),
    );
    let mat = if case.transposed {
        Mat::new(&b, n, k).t()
    } else {
        Mat::new(&b, k, n)
    };
    let plain: Vec<f32> = (0..k * n)
        .map(|i| {
            if case.transposed {
                b[i % n * k + i / n]
            } else {
                b[i]
            }
        })
        .collect();
    let weights = with_exec(2, |exec| PackedWeights::new(exec, format, mat));
    assert_eq!((weights.shape(), weights.format()), ([k, n], format));
    let wide = widened(&weights);
    assert_eq!(
        bits(&wide),
        bits(&rounded(format, &plain, [k, n])),
        "widened"
    );

    let mut want = y.clone();
    product(case, format, &x, &plain, &mut want);
    let mut got = y.clone();
    let mut scratch = vec![f32::NAN; WEIGHTS_SCRATCH];
    gemm_weights(
        MatMut::new(&mut got, m, n),
        case.write,
        Mat::new(&x, m, k),
        &weights,
        case.scale,
        &mut scratch,
    );
    assert_eq!(bits(&got), bits(&want), "on one thread");
    // Two products at once, with rows further apart than they are long.
    let stride = n + 3;
    let mut wide_y = vec![77.0; m * stride];
    for (to, from) in wide_y.chunks_mut(stride).zip(y.chunks(n)) {
        to[..n].copy_from_slice(from);
    }
    let mut second = y.clone();
    with_exec(3, |exec| {
        let job = |y, y_stride| Job {
            y,
            y_stride,
            write: case.write,
            x: Mat::new(&x, m, k),
            weights: &weights,
            scale: case.scale,
        };
        par_products(exec, &mut [job(&mut wide_y, stride), job(&mut second, n)]);
    });
    assert_eq!(bits(&second), bits(&want), "the second of two products");
    for (got, want) in wide_y.chunks(stride).zip(want.chunks(n)) {
        assert_eq!(bits(&got[..n]), bits(want), "the first of two products");
        assert!(
            got[n..].iter().all(|&x| x == 77.0),
            "touched what it has not"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn products_have_the_bits_of_plain_ones(case in cases(), level in 0usize..3) {
        let _level = hold_level();
        let levels = [Level::Avx512, Level::Avx2, Level::Baseline];
        set_level(levels[level]);
        for format in FORMATS {
            check(&case, format);
        }
        set_level(Level::Avx512);
    }
}

#[test]
fn columns_in_a_strided_factor_are_found() {
    let _level = hold_level();
    let mut random = Random::new(5);
    let (x, b) = (random.normals(300 * 3, 1.0), random.normals(300 * 40, 1.0));
    let weights = with_exec(1, |exec| {
        PackedWeights::new(exec, WeightFormat::Bf16, Mat::new(&b, 300, 40))
    });
    let (mut got, mut want) = (vec![0.0; 120], vec![0.0; 120]);
    let x = Mat::new(&x, 300, 3).t();
    with_exec(2, |exec| {
        let job = Job {
            y: &mut got,
            y_stride: 40,
            write: Write::Replace,
            x,
            weights: &weights,
            scale: 1.0,
        };
        par_products(exec, &mut [job]);
    });
    let wide = widened(&weights);
    gemm(
        MatMut::new(&mut want, 3, 40),
        Write::Replace,
        x,
        Mat::new(&wide, 300, 40),
        1.0,
    );
    assert_eq!(bits(&got), bits(&want));
}

#[test]
fn eight_bits_are_off_by_half_a_step_at_most() {
    let _level = hold_level();
    let b = Random::new(1).normals(700 * 33, 0.02);
    let weights = with_exec(1, |exec| {
        PackedWeights::new(exec, WeightFormat::Int8, Mat::new(&b, 700, 33))
    });
    let wide = widened(&weights);
    for col in 0..33 {
        for start in [0, 256, 512] {
            let rows = start..700.min(start + 256);
            let most = (rows.clone()).fold(0.0f32, |m, r| m.max(b[r * 33 + col].abs()));
            for row in rows {
                let error = (wide[row * 33 + col] - b[row * 33 + col]).abs();
                assert!(error <= most / 127.0 * 0.500_01, "{row}, {col}: {error:e}");
            }
        }
    }
    // A quarter of the bytes of f32, and the scales.
    let f32_bytes = with_exec(1, |exec| {
        PackedWeights::new(exec, WeightFormat::F32, Mat::new(&b, 700, 33)).bytes()
    });
    assert!(weights.bytes() * 39 < f32_bytes * 10);
}

#[test]
fn numbers_that_are_not_finite_are_not_hidden() {
    let _level = hold_level();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut b = vec![0.5; 300 * 2];
        b[2 * 10] = bad;
        let weights = with_exec(1, |exec| {
            PackedWeights::new(exec, WeightFormat::Int8, Mat::new(&b, 300, 2))
        });
        let mut column = vec![0.0; 300];
        weights.column(0, &mut column);
        assert!(
            column[10].is_nan() && (column[299] - 0.5).abs() < 1e-6,
            "{bad}"
        );
        weights.column(1, &mut column);
        assert!(column.iter().all(|&x| (x - 0.5).abs() < 1e-6));
    }
    let zeros = vec![0.0; 64];
    let weights = with_exec(1, |exec| {
        PackedWeights::new(exec, WeightFormat::Int8, Mat::new(&zeros, 32, 2))
    });
    assert!(widened(&weights).iter().all(|&x| x == 0.0));
}

/// Keys and values of a segment, and their prepared twins.
struct Tokens {
    plain: [Vec<f32>; 2],
    prepared: [PackedWeights; 2],
    count: usize,
}

#[test]
fn sites_give_the_bits_of_the_plain_layer_and_rows_do_not_disturb_each_other() {
    let _level = hold_level();
    let (d_in, d_out) = (40, 36);
    let mut random = Random::new(3);
    for theta in Theta::ALL {
        for norm in [NormSpan::Joint, NormSpan::Segment] {
            let mut tokens = |count: usize| {
                let keys = random.normals(count * d_in, 0.3);
                let values = random.normals(count * d_out, 0.3);
                let prepared = with_exec(2, |exec| {
                    [
                        PackedWeights::new(
                            exec,
                            WeightFormat::F32,
                            Mat::new(&keys, count, d_in).t(),
                        ),
                        PackedWeights::new(
                            exec,
                            WeightFormat::F32,
                            Mat::new(&values, count, d_out),
                        ),
                    ]
                });
                Tokens {
                    plain: [keys, values],
                    prepared,
                    count,
                }
            };
            let sites = [
                vec![tokens(50)],
                vec![tokens(33), tokens(70)],
                vec![tokens(300)],
            ];
            let x = random.normals(600 * d_in, 1.0);
            let segments: Vec<Vec<Segment<'_>>> = (sites.iter())
                .map(|site| {
                    site.iter()
                        .map(|t| Segment {
                            keys: &t.plain[0],
                            values: &t.plain[1],
                            tokens: t.count,
                            tau: 4.0,
                        })
                        .collect()
                })
                .collect();
            let site = |i: usize| Site {
                theta,
                norm,
                tau: 9.0,
                eps: 1e-6,
                segments: &segments[i],
            };
            let weights: Vec<Vec<tokenformer_device::Segment<&PackedWeights>>> = (sites.iter())
                .map(|site| {
                    site.iter()
                        .map(|t| tokenformer_device::Segment {
                            keys: &t.prepared[0],
                            values: &t.prepared[1],
                            tokens: t.count,
                            tau: 4.0,
                        })
                        .collect()
                })
                .collect();
            let prepared: Vec<PackedSite<'_>> = (0..3)
                .map(|i| PackedSite {
                    theta,
                    norm,
                    tau: 9.0,
                    eps: 1e-6,
                    segments: &weights[i],
                })
                .collect();
            for (rows, threads) in [(1, 1), (1, 3), (3, 2), (8, 2), (600, 2)] {
                let x = &x[..rows * d_in];
                let dims = SiteDims { rows, d_in, d_out };
                let mut got = vec![vec![0.0; rows * d_out]; 3];
                with_exec(threads, |exec| {
                    let mut ys: Vec<&mut [f32]> = got.iter_mut().map(|y| &mut y[..]).collect();
                    forward_packed(exec, &prepared, x, &mut ys, dims);
                });
                for (i, got) in got.iter().enumerate() {
                    let mut want = vec![0.0; rows * d_out];
                    with_exec(2, |exec| {
                        forward::<f32>(exec, &site(i), x, &mut want, dims, None);
                    });
                    assert_eq!(bits(got), bits(&want), "{theta:?} {norm:?} {rows} rows");
                }
            }
        }
    }
}

#[test]
fn a_loss_is_nan_where_a_logit_is_not_finite() {
    let _level = hold_level();
    let (v, d, rows) = (1000, 48, 9);
    let mut random = Random::new(9);
    let (table, h) = (random.normals(v * d, 0.3), vec![1.0; rows * d]);
    // The last of the vocabulary and one in the middle; no target is either.
    let targets = random.tokens(rows, v - 1);
    for (token, number) in [
        (v - 1, f32::NEG_INFINITY),
        (v - 1, f32::INFINITY),
        (500, f32::NEG_INFINITY),
        (500, f32::NAN),
        (500, f32::MAX),
    ] {
        let mut table = table.clone();
        // With the largest number in two places their sum is infinite.
        table[token * d + 3..token * d + 5].fill(number);
        for format in FORMATS {
            let (mut plain, mut prepared) = (vec![0.0; rows], vec![0.0; rows]);
            with_exec(2, |exec| {
                let packed = PackedWeights::new(exec, format, Mat::new(&table, v, d).t());
                let classes = Targets::Classes(&targets);
                losses_packed(exec, &h, &packed, None, 1.0, classes, &mut prepared);
                let head = Head {
                    hidden: &h,
                    table: &table,
                    bias: None,
                    scale: 1.0,
                    width: d,
                };
                cross_entropy::forward::<f32>(exec, head, classes, &mut plain, None);
            });
            for nll in plain.iter().chain(&prepared) {
                assert!(nll.is_nan(), "{token} {number} {format:?}: {nll}");
            }
        }
    }
}

#[test]
fn the_head_gives_the_bits_of_the_plain_head() {
    let _level = hold_level();
    let (v, d) = (1000, 48);
    let mut random = Random::new(8);
    let table = random.normals(v * d, 0.3);
    let prepared = with_exec(2, |exec| {
        PackedWeights::new(exec, WeightFormat::F32, Mat::new(&table, v, d).t())
    });
    for rows in [1, 7, 70] {
        let (h, targets) = (random.normals(rows * d, 1.0), random.tokens(rows, v));
        let (mut want, mut got) = (vec![0.0; rows * v], vec![0.0; rows * v]);
        let (mut want_nll, mut got_nll) = (vec![0.0; rows], vec![0.0; rows]);
        with_exec(2, |exec| {
            let (left, right) = (Mat::new(&h, rows, d), Mat::new(&table, v, d).t());
            let want = MatMut::new(&mut want, rows, v);
            par_matmul::<f32>(exec, want, Write::Replace, left, right, 0.5);
            cross_entropy::logits_packed(exec, &h, &prepared, 0.5, &mut got);
            let nll = &mut want_nll;
            let head = Head {
                hidden: &h,
                table: &table,
                bias: None,
                scale: 0.5,
                width: d,
            };
            let classes = Targets::Classes(&targets);
            cross_entropy::forward::<f32>(exec, head, classes, nll, None);
            let nll = &mut got_nll;
            losses_packed(
                exec,
                &h,
                &prepared,
                None,
                0.5,
                Targets::Classes(&targets),
                nll,
            );
        });
        assert_eq!(bits(&got), bits(&want), "{rows} rows");
        assert_eq!(bits(&got_nll), bits(&want_nll), "{rows} rows");
    }
}

//! The attention kernels on the emulator, in several orders of threads, against attention in f64.
#![cfg(feature = "emulator")]

mod memory;

use memory::{Memory, emulated, random_bf16};
use tokenformer_cuda::{Number, flash};
use tokenformer_device::AttentionDims;
use tokenformer_device::reference::{attention as exact, attention_backward as exact_backward};

/// The largest error of a head's row, relative to the norm of the row or, if that is larger, to a mean row. Rows of
/// keys that are not in use must still be NaN.
fn row_error(dims: &AttentionDims, stride: usize, used: usize, got: &[f32], want: &[f64]) -> f64 {
    let c = dims.channels;
    assert_eq!(got.len(), want.len());
    let square: f64 = want.iter().map(|x| x * x).sum();
    let mean = (square / (want.len() / c) as f64).sqrt();
    // With a single key the gradients of queries and keys are 0.
    let mean = if mean < 1e-9 { 1.0 } else { mean };
    let rows = got.chunks(c).zip(want.chunks(c)).enumerate();
    rows.map(|(row, (got, want))| {
        if row / dims.heads % stride >= used {
            return match got.iter().all(|x| x.is_nan()) {
                true => 0.0,
                false => f64::INFINITY,
            };
        }
        let pairs = got.iter().zip(want);
        let difference: f64 = pairs.map(|(x, y)| (f64::from(*x) - y).powi(2)).sum();
        let norm: f64 = want.iter().map(|x| x * x).sum();
        let error = difference.sqrt() / norm.sqrt().max(mean);
        if error.is_nan() { f64::INFINITY } else { error }
    })
    .fold(0.0, f64::max)
}

fn check(dims: AttentionDims, seed: u32) {
    let Some(gpu) = emulated(seed) else { return };
    let q_len = dims.batch * dims.queries * dims.width();
    let k_len = dims.batch * dims.key_stride * dims.width();
    let inputs: Vec<Vec<f32>> = [q_len, k_len, k_len, q_len]
        .iter()
        .zip(1..)
        .map(|(len, nth)| random_bf16(*len, 1.0, u64::from(seed) * 100 + nth))
        .collect();
    let memory = |len, number| Memory::new(&gpu, len, number);
    let from = |x: &[f32]| Memory::from(&gpu, x, Number::Bf16);
    let [q, k, v, d_o] = [0, 1, 2, 3].map(|i| from(&inputs[i]));
    let o = memory(q_len, Number::Bf16);
    let log_sums = memory(dims.stats_len(), Number::F32);
    let delta = memory(dims.stats_len(), Number::F32);
    let [dq, dk, dv] = [q_len, k_len, k_len].map(|len| memory(len, Number::Bf16));
    let qkv = [q.at(), k.at(), v.at()];
    // SAFETY: tensors of these shapes.
    unsafe {
        flash::forward(&gpu, &dims, qkv, o.at(), Some(log_sums.at())).unwrap();
        let gradients = [dq.at(), dk.at(), dv.at()];
        let (o, log_sums, d_o, delta) = (o.at(), log_sums.at(), d_o.at(), delta.at());
        flash::backward(&gpu, &dims, qkv, o, log_sums, d_o, gradients, delta).unwrap();
    }
    let wide: Vec<Vec<f64>> = inputs
        .iter()
        .map(|x| x.iter().map(|x| f64::from(*x)).collect())
        .collect();
    let exact_inputs = [&wide[0][..], &wide[1], &wide[2]];
    let (want_o, want_logs) = exact(dims, exact_inputs);
    let [want_q, want_k, want_v] = exact_backward(dims, exact_inputs, &wide[3]);
    let logs = log_sums.read();
    let log_error = logs
        .iter()
        .zip(&want_logs)
        .map(|(x, y)| (f64::from(*x) - y).abs())
        .fold(
            0.0,
            |a, b| if b.is_nan() { f64::INFINITY } else { b.max(a) },
        );
    let (queries, stride, keys) = (dims.queries, dims.key_stride, dims.keys);
    // Probabilities and gradients of scores are rounded to bf16 (2^-9 relative), and so are results.
    for (what, error, limit) in [
        (
            "o",
            row_error(&dims, queries, queries, &o.read(), &want_o),
            8e-3,
        ),
        ("log_sums", log_error, 2e-5),
        (
            "dq",
            row_error(&dims, queries, queries, &dq.read(), &want_q),
            2e-2,
        ),
        (
            "dk",
            row_error(&dims, stride, keys, &dk.read(), &want_k),
            2e-2,
        ),
        (
            "dv",
            row_error(&dims, stride, keys, &dv.read(), &want_v),
            8e-3,
        ),
    ] {
        assert!(
            error <= limit,
            "{what} of {dims:?}, order {seed}: {error:.1e} > {limit:.0e}"
        );
    }
}

fn dims(
    batch: usize,
    [queries, keys, key_stride]: [usize; 3],
    heads: usize,
    channels: usize,
    causal: bool,
) -> AttentionDims {
    AttentionDims {
        batch,
        queries,
        keys,
        key_stride,
        heads,
        channels,
        causal,
    }
}

#[test]
fn every_head_size_agrees_with_f64() {
    for seed in 0..3 {
        for causal in [true, false] {
            check(dims(2, [150; 3], 2, 32, causal), seed);
            check(dims(1, [130; 3], 2, 64, causal), seed);
            check(dims(1, [97; 3], 1, 80, causal), seed);
            check(dims(1, [97; 3], 1, 96, causal), seed);
            check(dims(1, [97; 3], 1, 128, causal), seed);
        }
    }
}

#[test]
fn shapes_at_the_edges_agree_with_f64() {
    for seed in 0..4 {
        check(dims(1, [1; 3], 1, 64, true), seed);
        // Fewer channels than the kernel has.
        check(dims(1, [5; 3], 3, 24, true), seed);
        check(dims(1, [40; 3], 2, 8, false), seed);
        // Whole tiles.
        check(dims(2, [64; 3], 1, 48, true), seed);
        check(dims(1, [128; 3], 1, 32, true), seed);
        // The last queries of a cache that has room.
        check(dims(2, [3, 70, 90], 2, 32, true), seed);
        check(dims(2, [33, 70, 90], 1, 112, true), seed);
        check(dims(2, [33, 70, 90], 1, 32, false), seed);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let Some(gpu) = emulated(2) else { return };
    let dims = dims(1, [70; 3], 1, 32, true);
    let len = 70 * 32;
    let [q, k, v] = [1, 2, 3].map(|nth| random_bf16(len, if nth < 3 { 60.0 } else { 1.0 }, nth));
    let [at_q, at_k, at_v] = [&q, &k, &v].map(|x| Memory::from(&gpu, x, Number::Bf16));
    let o = Memory::new(&gpu, len, Number::Bf16);
    // SAFETY: tensors of these shapes.
    unsafe { flash::forward(&gpu, &dims, [at_q.at(), at_k.at(), at_v.at()], o.at(), None) }
        .unwrap();
    let wide = [&q, &k, &v].map(|x| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
    let (want, _) = exact(dims, [&wide[0][..], &wide[1], &wide[2]]);
    let error = row_error(&dims, 70, 70, &o.read(), &want);
    // Scores of some thousands: in f32 their exponents keep three digits.
    assert!(error <= 2e-2, "{error:.1e}");
}

#[test]
fn the_order_of_threads_changes_no_bit() {
    let dims = dims(1, [100; 3], 2, 48, true);
    let len = 100 * 96;
    let results: Vec<Vec<f32>> = (0..3)
        .filter_map(|seed| {
            let gpu = emulated(seed)?;
            let [q, k, v, d_o] = [1, 2, 3, 4]
                .map(|nth| Memory::from(&gpu, &random_bf16(len, 1.0, nth), Number::Bf16));
            let [o, dq, dk, dv] = [(); 4].map(|()| Memory::new(&gpu, len, Number::Bf16));
            let [logs, delta] = [(); 2].map(|()| Memory::new(&gpu, dims.stats_len(), Number::F32));
            let qkv = [q.at(), k.at(), v.at()];
            // SAFETY: tensors of these shapes.
            unsafe {
                flash::forward(&gpu, &dims, qkv, o.at(), Some(logs.at())).unwrap();
                let gradients = [dq.at(), dk.at(), dv.at()];
                flash::backward(
                    &gpu,
                    &dims,
                    qkv,
                    o.at(),
                    logs.at(),
                    d_o.at(),
                    gradients,
                    delta.at(),
                )
                .unwrap();
            }
            Some([&o, &dq, &dk, &dv].iter().flat_map(|x| x.read()).collect())
        })
        .collect();
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(results.iter().flatten().all(|x| x.is_finite()));
}

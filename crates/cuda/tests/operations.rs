//! Every operation of the CUDA device on the emulator against the plain f64 device, in several orders of threads.
#![cfg(feature = "emulator")]

mod common;

use common::suite;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use tokenformer_device::{AttentionDims, Precision, Write};
use tokenformer_testing::operations::{Product, Suite};

fn cases(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(0x7070),
        failure_persistence: None,
        ..Config::default()
    }
}

fn products() -> impl Strategy<Value = Product> {
    let rows = prop_oneof![1..12usize, 60..70usize];
    let size = || prop_oneof![1..10usize, 30..80usize, 254..260usize];
    let write = prop_oneof![Just(Write::Replace), Just(Write::Add)];
    let place = (0..9usize, 0..5usize, write, any::<u64>());
    (rows, size(), size(), any::<[bool; 2]>(), place).prop_map(
        |(m, k, n, transposed, (offset, gap, write, seed))| Product {
            shape: [m, k, n],
            transposed,
            offset,
            gap,
            write,
            scale: 0.7,
            seed,
        },
    )
}

fn f32_suite() -> Option<Suite> {
    suite(Precision::F32)
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn products_of_parts_of_buffers(case in products()) {
        let Some(suite) = f32_suite() else { return Ok(()) };
        suite.product(&case, 1e-5);
    }

    #[test]
    fn gelu_and_biases(rows in 1..150usize, width in 1..100usize, seed in any::<u64>()) {
        let Some(suite) = f32_suite() else { return Ok(()) };
        suite.gelu_and_biases(rows, width, seed);
        suite.averages_and_parts(rows * width, seed);
    }

    #[test]
    fn theta_of_scores(
        rows in 1..10usize, tokens in prop::collection::vec(8..300usize, 1..4), joint in any::<bool>(), seed in any::<u64>(),
    ) {
        let Some(suite) = f32_suite() else { return Ok(()) };
        suite.theta_of_scores(rows, &tokens, joint, seed);
    }

    #[test]
    fn losses_of_soft_targets(
        rows in 1..20usize, classes in 2..600usize, width in 1..30usize, [frozen, biased] in any::<[bool; 2]>(), seed in any::<u64>(),
    ) {
        let Some(suite) = f32_suite() else { return Ok(()) };
        suite.losses([rows, classes, width], frozen, biased, seed);
    }

    #[test]
    fn norms(rows in prop_oneof![1..20usize, 60..150usize], width in 2..300usize, seed in any::<u64>()) {
        let Some(suite) = f32_suite() else { return Ok(()) };
        suite.layer_norms(rows, width, seed);
    }

    #[test]
    fn attention(
        (batch, heads, channels) in (1..3usize, 1..4usize, prop_oneof![1..40usize, 60..70usize]), queries in 1..70usize,
        older in 0..40usize, causal in any::<bool>(), seed in any::<u64>(),
    ) {
        let Some(suite) = f32_suite() else { return Ok(()) };
        let dims = AttentionDims { batch, queries, keys: queries, key_stride: queries, heads, channels, causal };
        suite.self_attention(dims, seed);
        let keys = queries + older;
        suite.attention_on_a_cache(AttentionDims { keys, key_stride: keys + 3, ..dims }, seed);
    }

    #[test]
    fn attention_of_several(
        sequences in vec((1..40usize, 0..50usize), 1..6), heads in 1..4usize, channels in 1..40usize, seed in any::<u64>(),
    ) {
        let Some(suite) = f32_suite() else { return Ok(()) };
        suite.attention_of_several(&sequences, heads, channels, seed);
    }
}

#[test]
fn rows_by_index() {
    let Some(suite) = f32_suite() else { return };
    for (count, table_rows, width, seed) in [(1, 1, 1, 1), (90, 7, 13, 2), (600, 40, 300, 3)] {
        suite.rows_by_index(count, table_rows, width, seed);
    }
}

#[test]
fn steps_of_the_optimizer() {
    let Some(suite) = f32_suite() else { return };
    suite.steps_of_the_optimizer(20_000);
    suite.sums_of_squares(20_000, 12);
    suite.gradients_that_are_not_finite();
}

#[test]
fn rotations_and_caches() {
    let Some(suite) = f32_suite() else { return };
    suite.rotations_and_caches(12);
}

/// Sums of the columns of more rows than a part has.
#[test]
fn sums_in_many_parts() {
    let Some(suite) = f32_suite() else { return };
    suite.gelu_and_biases(9000, 3, 5);
}

/// The device in bfloat16: every operation on rows once more, with errors of its roundings.
#[test]
fn operations_on_rows_in_bf16() {
    let Some(suite) = suite(Precision::Bf16) else {
        return;
    };
    suite.gelu_and_biases(70, 33, 1);
    suite.rows_by_index(90, 7, 13, 2);
    suite.theta_of_scores(5, &[300, 40], true, 3);
    suite.theta_of_scores(5, &[300, 40], false, 3);
    suite.losses([9, 300, 24], false, true, 4);
    suite.layer_norms(70, 45, 5);
    suite.rotations_and_caches(6);
    suite.steps_of_the_optimizer(300);
    suite.sums_of_squares(9000, 8);
}

/// Attention in bfloat16 with heads of this size.
fn bf16_heads(channels: usize, causal: bool) {
    let Some(suite) = suite(Precision::Bf16) else {
        return;
    };
    let dims = AttentionDims {
        batch: 2,
        queries: 37,
        keys: 37,
        key_stride: 37,
        heads: 2,
        channels,
        causal,
    };
    suite.self_attention(dims, 7);
    suite.attention_of_several(&[(1, 30), (5, 0), (1, 7)], 2, channels, 9);
    let keys = 70;
    suite.attention_on_a_cache(
        AttentionDims {
            keys,
            key_stride: keys + 3,
            ..dims
        },
        8,
    );
}

#[test]
fn heads_on_tensor_cores_in_bf16() {
    for (channels, causal) in [(32, true), (64, false), (80, true)] {
        bf16_heads(channels, causal);
    }
}

#[test]
fn attention_by_rows_in_bf16() {
    bf16_heads(12, true);
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn products_in_bf16(case in products()) {
        let Some(suite) = suite(Precision::Bf16) else { return Ok(()) };
        suite.product(&case, 0.05);
    }
}

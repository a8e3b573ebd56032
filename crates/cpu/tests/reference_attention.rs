//! The fast attention between tokens against the plain f64 one.

mod common;

use common::{Random, assert_near, cases, exec, widen};
use proptest::prelude::*;
use tokenformer_cpu::attention::{backward, forward};
use tokenformer_device::AttentionDims;
use tokenformer_device::reference;

const BAR: f64 = 1e-5;

fn random_qkv(shape: AttentionDims, seed: u64) -> [Vec<f32>; 3] {
    let mut random = Random::new(seed);
    let d = shape.heads * shape.channels;
    let kv = shape.batch * shape.key_stride * d;
    let q = random.normals(shape.batch * shape.queries * d, 1.0);
    [q, random.normals(kv, 1.0), random.normals(kv, 1.0)]
}

fn check_forward(shape: AttentionDims, seed: u64, threads: usize) {
    let [q, k, v] = random_qkv(shape, seed);
    let want = reference::attention(shape, [&widen(&q), &widen(&k), &widen(&v)]);
    let mut o = vec![f32::NAN; q.len()];
    exec(threads, |exec| {
        forward(exec, shape, [&q, &k, &v], &mut o, None)
    });
    assert_near(&format!("o of {shape:?}"), &o, &want.0, BAR);
}

fn check_backward(shape: AttentionDims, seed: u64, threads: usize) {
    let [q, k, v] = random_qkv(shape, seed);
    let d_o = Random::new(seed ^ 1).normals(q.len(), 1.0);
    let wide = [&widen(&q)[..], &widen(&k), &widen(&v)];
    let (want_o, want) = (
        reference::attention(shape, wide),
        reference::attention_backward(shape, wide, &widen(&d_o)),
    );
    let (mut o, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; shape.stats_len()]);
    let mut grads = [(); 3].map(|()| vec![f32::NAN; q.len()]);
    exec(threads, |exec| {
        forward(exec, shape, [&q, &k, &v], &mut o, Some(&mut lse));
        backward(
            exec,
            shape,
            [&q, &k, &v],
            &o,
            &lse,
            &d_o,
            grads.each_mut().map(|g| &mut g[..]),
        );
    });
    assert_near(&format!("o of {shape:?}"), &o, &want_o.0, BAR);
    // With one visible position the probabilities are 1 and the gradients of q and k are 0.
    let only_one = shape.keys == 1;
    for ((got, want), name) in grads.iter().zip(&want).zip(["dq", "dk", "dv"]) {
        if only_one && name != "dv" {
            assert!(got.iter().all(|g| g.abs() < 1e-4), "{name} of {shape:?}");
        } else {
            assert_near(&format!("{name} of {shape:?}"), got, want, 4.0 * BAR);
        }
    }
}

/// Batch, heads, channels, whether causal, seed.
fn common_sizes() -> impl Strategy<Value = (usize, usize, usize, bool, u64)> {
    (
        1..4usize,
        1..4usize,
        1..40usize,
        any::<bool>(),
        any::<u64>(),
    )
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn new_queries_on_a_cache(
        (batch, heads, channels, causal, seed) in common_sizes(),
        queries in prop_oneof![1..5usize, 1..100usize],
        older in 0..90usize,
        spare in 0..20usize,
    ) {
        let keys = queries + older;
        let shape = AttentionDims { batch, queries, keys, key_stride: keys + spare, heads, channels, causal };
        check_forward(shape, seed, 2);
    }

    #[test]
    fn whole_sequences(
        (batch, heads, channels, causal, seed) in common_sizes(),
        t in prop_oneof![1..20usize, 60..70usize, 120..135usize],
    ) {
        let shape = AttentionDims { batch, queries: t, keys: t, key_stride: t, heads, channels, causal };
        check_backward(shape, seed, 2);
    }
}

#[test]
fn lengths_around_the_block() {
    for t in [1, 2, 63, 64, 65, 127, 128, 129, 200] {
        for causal in [true, false] {
            let shape = AttentionDims {
                batch: 2,
                queries: t,
                keys: t,
                key_stride: t,
                heads: 2,
                channels: 16,
                causal,
            };
            check_backward(shape, t as u64, 2);
        }
    }
}

#[test]
fn large_scores_are_safe() {
    let shape = AttentionDims {
        batch: 1,
        queries: 70,
        keys: 70,
        key_stride: 70,
        heads: 1,
        channels: 8,
        causal: true,
    };
    let [mut q, k, v] = random_qkv(shape, 3);
    q.iter_mut().for_each(|q| *q *= 300.0);
    let mut o = vec![f32::NAN; q.len()];
    exec(1, |exec| forward(exec, shape, [&q, &k, &v], &mut o, None));
    let want = reference::attention(shape, [&widen(&q), &widen(&k), &widen(&v)]);
    assert_near("o", &o, &want.0, 1e-3);
}

#[test]
fn what_lies_behind_the_keys_is_not_read() {
    let shape = AttentionDims {
        batch: 2,
        queries: 3,
        keys: 10,
        key_stride: 16,
        heads: 2,
        channels: 5,
        causal: true,
    };
    let [q, mut k, mut v] = random_qkv(shape, 4);
    let run = |k: &[f32], v: &[f32]| {
        let mut o = vec![0.0; q.len()];
        exec(1, |exec| forward(exec, shape, [&q, k, v], &mut o, None));
        o
    };
    let clean = run(&k, &v);
    for b in 0..2 {
        let stale = (b * 16 + 10) * 10..(b + 1) * 16 * 10;
        k[stale.clone()].fill(f32::NAN);
        v[stale].fill(f32::NAN);
    }
    assert_eq!(clean, run(&k, &v));
}

#[test]
fn a_causal_query_sees_nothing_later() {
    let shape = AttentionDims {
        batch: 1,
        queries: 90,
        keys: 90,
        key_stride: 90,
        heads: 2,
        channels: 4,
        causal: true,
    };
    let [q, mut k, mut v] = random_qkv(shape, 5);
    let run = |k: &[f32], v: &[f32]| {
        let mut o = vec![0.0; q.len()];
        exec(1, |exec| forward(exec, shape, [&q, k, v], &mut o, None));
        o
    };
    let before = run(&k, &v);
    k[50 * 8..].iter_mut().for_each(|k| *k += 5.0);
    v[50 * 8..].iter_mut().for_each(|v| *v -= 5.0);
    let after = run(&k, &v);
    assert_eq!(before[..50 * 8], after[..50 * 8]);
    assert_ne!(before[50 * 8..51 * 8], after[50 * 8..51 * 8]);
}

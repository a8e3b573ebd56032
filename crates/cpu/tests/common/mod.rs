//! Shared by the tests: random numbers, comparisons, somewhere to run.
#![allow(dead_code)]

pub mod sites;
pub mod suite;

use proptest::test_runner::{Config, RngSeed};
use tokenformer_cpu::{Exec, Pool, Scratch};

pub use tokenformer_testing::Random;

pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// `‖got − want‖ / ‖want‖`.
pub fn l2_error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f64| x * x;
    let off: f64 = got
        .iter()
        .zip(want)
        .map(|(g, w)| square(f64::from(*g) - w))
        .sum();
    let all: f64 = want.iter().map(|w| square(*w)).sum();
    if off == 0.0 { 0.0 } else { (off / all).sqrt() }
}

/// `max |got − want| / max |want|`.
pub fn max_error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let larger = |m: f64, x: f64| if x > m || x.is_nan() { x } else { m };
    let off = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs());
    let off = off.fold(0.0, larger);
    if off == 0.0 {
        0.0
    } else {
        off / want.iter().map(|w| w.abs()).fold(0.0, larger)
    }
}

/// Fails unless both errors are within `bar`.
#[track_caller]
pub fn assert_near(what: &str, got: &[f32], want: &[f64], bar: f64) {
    let (l2, max) = (l2_error(got, want), max_error(got, want));
    assert!(
        l2 <= bar && max <= bar,
        "{what}: relative errors {l2:.2e} (L2) and {max:.2e} (max)"
    );
}

/// Runs with the given number of threads.
pub fn exec<T>(threads: usize, run: impl FnOnce(&mut Exec<'_>) -> T) -> T {
    let (pool, mut scratch) = (Pool::new(threads), Scratch::default());
    run(&mut Exec {
        pool: &pool,
        scratch: &mut scratch,
    })
}

/// The same cases in every run.
pub fn cases(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(0x7070),
        failure_persistence: None,
        ..Config::default()
    }
}

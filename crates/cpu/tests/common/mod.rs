//! Shared by the tests: random numbers, comparisons, somewhere to run.
#![allow(dead_code)]

pub mod sites;
pub mod suite;

use proptest::test_runner::{Config, RngSeed};
use tokenformer_cpu::{Exec, Pool, Scratch};

/// Random numbers that depend on the seed alone (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between 0 and 1.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// `len` numbers from N(0, std²).
    pub fn normals(&mut self, len: usize, std: f64) -> Vec<f32> {
        let mut normal = || {
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            radius * (std::f64::consts::TAU * self.uniform()).cos()
        };
        (0..len).map(|_| (normal() * std) as f32).collect()
    }

    /// `len` tokens below `vocab`.
    pub fn tokens(&mut self, len: usize, vocab: usize) -> Vec<u32> {
        (0..len).map(|_| self.below(vocab) as u32).collect()
    }
}

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

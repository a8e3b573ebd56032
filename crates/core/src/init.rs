//! Drawing fresh weights: every array has its own stream of random numbers, found by its name, so that
//! no array depends on the order in which others are made.

use crate::config::{Init, ModelConfig};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// A stream of random numbers for `name` under `seed`.
pub fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    // FNV-1a: the name only has to select one of 2^64 streams.
    let fnv = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv));
    rng
}

/// `len` numbers from N(0, std²).
pub fn normal(seed: u64, name: &str, len: usize, std: f64) -> Vec<f32> {
    let mut rng = stream(seed, name);
    let mut draw = || -> f64 { StandardNormal.sample(&mut rng) };
    (0..len).map(|_| (draw() * std) as f32).collect()
}

/// Standard deviation of fresh keys.
pub fn key_std(config: &ModelConfig) -> f64 {
    match config.init {
        Init::Released => 0.02,
        Init::FanIn => 1.0 / (config.width as f64).sqrt(),
    }
}

/// Standard deviation of fresh values of a site with `tokens` tokens in all.
pub fn value_std(config: &ModelConfig, tokens: usize) -> f64 {
    match config.init {
        Init::Released => 2.0 / (config.layers() as f64 * (config.width as f64).sqrt()),
        Init::FanIn => 1.0 / (tokens as f64).sqrt(),
    }
}

/// Standard deviation of a fresh embedding.
pub fn embedding_std(config: &ModelConfig) -> f64 {
    match config.init {
        Init::Released => 0.02,
        Init::FanIn => 1.0,
    }
}

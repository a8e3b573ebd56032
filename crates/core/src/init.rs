//! Drawing fresh weights: every array has its own stream of random numbers, found by its name, so that
//! no array depends on the order in which others are made.

use crate::config::{Init, ModelConfig};
use crate::error::Result;
use crate::param::{ParamPath, ParamRole, Place};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tokenformer_device::DeviceError;

/// FNV-1a: a name only has to select one of 2^64 streams.
fn hash(name: &str) -> u64 {
    let fnv = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv)
}

/// A stream of random numbers for `name` under `seed`.
pub fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(hash(name));
    rng
}

/// A generator for `name` under `seed`, all of whose streams are left to the caller.
pub(crate) fn seeded(seed: u64, name: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed ^ hash(name))
}

/// Numbers from N(0, std²), without end.
pub(crate) fn normals(seed: u64, name: &str, std: f64) -> impl Iterator<Item = f32> {
    let mut rng = stream(seed, name);
    std::iter::repeat_with(move || {
        let draw: f64 = StandardNormal.sample(&mut rng);
        (draw * std) as f32
    })
}

/// Uniform numbers from 0 on, below 1, without end.
pub(crate) fn uniforms(seed: u64, name: &str) -> impl Iterator<Item = f64> {
    let mut rng = stream(seed, name);
    std::iter::repeat_with(move || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64)
}

/// `len` numbers from N(0, std²).
pub fn normal(seed: u64, name: &str, len: usize, std: f64) -> Vec<f32> {
    normals(seed, name, std).take(len).collect()
}

/// As [`normal`], but an error if there is not enough memory for an array as large as a setting asks for.
pub(crate) fn normal_array(seed: u64, name: &str, len: usize, std: f64) -> Result<Vec<f32>> {
    array(len, normals(seed, name, std))
}

/// `len` times the same number; an error if there is not enough memory.
pub(crate) fn constant_array(len: usize, value: f32) -> Result<Vec<f32>> {
    array(len, std::iter::repeat(value))
}

fn array(len: usize, numbers: impl Iterator<Item = f32>) -> Result<Vec<f32>> {
    let mut array = Vec::new();
    array
        .try_reserve_exact(len)
        .map_err(|_| DeviceError::OutOfMemory {
            device: "host".into(),
            needed_bytes: len.saturating_mul(size_of::<f32>()),
        })?;
    array.extend(numbers.take(len));
    Ok(array)
}

/// Fresh numbers of an array: constants, or normal ones from a stream found by the array's name.
pub(crate) fn fresh(
    config: &ModelConfig,
    seed: u64,
    path: &ParamPath,
    shape: &[usize],
) -> Result<Vec<f32>> {
    fresh_from(config, seed, &path.to_string(), path, shape)
}

/// As [`fresh`], from the stream of random numbers called `name`.
pub(crate) fn fresh_from(
    config: &ModelConfig,
    seed: u64,
    name: &str,
    path: &ParamPath,
    shape: &[usize],
) -> Result<Vec<f32>> {
    let len = shape.iter().product();
    match path.role {
        ParamRole::Gain => constant_array(len, 1.0),
        ParamRole::Bias => constant_array(len, 0.0),
        // The classes of images start as likely as each other.
        ParamRole::Head if is_of_images(path) => constant_array(len, 0.0),
        _ => normal_array(seed, name, len, std(config, path, shape)),
    }
}

/// Whether an array stands before or after the blocks of an image model.
fn is_of_images(path: &ParamPath) -> bool {
    matches!(path.place, Place::Image(_))
}

/// Standard deviation of a fresh array with normal numbers; see [`Init`].
pub fn std(config: &ModelConfig, path: &ParamPath, shape: &[usize]) -> f64 {
    let d = config.width as f64;
    if is_of_images(path) {
        return match path.role {
            ParamRole::Weight => 1.0 / (shape[1] as f64).sqrt(),
            ParamRole::Head => 0.0,
            _ => 0.02,
        };
    }
    let writes_residual = 2.0 / (config.layers() as f64 * d.sqrt());
    match (config.init, path.role) {
        (Init::Released, ParamRole::Values) => writes_residual,
        (Init::Released, ParamRole::Weight) => match path.place {
            // A projection into the residual stream takes the place of a site's values.
            Place::Linear { name: "up", .. } | Place::Part { name: "up", .. } => 0.02,
            Place::Linear { kind, .. } | Place::Part { kind, .. } if kind.writes_residual() => {
                writes_residual
            }
            _ => 0.02,
        },
        (Init::Released, _) => 0.02,
        (Init::FanIn, ParamRole::Keys) => 1.0 / d.sqrt(),
        (Init::FanIn, ParamRole::Values) => 1.0 / (shape[0] as f64).sqrt(),
        (Init::FanIn, ParamRole::Weight) => 1.0 / (shape[1] as f64).sqrt(),
        (Init::FanIn, _) => 1.0,
    }
}

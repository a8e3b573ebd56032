//! Arrays on the host, and what becomes of them in a wider network.

use super::origin::Split;
use crate::error::Result;
use crate::init;

/// An array on the host.
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub numbers: Vec<f32>,
}

impl Array {
    /// Sum of the squares.
    pub fn energy(&self) -> f64 {
        self.numbers.iter().map(|x| f64::from(*x).powi(2)).sum()
    }

    /// Root mean square.
    pub fn rms(&self) -> f64 {
        (self.energy() / self.numbers.len().max(1) as f64).sqrt()
    }
}

/// The rows of `old`, repeated to the width and the rows of `shape`, times a factor.
pub(super) fn repeated(old: &Array, factor: f64, shape: &[usize]) -> Result<Vec<f32>> {
    let (from, to) = (columns(&old.shape), columns(shape));
    let mut new = init::constant_array(shape.iter().product(), 0.0)?;
    let rows = old.numbers.chunks_exact(from).cycle();
    for (old, new) in rows.zip(new.chunks_exact_mut(to)) {
        for (x, from) in new.iter_mut().zip(old.iter().cycle()) {
            *x = (f64::from(*from) * factor) as f32;
        }
    }
    Ok(new)
}

/// Copies of `old` in the blocks of a matrix of `shape`; those in a row add up to `old`.
pub(super) fn split(
    old: &Array,
    rule: Split,
    shape: &[usize],
    seed: u64,
    stream: &str,
) -> Result<Vec<f32>> {
    let (from, to) = (columns(&old.shape), columns(shape));
    let copies = to / from;
    let rows = old.shape[0];
    let mut new = init::constant_array(shape.iter().product(), 0.0)?;
    let mut normals = init::normals(seed, stream, 1.0);
    let mut uniforms = init::uniforms(seed, stream);
    let size = old.rms();
    let mut shares = vec![0.0; copies];
    for (i, new) in new.chunks_exact_mut(to).enumerate() {
        let old = &old.numbers[i % rows * from..][..from];
        for (j, w) in old.iter().enumerate() {
            let w = f64::from(*w);
            match rule {
                Split::Noisy(noise) => {
                    shares.fill_with(|| normals.next().map_or(0.0, f64::from));
                    let mean = shares.iter().sum::<f64>() / copies as f64;
                    // Without their mean the draws are smaller by this factor.
                    let lost = (1.0 - 1.0 / copies as f64).sqrt();
                    for share in &mut shares {
                        *share = (w + noise * size * (*share - mean) / lost) / copies as f64;
                    }
                }
                Split::Uneven => {
                    let a = uniforms.next().map_or(0.5, |u| 0.25 + u / 2.0);
                    shares.copy_from_slice(&[a * w, (1.0 - a) * w]);
                }
            }
            for (copy, share) in shares.iter().enumerate() {
                new[copy * from + j] = *share as f32;
            }
        }
    }
    Ok(new)
}

/// Puts `old`, times `shrink`, into the top left corner of `new`; added to the old values, or replacing them.
pub(super) fn put_in_corner(
    old: &Array,
    shrink: f64,
    adds: bool,
    new: &mut [f32],
    shape: &[usize],
) {
    let (from, to) = (columns(&old.shape), columns(shape));
    for (old, new) in old.numbers.chunks_exact(from).zip(new.chunks_exact_mut(to)) {
        for (x, from) in new.iter_mut().zip(old) {
            let shrunk = f64::from(*from) * shrink;
            *x = if adds {
                (f64::from(*x) + shrunk) as f32
            } else {
                shrunk as f32
            };
        }
    }
}

/// Columns of a matrix, or the length of a vector.
fn columns(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1).max(1)
}

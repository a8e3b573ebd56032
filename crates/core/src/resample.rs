//! An image model at another size of images: its learned positions are resampled to the new grid of patches.
//!
//! As timm's `resample_abs_pos_embed` does it: bicubic with a = −1/2, the kernel widened where the grid shrinks
//! (antialiasing), pixel centres at halves, weights cut off at the edges and made to add up to 1.

use crate::config::{ImageInput, Input, ModelConfig};
use crate::error::{Error, Result};

impl ModelConfig {
    /// The same model for images of another height and width; patches keep their size.
    ///
    /// # Errors
    /// [`Error::OtherInput`] for a language model; [`Error::Config`] if patches do not cover such images.
    pub fn at_image_size(&self, [height, width]: [usize; 2]) -> Result<Self> {
        let Input::Image(image) = self.input else {
            let (expected, got) = ("tokens", "images");
            return Err(Error::OtherInput { expected, got });
        };
        let image = ImageInput {
            height,
            width,
            ..image
        };
        image.check("input")?;
        let config = Self {
            input: Input::Image(image),
            context: image.positions(),
            ..self.clone()
        };
        config.validate()?;
        Ok(config)
    }
}

/// The table `[T, D]` of learned positions of the images `from`, for the images `to`. What stands before the patches stays
/// as it is, and so does everything if the grids are the same.
///
/// # Panics
/// If the table is not of that many positions, or only one of both has a class token.
pub fn positions(table: &[f32], width: usize, from: &ImageInput, to: &ImageInput) -> Vec<f32> {
    let before = from.positions() - from.patches();
    assert_eq!(table.len(), from.positions() * width);
    assert_eq!(before, to.positions() - to.patches());
    if from.grid() == to.grid() {
        return table.to_vec();
    }
    let (class, patches) = table.split_at(before * width);
    let [old_rows, old_columns] = from.grid();
    let [rows, columns] = to.grid();
    let patches: Vec<f64> = patches.iter().copied().map(f64::from).collect();
    // Along the columns of each row, then along the rows.
    let across = Axis::new(old_columns, columns);
    let wide: Vec<f64> = (patches.chunks_exact(old_columns * width))
        .flat_map(|row| across.resample(row, width))
        .collect();
    debug_assert_eq!(wide.len(), old_rows * columns * width);
    let down = Axis::new(old_rows, rows);
    let resampled = down.resample(&wide, columns * width);
    let resampled = resampled.into_iter().map(|x| x as f32);
    class.iter().copied().chain(resampled).collect()
}

/// For each new point of an axis, the first old one that counts, and the weights from there on.
struct Axis(Vec<(usize, Vec<f64>)>);

impl Axis {
    fn new(old: usize, new: usize) -> Self {
        let scale = old as f64 / new as f64;
        let stretch = scale.max(1.0);
        let point = |i: usize| {
            let centre = scale * (i as f64 + 0.5);
            let first = (centre - 2.0 * stretch + 0.5).max(0.0) as usize;
            let end = ((centre + 2.0 * stretch + 0.5) as usize).min(old);
            let weight = |j: usize| cubic((j as f64 - centre + 0.5) / stretch);
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            (first, weights.into_iter().map(|w| w / sum).collect())
        };
        Self((0..new).map(point).collect())
    }

    /// The new rows of `x`, whose rows are `width` long.
    fn resample(&self, x: &[f64], width: usize) -> Vec<f64> {
        let mut found = vec![0.0; self.0.len() * width];
        for ((first, weights), to) in self.0.iter().zip(found.chunks_exact_mut(width)) {
            for (row, weight) in x.chunks_exact(width).skip(*first).zip(weights) {
                to.iter_mut().zip(row).for_each(|(to, x)| *to += weight * x);
            }
        }
        found
    }
}

/// Keys' cubic convolution kernel with a = −1/2 (1981).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    match x {
        _ if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pool;

    fn input([rows, columns]: [usize; 2], pool: Pool) -> ImageInput {
        ImageInput {
            height: 2 * rows,
            width: 3 * columns,
            channels: 1,
            patch: [2, 3],
            pool,
        }
    }

    /// What `torch.nn.functional.interpolate(x, size, mode="bicubic", antialias=True)` gives for
    /// `x[i, j] = (7 i + 3 j) % 5 − 2`, in float32.
    #[test]
    fn grids_are_resampled_as_pytorch_does() {
        let table = |[rows, columns]: [usize; 2]| -> Vec<f32> {
            let at = (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
            at.map(|(i, j)| ((7 * i + 3 * j) % 5) as f32 - 2.0)
                .collect()
        };
        for (from, to, want) in EXPECTED {
            let [old, new] = [*from, *to].map(|grid| input(grid, Pool::Mean));
            let got = positions(&table(*from), 1, &old, &new);
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(*want) {
                assert!(
                    (got - want).abs() < 1e-5,
                    "{from:?} to {to:?}: {got} is not {want}"
                );
            }
        }
    }

    type Expected = ([usize; 2], [usize; 2], &'static [f32]);

    const EXPECTED: &[Expected] = &[
        (
            [2, 3],
            [4, 5],
            &[
                -2.436182, -0.8601843, 1.264706, -0.166155, -1.36071, -1.733962, -0.8535714,
                0.3785715, -0.1595418, -0.6584905, -0.3415095, -0.8404585, -1.378572, -0.1464283,
                0.7339622, 0.3607102, -0.8338456, -2.264706, -0.1398151, 1.436182,
            ],
        ),
        (
            [4, 4],
            [3, 2],
            &[
                -0.7595835,
                0.4490894,
                -0.05991735,
                -0.4140009,
                0.6397488,
                -0.6307279,
            ],
        ),
        (
            [5, 2],
            [2, 4],
            &[
                -0.2653257, -0.3004014, -0.3699541, -0.4050298, 0.4797768, 0.4566444, 0.4107744,
                0.3876419,
            ],
        ),
        (
            [1, 3],
            [2, 2],
            &[-0.8699839, -0.1797752, -0.8699839, -0.1797752],
        ),
    ];

    #[test]
    fn the_class_token_stays_and_channels_do_not_mix() {
        let (old, new) = (input([2, 2], Pool::Class), input([3, 4], Pool::Class));
        // The second channel is the first one, ten times as large.
        let table: Vec<f32> = (0..5).flat_map(|i| [i as f32, 10.0 * i as f32]).collect();
        let found = positions(&table, 2, &old, &new);
        assert_eq!((found.len(), &found[..2]), (13 * 2, &table[..2]));
        let pairs = found.chunks_exact(2);
        assert!(
            pairs
                .into_iter()
                .all(|pair| (pair[1] - 10.0 * pair[0]).abs() < 1e-4)
        );
    }

    #[test]
    fn the_same_grid_keeps_every_bit() {
        let grid = input([3, 2], Pool::Class);
        let table: Vec<f32> = (0..14).map(|i| (i as f32).sqrt()).collect();
        // Larger patches of larger images stand in the same grid.
        let larger = ImageInput {
            height: 12,
            width: 12,
            patch: [4, 6],
            ..grid
        };
        assert_eq!(positions(&table, 2, &grid, &larger), table);
    }
}

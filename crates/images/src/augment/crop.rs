//! Selects the part of a picture that becomes the input.

use serde::{Deserialize, Serialize};

use super::check_pair;
use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::preprocess::Preprocess;
use crate::random::Draws;
use crate::resize::resize;

/// The part of a training picture that becomes the input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Crop {
    /// The same as in evaluation.
    Center,
    /// As in evaluation, then shifted by up to `pixels` in each direction; the uncovered border is black.
    Padded {
        /// Largest shift in pixels.
        pixels: usize,
    },
    /// A rectangle of random area and shape, resized to the input (Szegedy et al., 2014), as timm draws it.
    Resized {
        /// Range of the share of the picture's area.
        scale: [f64; 2],
        /// Range of width over height, uniform in its logarithm.
        ratio: [f64; 2],
    },
}

impl Crop {
    /// [`Crop::Resized`] with areas of 0.08 to 1 and aspect ratios of 3:4 to 4:3.
    pub fn resized() -> Self {
        Self::Resized {
            scale: [0.08, 1.0],
            ratio: [3.0 / 4.0, 4.0 / 3.0],
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match *self {
            Self::Center => Ok(()),
            Self::Padded { pixels } if pixels <= 4096 => Ok(()),
            Self::Padded { pixels } => Err(Error::Option {
                option: "crop.pixels",
                expected: "0 to 4096",
                got: pixels.to_string(),
            }),
            Self::Resized { scale, ratio } => {
                check_pair(
                    "crop.scale",
                    scale,
                    (1e-4, 1.0),
                    "two rising shares from 0.0001 to 1",
                )?;
                check_pair(
                    "crop.ratio",
                    ratio,
                    (0.01, 100.0),
                    "two rising numbers from 0.01 to 100",
                )
            }
        }
    }

    pub(super) fn apply(
        &self,
        picture: Picture,
        preprocess: &Preprocess,
        draws: &mut Draws,
    ) -> Picture {
        match *self {
            Self::Center => preprocess.center(picture),
            Self::Padded { pixels } => {
                let shift = [draws.below(2 * pixels + 1), draws.below(2 * pixels + 1)];
                shifted(&preprocess.center(picture), pixels, shift)
            }
            Self::Resized { scale, ratio } => {
                let size = (picture.width(), picture.height());
                let [left, top, width, height] = rectangle(size, scale, ratio, draws);
                let part = picture.crop(left, top, width, height);
                let part = part.into_channels(preprocess.channels);
                resize(
                    &part,
                    preprocess.width,
                    preprocess.height,
                    preprocess.filter,
                )
            }
        }
    }
}

/// The window at (x, y) = `shift` of the picture with a black margin of `pixels`.
fn shifted(picture: &Picture, pixels: usize, shift: [usize; 2]) -> Picture {
    let (width, height, _) = picture.shape();
    Picture::from_fn(picture.shape(), |x, y, channel| {
        let x = (x + shift[0]).wrapping_sub(pixels);
        let y = (y + shift[1]).wrapping_sub(pixels);
        if x < width && y < height {
            picture.at(x, y, channel)
        } else {
            0
        }
    })
}

/// Left, top, width and height, as timm's `RandomResizedCropAndInterpolation` draws them: ten tries, then the largest
/// centred rectangle of an allowed shape.
fn rectangle(
    (width, height): (usize, usize),
    scale: [f64; 2],
    ratio: [f64; 2],
    draws: &mut Draws,
) -> [usize; 4] {
    let area = width as f64 * height as f64;
    let rounded = |x: f64| x.round_ties_even() as usize;
    for _ in 0..10 {
        let target = draws.uniform(scale[0], scale[1]) * area;
        let shape = draws.uniform(ratio[0].ln(), ratio[1].ln()).exp();
        let (w, h) = (
            rounded((target * shape).sqrt()),
            rounded((target / shape).sqrt()),
        );
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = draws.below(height - h + 1);
            return [draws.below(width - w + 1), top, w, h];
        }
    }
    let shape = width as f64 / height as f64;
    let (w, h) = if shape < ratio[0] {
        (width, rounded(width as f64 / ratio[0]))
    } else if shape > ratio[1] {
        (rounded(height as f64 * ratio[1]), height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    [(width - w) / 2, (height - h) / 2, w, h]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rectangles_lie_inside(width in 1_usize..3000, height in 1_usize..3000, seed in any::<u64>()) {
            let mut draws = Draws::new(seed, Purpose::Augment, 0);
            let [left, top, w, h] = rectangle((width, height), [0.08, 1.0], [0.75, 4.0 / 3.0], &mut draws);
            prop_assert!(w >= 1 && h >= 1 && left + w <= width && top + h <= height);
        }
    }

    #[test]
    fn areas_and_shapes_are_those_asked_for() {
        let (mut areas, mut shapes) = (0.0, 0.0);
        const COUNT: u64 = 20_000;
        for position in 0..COUNT {
            let mut draws = Draws::new(1, Purpose::Augment, position);
            let [_, _, w, h] = rectangle((1000, 1000), [0.1, 0.5], [0.5, 2.0], &mut draws);
            let (area, shape) = ((w * h) as f64 / 1e6, w as f64 / h as f64);
            assert!((0.0985..0.503).contains(&area) && (0.495..2.01).contains(&shape));
            areas += area;
            shapes += shape.ln();
        }
        // Uniform distributions have deviations of 0.4 / √12 and 2 ln 2 / √12; the bound is four deviations of the
        // mean.
        let error = |spread: f64| 4.0 * spread / (12.0 * COUNT as f64).sqrt();
        assert!((areas / COUNT as f64 - 0.3).abs() < error(0.4) + 1e-4);
        assert!((shapes / COUNT as f64).abs() < error(2.0 * 2_f64.ln()) + 1e-4);
    }

    #[test]
    fn a_shift_brings_black_in() {
        let picture = Picture::new(2, 2, 1, vec![1, 2, 3, 4]).unwrap();
        assert_eq!(shifted(&picture, 1, [1, 1]), picture);
        assert_eq!(shifted(&picture, 1, [2, 1]).pixels(), [2, 0, 4, 0]);
        assert_eq!(shifted(&picture, 1, [1, 0]).pixels(), [0, 0, 1, 2]);
    }
}

//! Random erasing (Zhong et al., 2017): a rectangle of noise on the normalised picture, as timm's mode `pixel`.

use serde::{Deserialize, Serialize};

use super::{check_pair, check_share};
use crate::error::Result;
use crate::random::Draws;

/// Settings of random erasing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Erase {
    /// Probability that a rectangle of a picture is erased; default 0.25.
    pub probability: f64,
    /// Range of the share of the area; default 0.02 to 1/3.
    pub area: [f64; 2],
    /// Range of height over width, uniform in its logarithm; default 0.3 to 1/0.3.
    pub ratio: [f64; 2],
}

impl Default for Erase {
    fn default() -> Self {
        Self {
            probability: 0.25,
            area: [0.02, 1.0 / 3.0],
            ratio: [0.3, 1.0 / 0.3],
        }
    }
}

impl Erase {
    pub(super) fn check(&self) -> Result<()> {
        check_share("erase.probability", self.probability)?;
        check_pair(
            "erase.area",
            self.area,
            (0.0, 1.0),
            "two rising shares from 0 to 1",
        )?;
        check_pair(
            "erase.ratio",
            self.ratio,
            (0.01, 100.0),
            "two rising numbers from 0.01 to 100",
        )
    }

    /// `pixels` is `[channels, height, width]`; every number in the rectangle is replaced by a sample of N(0, 1).
    pub(super) fn apply(&self, pixels: &mut [f32], size: (usize, usize), draws: &mut Draws) {
        if !draws.chance(self.probability) {
            return;
        }
        let Some([left, top, w, h]) = self.rectangle(size, draws) else {
            return;
        };
        let (height, width) = size;
        for plane in pixels.chunks_exact_mut(height * width) {
            for row in plane.chunks_exact_mut(width).skip(top).take(h) {
                row[left..left + w].fill_with(|| draws.normal() as f32);
            }
        }
    }

    fn rectangle(&self, (height, width): (usize, usize), draws: &mut Draws) -> Option<[usize; 4]> {
        let rounded = |x: f64| x.round_ties_even() as usize;
        for _ in 0..10 {
            let area = draws.uniform(self.area[0], self.area[1]) * (height * width) as f64;
            let shape = draws.uniform(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            let (h, w) = (
                rounded((area * shape).sqrt()),
                rounded((area / shape).sqrt()),
            );
            if w < width && h < height {
                let top = draws.below(height - h + 1);
                return Some([draws.below(width - w + 1), top, w, h]);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn a_rectangle_becomes_noise_in_every_channel() {
        let erase = Erase {
            probability: 1.0,
            ..Erase::default()
        };
        let (height, width) = (40, 50);
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        for position in 0..200 {
            let mut pixels = vec![100.0; 3 * height * width];
            let mut draws = Draws::new(3, Purpose::Augment, position);
            erase.apply(&mut pixels, (height, width), &mut draws);
            let erased = |channel: usize| -> Vec<usize> {
                let plane = &pixels[channel * height * width..][..height * width];
                (0..height * width)
                    .filter(|&at| plane[at] != 100.0)
                    .collect()
            };
            let places = erased(0);
            assert!(places == erased(1) && places == erased(2));
            let side = |at: fn(&usize, usize) -> usize| {
                let range = places.iter().map(|p| at(p, width));
                range.clone().max().unwrap() - range.min().unwrap() + 1
            };
            let (w, h) = (side(|p, w| p % w), side(|p, w| p / w));
            assert_eq!(w * h, places.len());
            let share = places.len() as f64 / (height * width) as f64;
            assert!((0.015..0.36).contains(&share), "{share}");
            for value in pixels.into_iter().filter(|&v| v != 100.0) {
                sum += f64::from(value);
                squares += f64::from(value * value);
                count += 1.0;
            }
        }
        assert!((sum / count).abs() < 4.0 / f64::sqrt(count));
        assert!((squares / count - 1.0).abs() < 0.02);
    }

    #[test]
    fn the_probability_is_kept() {
        let erase = Erase::default();
        let erased = (0..10_000).filter(|&position| {
            let mut pixels = [7.0; 64];
            erase.apply(
                &mut pixels,
                (8, 8),
                &mut Draws::new(5, Purpose::Augment, position),
            );
            pixels != [7.0; 64]
        });
        let count = erased.count();
        // Expected are 2500 ± 4 · √(10000 · 0.25 · 0.75); rectangles without a pixel are rare.
        assert!((2300..2680).contains(&count), "{count}");
    }

    /// A picture that is too small for any rectangle is unchanged.
    #[test]
    fn one_pixel_is_left_alone() {
        let erase = Erase {
            probability: 1.0,
            ..Erase::default()
        };
        for position in 0..100 {
            let mut pixels = [7.0];
            erase.apply(
                &mut pixels,
                (1, 1),
                &mut Draws::new(5, Purpose::Augment, position),
            );
            assert_eq!(pixels, [7.0]);
        }
    }
}

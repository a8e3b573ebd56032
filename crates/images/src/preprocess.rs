//! Preprocessing of every picture before it enters a model: size, crop, normalisation.
//!
//! It belongs to the model and not to the dataset: evaluation, prediction and serving must use the same preprocessing,
//! or their results differ.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::resize::{Filter, resize_part};

/// How a picture of any size becomes the input of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Height of the input in pixels.
    pub height: usize,
    /// Width of the input in pixels.
    pub width: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Share of a side that the centre crop keeps, above 0 and at most 1: 0.875 resizes the short side to 256 for an
    /// input of 224.
    pub crop_share: f64,
    /// How pictures are resized, in training too.
    pub filter: Filter,
    /// Mean of each channel on the scale 0 to 1, which is subtracted.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel on the same scale, the divisor.
    pub std: Vec<f64>,
}

impl Preprocess {
    /// The preprocessing of vision Transformers for ImageNet: a crop of 224 x 224 out of 256, bicubic.
    pub fn imagenet() -> Self {
        Self {
            height: 224,
            width: 224,
            channels: 3,
            crop_share: 0.875,
            filter: Filter::Bicubic,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }
    }

    /// Preprocessing of small pictures: `side` x `side` without cropping, normalised with this mean and deviation.
    pub fn small(side: usize, mean: Vec<f64>, std: Vec<f64>) -> Self {
        Self {
            height: side,
            width: side,
            channels: mean.len(),
            crop_share: 1.0,
            filter: Filter::Bicubic,
            mean,
            std,
        }
    }

    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        let error = |option, expected, got: String| {
            Err(Error::Option {
                option,
                expected,
                got,
            })
        };
        for (option, side) in [("height", self.height), ("width", self.width)] {
            if !(1..=4096).contains(&side) {
                return error(option, "1 to 4096 pixels", side.to_string());
            }
        }
        if !matches!(self.channels, 1 | 3) {
            return error("channels", "1 or 3", self.channels.to_string());
        }
        if !(self.crop_share > 0.01 && self.crop_share <= 1.0) {
            return error(
                "crop_share",
                "above 0.01 and at most 1",
                self.crop_share.to_string(),
            );
        }
        if self.mean.len() != self.channels || !self.mean.iter().all(|m| m.is_finite()) {
            return error(
                "mean",
                "a number for each channel",
                format!("{:?}", self.mean),
            );
        }
        let is_deviation = |s: &f64| s.is_finite() && *s >= 1e-6;
        if self.std.len() != self.channels || !self.std.iter().all(is_deviation) {
            return error(
                "std",
                "a number of at least 1e-6 for each channel",
                format!("{:?}", self.std),
            );
        }
        Ok(())
    }

    /// A hash of all values.
    pub fn identity(&self) -> String {
        // Numbers and names in a structure that JSON has.
        let json = serde_json::to_vec(self).expect("plain data is JSON");
        blake3::hash(&json).to_hex().to_string()
    }

    /// Number of elements of an input: `channels * height * width`.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Always false, because an input has at least one element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resizes the picture, with its aspect ratio, so that it covers the input divided by `crop_share`, and crops the
    /// centre.
    ///
    /// For a square input this is `Resize(short side)` and `CenterCrop` of torchvision on Pillow's pictures, to the bit.
    pub fn center(&self, picture: Picture) -> Picture {
        let picture = picture.into_channels(self.channels);
        let (width, height, _) = picture.shape();
        let covered = |side: usize| (side as f64 / self.crop_share) as usize;
        let (wide, high) = (covered(self.width), covered(self.height));
        let size = match width * high <= height * wide {
            true => (wide, wide * height / width),
            false => (high * width / height, high),
        };
        // If the shapes differ, rounding can make a side one pixel shorter than the input.
        let size = (size.0.max(self.width), size.1.max(self.height));
        let start = |outer: usize, inner: usize| {
            (((outer - inner) as f64) / 2.0).round_ties_even() as usize
        };
        let (left, top) = (start(size.0, self.width), start(size.1, self.height));
        let columns = left..left + self.width;
        resize_part(&picture, size, columns, top..top + self.height, self.filter)
    }

    /// Writes `(value / 255 - mean) / std` as `[channels, height, width]` for a picture of the input's shape.
    pub fn normalise(&self, picture: &Picture, out: &mut [f32]) {
        let (channels, plane) = (self.channels, self.height * self.width);
        debug_assert_eq!(picture.shape(), (self.width, self.height, channels));
        for (channel, plane) in out.chunks_exact_mut(plane).enumerate() {
            let (mean, std) = (self.mean[channel] as f32, self.std[channel] as f32);
            let table: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - mean) / std);
            let values = picture.pixels()[channel..].iter().step_by(channels);
            for (out, &value) in plane.iter_mut().zip(values) {
                *out = table[usize::from(value)];
            }
        }
    }

    /// The mean as a colour, grey for one channel, which fills the corners of a rotated picture.
    pub(crate) fn fill(&self) -> [u8; 3] {
        let level = |channel: usize| {
            let mean = self.mean[channel.min(self.channels - 1)];
            (255.0 * mean).round_ties_even().clamp(0.0, 255.0) as u8
        };
        [0, 1, 2].map(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_normalised_by_channel() {
        let preprocess = Preprocess {
            height: 1,
            width: 2,
            mean: vec![0.0, 0.5, 1.0],
            std: vec![1.0, 0.5, 2.0],
            ..Preprocess::imagenet()
        };
        let picture = Picture::new(2, 1, 3, vec![0, 0, 0, 255, 255, 255]).unwrap();
        let mut out = [0.0; 6];
        preprocess.normalise(&picture, &mut out);
        assert_eq!(out, [0.0, 1.0, -1.0, 1.0, -0.5, 0.0]);
    }

    #[test]
    fn any_shape_becomes_the_input() {
        for (height, width) in [(24, 24), (16, 40), (40, 16), (1, 1)] {
            for crop_share in [1.0, 0.875, 0.1] {
                let preprocess = Preprocess {
                    height,
                    width,
                    crop_share,
                    ..Preprocess::imagenet()
                };
                for shape in [(1, 1), (1, 5000), (5000, 1), (23, 25), (31, 17)] {
                    let picture = Picture::from_fn((shape.0, shape.1, 1), |x, y, _| (x + y) as u8);
                    let center = preprocess.center(picture);
                    assert_eq!(center.shape(), (width, height, 3));
                }
            }
        }
    }

    #[test]
    fn wrong_values_are_named() {
        let refused = |change: fn(&mut Preprocess)| {
            let mut preprocess = Preprocess::imagenet();
            change(&mut preprocess);
            preprocess.check().unwrap_err().to_string()
        };
        Preprocess::imagenet().check().unwrap();
        assert!(refused(|p| p.height = 0).starts_with("height: out of range"));
        assert!(refused(|p| p.channels = 2).starts_with("channels: "));
        assert!(refused(|p| p.crop_share = f64::NAN).starts_with("crop_share: "));
        assert!(refused(|p| p.mean = vec![0.0]).starts_with("mean: "));
        assert!(refused(|p| p.std[1] = 0.0).starts_with("std: "));
    }
}

//! Random changes to training pictures: the supervised recipe of MAE and its parts.
//!
//! The recipe is that of He et al. (2021), "Masked Autoencoders Are Scalable Vision Learners", table of training ViT
//! from scratch, with the arithmetic of timm and Pillow, with which it was run: random resized crops, flips,
//! RandAugment of 2 operations at magnitude 9 ± 0.5, mixup 0.8, cutmix 1.0, label smoothing 0.1; erasing is optional.
//!
//! Every choice is drawn from the stream of (seed, position of the sample), so neither threads nor batches change it.

mod affine;
mod blend;
mod crop;
mod erase;
mod mix;
mod operation;
mod rand_augment;
mod tables;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::preprocess::Preprocess;
use crate::random::Draws;

pub use affine::Warp;
pub use crop::Crop;
pub use erase::Erase;
pub use mix::Mix;
pub(crate) use mix::Mixing;
pub use operation::Operation;
pub use rand_augment::RandAugment;

/// The augmentation of pictures and labels in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// The part of the picture that becomes the input.
    pub crop: Crop,
    /// Probability of a horizontal flip, 0 to 1.
    pub flip: f64,
    /// Random operations on the pixels.
    pub rand_augment: Option<RandAugment>,
    /// Random erasing with a rectangle of noise.
    pub erase: Option<Erase>,
    /// Mixtures of two pictures.
    pub mix: Option<Mix>,
    /// Share of a label that is spread over all classes, 0 or more and below 1.
    pub smoothing: f64,
}

impl Default for Augment {
    /// No random changes.
    fn default() -> Self {
        Self {
            crop: Crop::Center,
            flip: 0.0,
            rand_augment: None,
            erase: None,
            mix: None,
            smoothing: 0.0,
        }
    }
}

impl Augment {
    /// The supervised training recipe of MAE.
    pub fn mae() -> Self {
        Self {
            crop: Crop::resized(),
            flip: 0.5,
            rand_augment: Some(RandAugment::default()),
            erase: None,
            mix: Some(Mix::default()),
            smoothing: 0.1,
        }
    }

    /// A recipe for pictures of about 32 pixels: shifts by up to 4 pixels, flips, smoothing 0.1.
    pub fn small() -> Self {
        Self {
            crop: Crop::Padded { pixels: 4 },
            flip: 0.5,
            smoothing: 0.1,
            ..Self::default()
        }
    }

    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        check_share("flip", self.flip)?;
        if !(0.0..1.0).contains(&self.smoothing) {
            return Err(Error::Option {
                option: "smoothing",
                expected: "0 or more and below 1",
                got: self.smoothing.to_string(),
            });
        }
        self.crop.check()?;
        self.rand_augment
            .as_ref()
            .map_or(Ok(()), RandAugment::check)?;
        self.erase.as_ref().map_or(Ok(()), Erase::check)?;
        self.mix.as_ref().map_or(Ok(()), Mix::check)
    }

    /// Makes the training input of `picture`, normalised, `[channels, height, width]`.
    pub(crate) fn apply(
        &self,
        picture: Picture,
        preprocess: &Preprocess,
        draws: &mut Draws,
        out: &mut [f32],
    ) {
        let mut picture = self.crop.apply(picture, preprocess, draws);
        if draws.chance(self.flip) {
            picture.flip();
        }
        if let Some(rand_augment) = &self.rand_augment {
            picture = rand_augment.apply(picture, preprocess, draws);
        }
        preprocess.normalise(&picture, out);
        if let Some(erase) = &self.erase {
            erase.apply(out, (preprocess.height, preprocess.width), draws);
        }
    }
}

fn check_share(option: &'static str, share: f64) -> Result<()> {
    check_range(option, share, 0.0, 1.0, "0 to 1")
}

/// Checks that `value` is in `low..=high`; `expected` describes the range in words.
fn check_range(
    option: &'static str,
    value: f64,
    low: f64,
    high: f64,
    expected: &'static str,
) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::Option {
        option,
        expected,
        got: value.to_string(),
    })
}

/// Checks that two numbers are in ascending order and in a range.
fn check_pair(
    option: &'static str,
    [low, high]: [f64; 2],
    range: (f64, f64),
    expected: &'static str,
) -> Result<()> {
    if low <= high && low >= range.0 && high <= range.1 {
        return Ok(());
    }
    Err(Error::Option {
        option,
        expected,
        got: format!("{low}, {high}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_valid_and_wrong_values_named() {
        for recipe in [Augment::default(), Augment::mae(), Augment::small()] {
            recipe.check().unwrap();
            let json = serde_json::to_string(&recipe).unwrap();
            assert_eq!(serde_json::from_str::<Augment>(&json).unwrap(), recipe);
        }
        let refused = |change: fn(&mut Augment)| {
            let mut recipe = Augment::mae();
            recipe.erase = Some(Erase::default());
            change(&mut recipe);
            recipe.check().unwrap_err().to_string()
        };
        assert!(refused(|a| a.flip = 1.5).starts_with("flip: "));
        assert!(refused(|a| a.smoothing = 1.0).starts_with("smoothing: "));
        let scale = [0.5, 0.2];
        assert!(
            refused(|a| a.erase.as_mut().unwrap().area = [0.5, f64::NAN]).starts_with("erase.area")
        );
        assert!(
            refused(|a| a.mix.as_mut().unwrap().mixup_alpha = -1.0).starts_with("mix.mixup_alpha")
        );
        assert!(
            refused(|a| a.rand_augment.as_mut().unwrap().magnitude = 11.0)
                .starts_with("rand_augment.magnitude")
        );
        let mut recipe = Augment::mae();
        recipe.crop = Crop::Resized {
            scale,
            ratio: [0.75, 1.25],
        };
        assert!(
            recipe
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("crop.scale")
        );
    }
}

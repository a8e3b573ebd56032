//! The operations of RandAugment, in Pillow's arithmetic.

use super::affine::{self, Warp};
use super::{blend, tables};
use crate::picture::Picture;

/// One operation with its strength. Table and blend operations equal Pillow's `ImageOps` and `ImageEnhance` to the bit,
/// warps equal `Image.rotate` and `Image.transform`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// Stretches each channel to 0..=255.
    AutoContrast,
    /// Flattens the histogram of each channel.
    Equalize,
    /// 255 minus each value.
    Invert,
    /// Rotates counter-clockwise around the centre, in degrees.
    Rotate(f64),
    /// Keeps this number of high bits; 8 and more keep all.
    Posterize(u32),
    /// Inverts values from this threshold (0 to 256) on.
    Solarize(u32),
    /// Adds this number to values below 128, clipped at 255.
    SolarizeAdd(u32),
    /// Blends grey (factor 0) with the picture (factor 1).
    Color(f64),
    /// Blends the mean grey (factor 0) with the picture (factor 1).
    Contrast(f64),
    /// Blends black (factor 0) with the picture (factor 1).
    Brightness(f64),
    /// Blends the smoothed picture (factor 0) with the picture (factor 1).
    Sharpness(f64),
    /// Shifts each row by this many pixels per row.
    ShearX(f64),
    /// Shifts each column by this many pixels per column.
    ShearY(f64),
    /// Shifts left by a share of the width.
    TranslateX(f64),
    /// Shifts up by a share of the height.
    TranslateY(f64),
}

impl Operation {
    /// Applies the operation; the result has the same shape.
    pub fn apply(self, picture: &Picture, warp: Warp) -> Picture {
        let (width, height) = (picture.width() as f64, picture.height() as f64);
        let warped = |matrix| affine::transform(picture, matrix, warp);
        match self {
            Self::AutoContrast => tables::auto_contrast(picture),
            Self::Equalize => tables::equalize(picture),
            Self::Invert => tables::invert(picture),
            Self::Rotate(degrees) => warped(affine::rotation(degrees, width, height)),
            Self::Posterize(bits) => tables::posterize(picture, bits),
            Self::Solarize(threshold) => tables::solarize(picture, threshold),
            Self::SolarizeAdd(add) => tables::solarize_add(picture, add),
            Self::Color(factor) => blend::color(picture, factor),
            Self::Contrast(factor) => blend::contrast(picture, factor),
            Self::Brightness(factor) => blend::brightness(picture, factor),
            Self::Sharpness(factor) => blend::sharpness(picture, factor),
            Self::ShearX(factor) => warped([1.0, factor, 0.0, 0.0, 1.0, 0.0]),
            Self::ShearY(factor) => warped([1.0, 0.0, 0.0, factor, 1.0, 0.0]),
            Self::TranslateX(share) => warped([1.0, 0.0, share * width, 0.0, 1.0, 0.0]),
            Self::TranslateY(share) => warped([1.0, 0.0, 0.0, 0.0, 1.0, share * height]),
        }
    }
}

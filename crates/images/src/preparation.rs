//! From a file to the input of a model.
//!
//! A model keeps its preparation, so that every program which shows it a picture shows it the same numbers.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::Summary;
use crate::decode::{DecodeOptions, Unreadable, decode, read_file};
use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::preprocess::Preprocess;
use crate::resize::{SIDES, reduce};

/// How the file of a picture becomes the input of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// How the file is decoded.
    pub decode: DecodeOptions,
    /// Short side that larger pictures are reduced to first, as those of the training set were.
    pub resized: Option<usize>,
    /// Size, crop and normalisation.
    pub input: Preprocess,
}

impl Preparation {
    /// As the pictures of a dataset were treated before they became the inputs of `input`.
    pub fn of_dataset(summary: &Summary, input: Preprocess) -> Self {
        Self {
            decode: summary.decode,
            resized: summary.resized,
            input,
        }
    }

    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        if let Some(side) = self.resized.filter(|side| !SIDES.contains(side)) {
            return Err(Error::Option {
                option: "resized",
                expected: "1 to 65535 pixels, or null",
                got: side.to_string(),
            });
        }
        self.input.check()
    }

    /// The input `[channels, height, width]` of a picture's file.
    ///
    /// # Errors
    /// With the reason why the file is no picture.
    pub fn file(&self, path: &Path) -> std::result::Result<Vec<f32>, Unreadable> {
        let picture = decode(&read_file(path)?, &self.decode)?;
        let picture = picture.into_channels(self.input.channels);
        Ok(self.input.input(match self.resized {
            Some(side) => reduce(picture, side),
            None => picture,
        }))
    }
}

impl Preprocess {
    /// The input `[channels, height, width]` of a picture in evaluation.
    pub fn input(&self, picture: Picture) -> Vec<f32> {
        let mut pixels = vec![0.0; self.len()];
        self.normalise(&self.center(picture), &mut pixels);
        pixels
    }
}

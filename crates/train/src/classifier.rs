//! A model of images with what it needs to be shown a picture: names of classes, and the way from a file to its input.

use crate::error::{Error, Result};
use crate::files::{self, CLASSES, PREPROCESS, Weights};
use crate::finite::ensure_finite;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use tokenformer_core::device::Device;
use tokenformer_core::{Model, ModelConfig, WeightFormat};
use tokenformer_images::Preparation;

/// What an image model keeps in addition to its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    /// Names of the classes, by number.
    pub classes: Vec<String>,
    /// From a file to an input.
    pub preparation: Preparation,
}

impl Labels {
    /// The files that hold them, by name.
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        // Names and numbers in structures that JSON has.
        let json = |value: serde_json::Result<Vec<u8>>| value.expect("plain data is JSON");
        vec![
            (CLASSES, json(serde_json::to_vec_pretty(&self.classes))),
            (
                PREPROCESS,
                json(serde_json::to_vec_pretty(&self.preparation)),
            ),
        ]
    }

    /// Reads them from the folder of a model with the configuration `config`.
    ///
    /// # Errors
    /// If a file is missing or damaged, or they are not those of the model.
    pub fn read(dir: &Path, config: &ModelConfig) -> Result<Self> {
        let labels = Self {
            classes: read_json(dir, CLASSES)?,
            preparation: read_json(dir, PREPROCESS)?,
        };
        labels.preparation.check()?;
        let refused = |file: &str, what: &str, expected: String, got: String| {
            Err(Error::Damaged {
                path: dir.join(file),
                problem: format!("{what}\n  expected: {expected}\n  got:      {got}"),
                help: "restore the file that was written with the model".into(),
            })
        };
        if labels.classes.len() != config.classes() {
            let (expected, got) = (
                config.classes().to_string(),
                labels.classes.len().to_string(),
            );
            return refused(CLASSES, "other classes than the model's", expected, got);
        }
        let input = &labels.preparation.input;
        let sizes = [input.channels, input.height, input.width];
        match config.input.image() {
            Some(image) if [image.channels, image.height, image.width] == sizes => Ok(labels),
            Some(image) => {
                let expected = format!("{} x {} x {}", image.channels, image.height, image.width);
                let got = format!("{} x {} x {}", sizes[0], sizes[1], sizes[2]);
                refused(PREPROCESS, "other inputs than the model's", expected, got)
            }
            None => Err(not_of_images(dir)),
        }
    }
}

fn read_json<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<T> {
    const MAX_BYTES: u64 = 64 << 20;
    let path = dir.join(name);
    let damaged = |problem: String| Error::Damaged {
        path: path.clone(),
        problem,
        help: "docs/formats.md describes the file; a run on pictures writes it beside the model"
            .into(),
    };
    if !path.exists() {
        return Err(damaged(
            "the model does not say how pictures are prepared, or what its classes are called"
                .into(),
        ));
    }
    let bytes = tokenformer_store::read_small(&path, MAX_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
}

/// A model in a place for one of images.
fn not_of_images(dir: &Path) -> Error {
    Error::Damaged {
        path: dir.into(),
        problem: "not a model of images\n  expected: one that reads images\n  got:      one that reads text".into(),
        help: "use `generate` to let it write, and `eval` with a dataset of text".into(),
    }
}

/// A model of images, ready to be shown pictures.
pub struct Classifier {
    model: Model,
    labels: Labels,
}

impl Classifier {
    /// Loads the model of a folder that has been verified, for inference; with `image_size`, for pictures of another height
    /// and width than it was trained on ([`files::load_at_image_size`]).
    ///
    /// # Errors
    /// If it is not a model of images, files are missing or do not fit together, or memory is short.
    pub fn load(
        dir: &Path,
        device: &Arc<dyn Device>,
        weights: Weights,
        format: WeightFormat,
        image_size: Option<[usize; 2]>,
    ) -> Result<Self> {
        let config = files::read_config(dir)?;
        if config.input.is_tokens() {
            return Err(not_of_images(dir));
        }
        let mut labels = Labels::read(dir, &config)?;
        let model = match image_size {
            Some(size) => {
                let input = &mut labels.preparation.input;
                [input.height, input.width] = size;
                labels.preparation.check()?;
                files::load_at_image_size(dir, device, weights, Some(format), size)?
            }
            None => files::load_for_inference(dir, device, weights, format)?,
        };
        Ok(Self { model, labels })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Names of classes, and the way from a file to an input.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Logits `[inputs, classes]` of inputs `[channels, height, width]` side by side. Those of an input do not depend on
    /// the others.
    ///
    /// # Errors
    /// If the device fails, or a logit is not finite.
    pub fn logits(&self, pixels: &[f32]) -> Result<Vec<f32>> {
        let inputs = pixels.len() / self.labels.preparation.input.len();
        if inputs == 0 {
            return Ok(Vec::new());
        }
        let logits = self.model.classify(pixels, inputs)?;
        let classes = self.labels.classes.len();
        ensure_finite(&logits, |at| {
            format!(
                "the logit of class {} of picture {}",
                at % classes,
                at / classes
            )
        })?;
        Ok(logits)
    }
}

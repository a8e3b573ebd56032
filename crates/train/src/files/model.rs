//! A model directory, written and read back.

use super::arrays::{Array, write_arrays};
use super::{CONFIG, EMA, TOKENIZER, WEIGHTS, read_text};
use crate::error::{Error, Result};
use crate::memory;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenformer_core::config::TrainingSettings;
use tokenformer_core::device::Device;
use tokenformer_core::path::{ParamPath, ParamRole};
use tokenformer_core::{Model, ModelConfig, WeightFormat, resample};
use tokenformer_store::{DirWriter, SafetensorsFile, Which};

/// Writes `config.json`, `model.safetensors` and `tokenizer.json` into a directory that is being made.
///
/// # Errors
/// If a file cannot be written or the device fails.
pub fn write_model(to: &mut DirWriter, model: &Model, tokenizer: Option<&[u8]>) -> Result<()> {
    write_network(to, model, tokenizer.map(|bytes| (TOKENIZER, bytes)))
}

/// Writes `config.json`, `model.safetensors` and the files of a task into a directory that is being made.
///
/// # Errors
/// As [`write_model`].
pub fn write_model_of_task(
    to: &mut DirWriter,
    model: &Model,
    files: &[(&'static str, Vec<u8>)],
) -> Result<()> {
    let files = files.iter().map(|(name, bytes)| (*name, bytes.as_slice()));
    write_network(to, model, files)
}

pub(super) fn write_network<'f>(
    to: &mut DirWriter,
    model: &Model,
    files: impl IntoIterator<Item = (&'f str, &'f [u8])>,
) -> Result<()> {
    to.write_bytes(CONFIG, model.config().to_json().as_bytes())?;
    for (name, bytes) in files {
        to.write_bytes(name, bytes)?;
    }
    write_weights(to, WEIGHTS, model)
}

pub(super) fn write_weights(to: &mut DirWriter, file: &str, model: &Model) -> Result<()> {
    let params: Vec<_> = (model.params().into_iter())
        .map(|p| {
            (
                p.name().to_string(),
                p.shape().to_vec(),
                Array::Here(p.value()),
            )
        })
        .collect();
    write_arrays(to, file, &**model.device(), &params)
}

/// Reads the configuration of a model directory.
///
/// # Errors
/// If it is missing, malformed or impossible.
pub fn read_config(dir: &Path) -> Result<ModelConfig> {
    Ok(read_model_files(dir)?.0)
}

/// The configuration, and the training settings that version 1 kept in the same file.
pub(super) fn read_model_files(dir: &Path) -> Result<(ModelConfig, TrainingSettings)> {
    let path = dir.join(CONFIG);
    let origin = path.display().to_string();
    Ok(ModelConfig::from_json(&read_text(&path)?, &origin)?)
}

/// Loads the model of a directory that has been verified, one array after the other: on a device whose memory is the
/// host's, no second copy of more than one array exists at any time.
///
/// # Errors
/// If files are missing or do not fit together, or memory is short.
pub fn load_model(dir: &Path, device: &Arc<dyn Device>) -> Result<Model> {
    load(dir, device, Weights::Trained, None, None)
}

/// Which weights of a checkpoint are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Those that training changes.
    #[default]
    Trained,
    /// Their moving average.
    Ema,
}

impl Weights {
    /// The checkpoint of a run that was chosen by the held-out loss of these weights.
    #[must_use]
    pub fn best(self) -> Which {
        match self {
            Self::Trained => Which::Best,
            Self::Ema => Which::BestAverage,
        }
    }

    /// The file that holds them in `dir`.
    ///
    /// # Errors
    /// If the checkpoint has no average.
    fn file(self, dir: &Path) -> Result<PathBuf> {
        match self {
            Self::Trained => Ok(dir.join(WEIGHTS)),
            Self::Ema if dir.join(EMA).exists() => Ok(dir.join(EMA)),
            Self::Ema => Err(Error::Damaged {
                path: dir.into(),
                problem: format!(
                    "no average of weights here\n  expected: {EMA}, which a run with ema.decay above 0 writes\n  got:      none"
                ),
                help: "take the trained weights, or train with [ema] decay = 0.99".into(),
            }),
        }
    }
}

/// As [`load_model`], for inference: weights are kept in `format` only, laid out as the device
/// multiplies fastest.
///
/// # Errors
/// As [`load_model`].
pub fn load_for_inference(
    dir: &Path,
    device: &Arc<dyn Device>,
    weights: Weights,
    format: WeightFormat,
) -> Result<Model> {
    load(dir, device, weights, Some(format), None)
}

/// As [`load_model`], with the given weights of a checkpoint.
///
/// # Errors
/// As [`load_model`], and if the checkpoint has no average.
pub fn load_weights(dir: &Path, device: &Arc<dyn Device>, weights: Weights) -> Result<Model> {
    load(dir, device, weights, None, None)
}

/// As [`load_for_inference`], or without a `format` as [`load_model`], for images of another height and width than the model was trained on: learned positions are
/// resampled.
///
/// # Errors
/// As [`load_model`], and if it is a language model or its patches do not cover such images.
pub fn load_at_image_size(
    dir: &Path,
    device: &Arc<dyn Device>,
    weights: Weights,
    format: Option<WeightFormat>,
    size: [usize; 2],
) -> Result<Model> {
    load(dir, device, weights, format, Some(size))
}

fn load(
    dir: &Path,
    device: &Arc<dyn Device>,
    weights: Weights,
    inference: Option<WeightFormat>,
    image_size: Option<[usize; 2]>,
) -> Result<Model> {
    let (stored, training) = read_model_files(dir)?;
    let config = match image_size {
        Some(size) => stored.at_image_size(size)?,
        None => stored.clone(),
    };
    let sizes = stored.input.image().zip(config.input.image());
    let path = weights.file(dir)?;
    let file = SafetensorsFile::open(&path)?;
    let help = "close other programs, or use a smaller model";
    memory::ensure(
        &**device,
        &dir.display().to_string(),
        inference.unwrap_or_default().bytes(config.params()),
        help,
    )?;
    let mut failed = None;
    let mut weights = |path: &ParamPath, shape: &[usize]| {
        let name = &path.to_string();
        let resampled = sizes.filter(|_| path.role == ParamRole::Positions);
        let stored_shape = match resampled {
            Some(_) => &[stored.context, stored.width],
            None => shape,
        };
        let numbers = file
            .expect_shape(name, stored_shape)
            .and_then(|()| file.read_f32(name))
            .and_then(|numbers| file.release(name).map(|()| numbers));
        let numbers = numbers.map(|numbers| match resampled {
            Some((from, to)) => resample::positions(&numbers, config.width, from, to),
            None => numbers,
        });
        numbers.map_err(|error| {
            let reason = error.to_string();
            failed = Some(error);
            tokenformer_core::Error::Tensor {
                name: name.clone(),
                reason,
                expected: shape.into(),
            }
        })
    };
    let built = match inference {
        Some(format) => Model::build_for_inference(device, &config, format, &mut weights),
        None => Model::build(device, &config, &mut weights),
    };
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut model = built?;
    model.set_training(&training);
    Ok(model)
}

/// Reads the arrays of `model` from `file`, one after the other.
///
/// # Errors
/// As [`restore_arrays`](super::restore_arrays).
pub(crate) fn restore_weights(file: &Path, model: &mut Model) -> Result<()> {
    let device = Arc::clone(model.device());
    let file = SafetensorsFile::open(file)?;
    for param in model.each_param_mut() {
        file.expect_shape(param.name(), param.shape())?;
        device.write(&file.read_f32(param.name())?, param.value_mut())?;
        file.release(param.name())?;
    }
    Ok(())
}

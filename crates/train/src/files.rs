//! Model directories and training state on disk. The formats are described in `docs/formats.md`.
//!
//! A model directory holds `config.json`, `model.safetensors`, `tokenizer.json` and `manifest.json`; a
//! checkpoint is a model directory with `optimizer.safetensors` and `state.json`, so every verb that reads a
//! model also reads a checkpoint.
//!
//! What is written and what reads it back, on one rank or several, are kept side by side, so that one cannot change alone.

mod state;

pub use state::{Best, EarlierData, PastGrowth, TrainState, read_state};

use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::memory;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenformer_core::config::TrainingSettings;
use tokenformer_core::device::{Buffer, Collective, Device, DeviceError};
use tokenformer_core::optim::{AdamW, AdamWConfig, Sharding};
use tokenformer_core::param::Param;
use tokenformer_core::path::{ParamPath, ParamRole};
use tokenformer_core::{MESSAGE, Model, ModelConfig, WeightFormat, resample};
use tokenformer_data::Tokenizer;
use tokenformer_store::{DirWriter, Dtype, SafetensorsFile, TensorSource, Which};

/// `config.json`.
pub const CONFIG: &str = "config.json";
/// `model.safetensors`.
pub const WEIGHTS: &str = "model.safetensors";
/// `tokenizer.json`.
pub const TOKENIZER: &str = "tokenizer.json";
/// `optimizer.safetensors`.
pub const MOMENTS: &str = "optimizer.safetensors";
/// `classes.json`.
pub const CLASSES: &str = "classes.json";
/// `preprocess.json`.
pub const PREPROCESS: &str = "preprocess.json";
/// Files of a task next to a model.
const TASK_FILES: [&str; 3] = [TOKENIZER, CLASSES, PREPROCESS];
/// `ema.safetensors`.
pub const EMA: &str = "ema.safetensors";
/// `state.json`.
pub const STATE: &str = "state.json";
/// Kind of a model directory in its manifest.
pub const KIND_MODEL: &str = "model";
/// Kind of a checkpoint in its manifest.
pub const KIND_CHECKPOINT: &str = "checkpoint";

const MAX_JSON_BYTES: u64 = 256 << 20;

/// Numbers that are read from a device at a time.
const CHUNK: usize = 4096;

fn stream(device: &dyn Device, buffer: &Buffer, to: &mut dyn Write) -> std::io::Result<()> {
    let (mut host, mut bytes) = ([0.0f32; CHUNK], [0u8; CHUNK * 4]);
    for start in (0..buffer.len()).step_by(CHUNK) {
        let chunk = &mut host[..CHUNK.min(buffer.len() - start)];
        device
            .read_part(buffer, start, chunk)
            .map_err(std::io::Error::other)?;
        for (to, x) in bytes.chunks_exact_mut(4).zip(chunk.iter()) {
            to.copy_from_slice(&x.to_le_bytes());
        }
        to.write_all(&bytes[..chunk.len() * 4])?;
    }
    Ok(())
}

/// The first array of `model` with a number that is not finite, and that number.
///
/// # Errors
/// If the device fails.
pub fn not_finite(model: &Model) -> Result<Option<(String, f32)>> {
    let mut host = [0.0f32; CHUNK];
    for param in model.params() {
        for start in (0..param.len()).step_by(CHUNK) {
            let chunk = &mut host[..CHUNK.min(param.len() - start)];
            (model.device()).read_part(param.value(), start, chunk)?;
            if let Some(&bad) = chunk.iter().find(|x| !x.is_finite()) {
                return Ok(Some((param.name().into(), bad)));
            }
        }
    }
    Ok(None)
}

/// Where the numbers of an array are.
enum Array<'a> {
    Here(&'a Buffer),
    Ranks(Sharded<'a>),
}

/// An array that one rank keeps.
struct Sharded<'a> {
    ranks: &'a dyn Collective,
    device: &'a dyn Device,
    owner: usize,
    len: usize,
    /// On the owner.
    buffer: &'a Buffer,
}

impl Sharded<'_> {
    /// Brings the array to rank 0, in parts; the ranks do this at the same time.
    fn each_chunk(
        &self,
        take: &mut dyn FnMut(&[f32]) -> std::io::Result<()>,
    ) -> tokenformer_core::device::Result<()> {
        let (rank, world) = (self.ranks.rank(), self.ranks.world());
        for start in (0..self.len).step_by(MESSAGE) {
            let len = MESSAGE.min(self.len - start);
            let mut numbers = Vec::new();
            if rank == self.owner {
                numbers.resize(len, 0.0);
                self.device.read_part(self.buffer, start, &mut numbers)?;
            }
            if self.owner != 0 {
                let lens: Vec<usize> = (0..world)
                    .map(|of| if of == self.owner { len } else { 0 })
                    .collect();
                numbers = self.ranks.begin_gather(0, numbers, &lens)?.wait()?;
            }
            if rank == 0 {
                take(&numbers).map_err(|error| DeviceError::Failed {
                    device: "the checkpoint".into(),
                    operation: "writing moments".into(),
                    reason: error.to_string(),
                })?;
            }
        }
        Ok(())
    }

    fn stream(&self, to: &mut dyn Write) -> std::io::Result<()> {
        let mut write = |numbers: &[f32]| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            to.write_all(&bytes)
        };
        self.each_chunk(&mut write).map_err(std::io::Error::other)
    }
}

/// Writes named arrays as a safetensors file.
fn write_arrays(
    to: &mut DirWriter,
    file: &str,
    device: &dyn Device,
    buffers: &[(String, Vec<usize>, Array<'_>)],
) -> Result<()> {
    type Source<'a> = Box<dyn FnMut(&mut dyn Write) -> std::io::Result<()> + 'a>;
    let mut sources: Vec<Source<'_>> = (buffers.iter())
        .map(|(_, _, buffer)| {
            let source: Source<'_> = Box::new(move |to: &mut dyn Write| match buffer {
                Array::Here(buffer) => stream(device, buffer, to),
                Array::Ranks(sharded) => sharded.stream(to),
            });
            source
        })
        .collect();
    let tensors = buffers
        .iter()
        .zip(&mut sources)
        .map(|((name, shape, _), source)| {
            TensorSource::stream(name.clone(), Dtype::F32, shape, source)
        });
    to.write_tensors(file, &BTreeMap::new(), tensors)?;
    Ok(())
}

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

fn write_network<'f>(
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

fn write_weights(to: &mut DirWriter, file: &str, model: &Model) -> Result<()> {
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

/// All of a run that a checkpoint holds.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    /// The model.
    pub model: &'a Model,
    /// The average of its weights, if there is one.
    pub ema: Option<&'a Ema>,
    /// The optimizer.
    pub optimizer: &'a AdamW,
    /// Everything else.
    pub state: &'a TrainState,
    /// Files of the task, such as the tokenizer, by name.
    pub files: &'a [(&'static str, Vec<u8>)],
    /// The ranks, which may keep the moments of different arrays.
    pub ranks: &'a dyn Collective,
}

/// Writes a whole checkpoint into a directory that is being made.
///
/// # Errors
/// As [`write_model`].
pub fn write_checkpoint(to: &mut DirWriter, now: &Snapshot<'_>) -> Result<()> {
    let Snapshot {
        model,
        ema,
        optimizer,
        state,
        files,
        ..
    } = *now;
    let files = files.iter().map(|(name, bytes)| (*name, bytes.as_slice()));
    write_network(to, model, files)?;
    if let Some(ema) = ema {
        write_weights(to, EMA, ema.model())?;
    }
    let mut moments = Vec::new();
    let mut state = state.clone();
    state.updates.clear();
    state.training = model.training_settings();
    // A frozen parameter has no use for its moments, and a resumed run has none to write.
    for param in model.params().into_iter().filter(|p| p.trainable()) {
        let Some(found) = optimizer.moments(param) else {
            continue;
        };
        state.updates.insert(param.name().into(), found.step);
        for (part, buffer) in [("m", &found.m), ("v", &found.v)] {
            let name = format!("{}.{part}", param.name());
            let array = match !optimizer.is_sharded() {
                true => Array::Here(buffer),
                false => Array::Ranks(sharded(now, param, buffer)),
            };
            moments.push((name, param.shape().to_vec(), array));
        }
    }
    write_arrays(to, MOMENTS, &**model.device(), &moments)?;
    to.write_json(STATE, &state)?;
    Ok(())
}

/// An array of moments that one of the ranks keeps.
fn sharded<'a>(now: &Snapshot<'a>, param: &Param, buffer: &'a Buffer) -> Sharded<'a> {
    Sharded {
        ranks: now.ranks,
        device: &**now.model.device(),
        owner: now.optimizer.owners().of(param.id()),
        len: param.len(),
        buffer,
    }
}

/// Reads all arrays that [`write_checkpoint`] of rank 0 reads at the same time, in the order of the files.
fn read_along(now: &Snapshot<'_>) -> Result<()> {
    let device = &**now.model.device();
    let weights = |model: &'_ Model| -> Result<()> {
        let mut params = model.params();
        params.sort_by(|a, b| a.name().cmp(b.name()));
        for param in params {
            read_whole(device, param.value())?;
        }
        Ok(())
    };
    weights(now.model)?;
    now.ema.map_or(Ok(()), |ema| weights(ema.model()))?;
    let mut moments = Vec::new();
    for param in now.model.params().into_iter().filter(|p| p.trainable()) {
        if let Some(found) = now.optimizer.moments(param) {
            moments.push((format!("{}.m", param.name()), &found.m));
            moments.push((format!("{}.v", param.name()), &found.v));
        }
    }
    moments.sort_by(|a, b| a.0.cmp(&b.0));
    (moments.into_iter()).try_for_each(|(_, buffer)| read_whole(device, buffer))
}

/// Reads an array as [`stream`] does.
fn read_whole(device: &dyn Device, buffer: &Buffer) -> Result<()> {
    let mut host = [0.0f32; CHUNK];
    for start in (0..buffer.len()).step_by(CHUNK) {
        device.read_part(buffer, start, &mut host[..CHUNK.min(buffer.len() - start)])?;
    }
    Ok(())
}

/// Takes part in [`write_checkpoint`] of rank 0: sends it the moments that this rank keeps, in the order of the file.
///
/// # Errors
/// If the device or a connection fails.
pub fn send_checkpoint(now: &Snapshot<'_>) -> Result<()> {
    if now.model.device().token_ranks() > 1 {
        return read_along(now);
    }
    if !now.optimizer.is_sharded() {
        return Ok(());
    }
    let mut arrays = Vec::new();
    for param in now.model.params().into_iter().filter(|p| p.trainable()) {
        let Some(found) = now.optimizer.moments(param) else {
            continue;
        };
        for (part, buffer) in [("m", &found.m), ("v", &found.v)] {
            arrays.push((format!("{}.{part}", param.name()), param, buffer));
        }
    }
    // Arrays of one type lie in a file in the order of their names.
    arrays.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, param, buffer) in arrays {
        sharded(now, param, buffer).each_chunk(&mut |_| Ok(()))?;
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = tokenformer_store::read_small(path, MAX_JSON_BYTES)?;
    String::from_utf8(bytes).map_err(|e| Error::Damaged {
        path: path.into(),
        problem: format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to()),
        help: "restore the file, or use another checkpoint".into(),
    })
}

/// Reads the configuration of a model directory.
///
/// # Errors
/// If it is missing, malformed or impossible.
pub fn read_config(dir: &Path) -> Result<ModelConfig> {
    Ok(read_model_files(dir)?.0)
}

/// The configuration, and the training settings that version 1 kept in the same file.
fn read_model_files(dir: &Path) -> Result<(ModelConfig, TrainingSettings)> {
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

/// Loads the model of a checkpoint with its training settings.
///
/// # Errors
/// As [`load_model`].
pub fn load_for_training(
    dir: &Path,
    device: &Arc<dyn Device>,
    state: &TrainState,
) -> Result<Model> {
    let mut model = load_model(dir, device)?;
    // A checkpoint of version 1 has them in its configuration, and none in its state.
    if !state.training.is_default() {
        model.set_training(&state.training);
    }
    Ok(model)
}

/// Parameters of a checkpoint that training leaves as they are.
///
/// # Errors
/// If files are missing or do not fit together.
pub(crate) fn frozen_params(dir: &Path) -> Result<u64> {
    let (state, (_, stored)) = (read_state(dir)?, read_model_files(dir)?);
    let training = match state.training.is_default() {
        true => stored,
        false => state.training,
    };
    let weights = SafetensorsFile::open(&dir.join(WEIGHTS))?;
    let frozen =
        (training.params.iter()).filter(|(name, param)| !param.trainable && weights.contains(name));
    let len = |name: &String| -> Result<u64> {
        let shape = weights.shape(name)?;
        Ok(shape.iter().map(|&n| n as u64).product())
    };
    frozen.map(|(name, _)| len(name)).sum()
}

/// Reads the files of its task next to a model, by name: the tokenizer, or classes and preprocessing.
///
/// # Errors
/// If one cannot be read.
pub fn task_files(dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let there = TASK_FILES
        .into_iter()
        .filter(|name| dir.join(name).exists());
    there
        .map(|name| {
            let bytes = tokenformer_store::read_small(&dir.join(name), MAX_JSON_BYTES)?;
            Ok((name, bytes))
        })
        .collect()
}

/// Reads the tokenizer of a model directory, as text and as a tokenizer.
///
/// # Errors
/// If it is missing or malformed.
pub fn load_tokenizer(dir: &Path) -> Result<(Vec<u8>, Tokenizer)> {
    let path = dir.join(TOKENIZER);
    if !path.exists() {
        return Err(Error::Damaged {
            path,
            problem: "no such file, so this model has no tokenizer".into(),
            help: "convert the model again, with the tokenizer that it was trained with: tokenformer convert --from CHECKPOINT --to DIR --tokenizer FILE.json"
                .into(),
        });
    }
    let bytes = tokenformer_store::read_small(&path, MAX_JSON_BYTES)?;
    Ok((bytes, Tokenizer::from_file(&path)?))
}

/// Loads the moments of a checkpoint's optimizer.
///
/// # Errors
/// If arrays are missing or have the wrong shape, or memory is short.
pub fn load_optimizer(
    dir: &Path,
    model: &Model,
    config: AdamWConfig,
    state: &TrainState,
    among: Sharding,
) -> Result<AdamW> {
    let mut optimizer = AdamW::among(config, model, among)?;
    read_moments(dir, model, &mut optimizer, state)?;
    Ok(optimizer)
}

/// Brings weights and moments back to what the checkpoint in `dir`, which this model and this optimizer have written,
/// says, one array after the other, so that nothing is in memory twice.
///
/// # Errors
/// If arrays are missing or have the wrong shape, or the device fails.
pub(crate) fn restore_arrays(dir: &Path, model: &mut Model, optimizer: &mut AdamW) -> Result<()> {
    restore_weights(&dir.join(WEIGHTS), model)?;
    read_moments(dir, model, optimizer, &read_state(dir)?)
}

/// Reads the arrays of `model` from `file`, one after the other.
///
/// # Errors
/// As [`restore_arrays`].
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

fn read_moments(
    dir: &Path,
    model: &Model,
    optimizer: &mut AdamW,
    state: &TrainState,
) -> Result<()> {
    let file = SafetensorsFile::open(&dir.join(MOMENTS))?;
    for param in model.params() {
        let Some(&step) = state.updates.get(param.name()) else {
            continue;
        };
        let owns = optimizer.owns(param);
        let Some(moments) = optimizer.moments_mut(param) else {
            continue;
        };
        moments.step = step;
        if !owns {
            continue;
        }
        for (part, buffer) in [("m", &mut moments.m), ("v", &mut moments.v)] {
            let name = format!("{}.{part}", param.name());
            file.expect_shape(&name, param.shape())?;
            model.device().write(&file.read_f32(&name)?, buffer)?;
            file.release(&name)?;
        }
    }
    Ok(())
}

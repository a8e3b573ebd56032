//! What a checkpoint holds beside its model, written by one rank or several and read back.

use super::arrays::{Array, Sharded, read_whole, write_arrays};
use super::model::{load_model, read_model_files, restore_weights, write_network, write_weights};
use super::state::{TrainState, read_state};
use super::{EMA, MOMENTS, STATE, WEIGHTS};
use crate::ema::Ema;
use crate::error::Result;
use std::path::Path;
use std::sync::Arc;
use tokenformer_core::Model;
use tokenformer_core::device::{Buffer, Collective, Device};
use tokenformer_core::optim::{AdamW, AdamWConfig, Sharding};
use tokenformer_core::param::Param;
use tokenformer_store::{DirWriter, SafetensorsFile};

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
/// As [`write_model`](super::write_model).
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

//! Model directories and training state on disk. The formats are described in `docs/formats.md`.
//!
//! A model directory holds `config.json`, `model.safetensors`, `tokenizer.json` and `manifest.json`; a
//! checkpoint is a model directory with `optimizer.safetensors` and `state.json`, so every verb that reads a
//! model also reads a checkpoint.
//!
//! What is written and what reads it back, on one rank or several, are kept side by side, so that one cannot change alone:
//! the model in one file, what a checkpoint holds beside it in another.

mod arrays;
mod checkpoint;
mod model;
mod state;

pub(crate) use arrays::CHUNK;
pub use checkpoint::{
    Snapshot, load_for_training, load_optimizer, send_checkpoint, write_checkpoint,
};
pub(crate) use checkpoint::{frozen_params, restore_arrays};
pub(crate) use model::restore_weights;
pub use model::{
    Weights, load_at_image_size, load_for_inference, load_model, load_weights, read_config,
    write_model, write_model_of_task,
};
pub use state::{Best, EarlierData, PastGrowth, TrainState, read_state};

use crate::error::{Error, Result};
use std::path::Path;
use tokenformer_data::Tokenizer;

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

fn read_text(path: &Path) -> Result<String> {
    let bytes = tokenformer_store::read_small(path, MAX_JSON_BYTES)?;
    String::from_utf8(bytes).map_err(|e| Error::Damaged {
        path: path.into(),
        problem: format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to()),
        help: "restore the file, or use another checkpoint".into(),
    })
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

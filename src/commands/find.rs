//! Finds the model of this program that a path leads to, or the command that makes one from it.

use crate::{shell, usage};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenformer_convert::{has_usual_weights, is_training_folder};
use tokenformer_core::{Device, Model, WeightFormat};
use tokenformer_store::{Checkpoints, Error, MANIFEST_NAME, Resolved, Warning, Which, verify};
use tokenformer_train::Result;
use tokenformer_train::files::{self, Weights};

/// Finds the model that a path means, verifies it, and says what was skipped.
pub fn find_model(path: &Path, which: Which) -> Result<Resolved> {
    let mut warn = |warning: Warning| errln!("warning: {warning}");
    let found = match tokenformer_store::resolve(path, which, &mut warn) {
        Err(error @ Error::NoModel { .. }) => Err(published(path).unwrap_or(error)),
        result => result,
    }?;
    if let Some(error) = published(&found.dir) {
        return Err(error.into());
    }
    if found.manifest.is_none() && found.dir.join(MANIFEST_NAME).exists() {
        verify(&found.dir)?;
    }
    Ok(found)
}

/// Finds, verifies and loads a model for inference.
pub fn load_model(
    path: &Path,
    which: Which,
    device: &Arc<dyn Device>,
    precision: WeightFormat,
) -> Result<(Resolved, Model)> {
    load_weights(path, which, device, Weights::Trained, precision)
}

/// As [`load_model`], of the weights that are meant.
pub fn load_weights(
    path: &Path,
    which: Which,
    device: &Arc<dyn Device>,
    weights: Weights,
    precision: WeightFormat,
) -> Result<(Resolved, Model)> {
    let found = find_model(path, which)?;
    let model = files::load_for_inference(&found.dir, device, weights, precision)?;
    Ok((found, model))
}

/// Refuses a model of images where one that reads text is needed.
pub fn ensure_text(model: &Model) -> Result<()> {
    match model.input().is_tokens() {
        true => Ok(()),
        false => Err(usage(
            "--model",
            "a model that reads text",
            "a model of images",
            "`predict` tells the classes of pictures, and `eval` measures it on a dataset of pictures",
        )),
    }
}

/// The folders that `verify` looks at: one that was published by itself, of a run every checkpoint.
pub fn folders_to_verify(path: &Path) -> Result<Vec<PathBuf>> {
    if path.join(MANIFEST_NAME).exists() {
        return Ok(vec![path.into()]);
    }
    let checkpoints = Checkpoints::open(path).list()?;
    match checkpoints.is_empty() {
        false => Ok(checkpoints.into_iter().map(|(_, dir)| dir).collect()),
        true => Ok(vec![find_model(path, Which::Latest)?.dir]),
    }
}

/// The run that the checkpoint at `dir` lies in.
pub fn run_of(dir: &Path) -> Option<&Path> {
    let folder = dir
        .parent()
        .filter(|folder| folder.ends_with("checkpoints"))?;
    match folder.parent()? {
        run if run.as_os_str().is_empty() => Some(Path::new(".")),
        run => Some(run),
    }
}

/// The command that converts what is at `path`. Of a folder it names the weights if they do not have a usual name.
pub fn convert_command(path: &Path) -> String {
    let weights = main_weights(path).filter(|_| !has_usual_weights(path));
    let from = weights.map_or_else(|| path.into(), |name| path.join(name));
    format!(
        "tokenformer convert --from {} --to {}",
        shell::path(&from),
        shell::path(&free_name(path))
    )
}

/// Says how to convert what is at `path`, if it is a checkpoint with the published names.
fn published(path: &Path) -> Option<Error> {
    let command = convert_command(path);
    let (got, help) = match fs::metadata(path) {
        Ok(found) if found.is_dir() => (published_folder(path)?, command),
        Ok(_) => (published_file(path)?, command),
        Err(_) => {
            let is_name = is_repository(path);
            let help = format!(
                "check the path; if it is the name of a repository on the Hugging Face Hub: {command}"
            );
            (is_name.then(|| "no such folder".to_string())?, help)
        }
    };
    Some(Error::NoModel {
        path: path.into(),
        got,
        help,
    })
}

/// The evidence that a folder is a published checkpoint, or a training folder of the released code.
fn published_folder(dir: &Path) -> Option<String> {
    let names = names_in(dir);
    let config = match read_format(&dir.join(files::CONFIG)) {
        Some(format) if format == "tokenformer" => return None,
        Some(_) => Some(files::CONFIG),
        None => None,
    };
    let yaml = names
        .iter()
        .find(|name| name.ends_with(".yml") || name.ends_with(".yaml"));
    let config = config.or(yaml.map(String::as_str));
    let weights = main_weights(dir);
    let deepspeed = |dir: &Path| {
        let is_step = |entry: fs::DirEntry| {
            let name = entry.file_name();
            name.to_string_lossy().starts_with("global_step")
        };
        is_training_folder(dir)
            || fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(is_step))
    };
    match (weights, config) {
        (Some(weights), Some(config)) => {
            Some(format!("a published checkpoint ({weights} and {config})"))
        }
        // Token data ends in .bin too, and a model of this program that lost its configuration has weights.
        (Some(weights), None) if weights.starts_with("pytorch_model") => {
            Some(format!("a published checkpoint ({weights})"))
        }
        _ if deepspeed(dir) || deepspeed(&dir.join("checkpoints")) => {
            Some("a training folder of the released code".into())
        }
        _ if dir.join("snapshots").is_dir() && dir.join("blobs").is_dir() => {
            Some("a repository in the cache of Hugging Face".into())
        }
        _ => None,
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The file of weights in a folder that looks most like those of the whole model.
fn main_weights(dir: &Path) -> Option<String> {
    let is_usual = |name: &String| name.starts_with("model") || name.starts_with("pytorch_model");
    let names = names_in(dir).into_iter().filter(|name| is_weights(name));
    names.min_by_key(|name| (!is_usual(name), name.clone()))
}

/// The evidence that a file holds published weights.
fn published_file(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let beside = path.with_file_name(files::CONFIG);
    let is_ours = read_format(&beside).is_some_and(|format| format == "tokenformer");
    (is_weights(&name) && !is_ours).then(|| "a file of weights".into())
}

fn is_weights(name: &str) -> bool {
    let ends = [
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".safetensors",
        ".bin.index.json",
        ".safetensors.index.json",
    ];
    ends.iter().any(|end| name.ends_with(end))
}

/// The key `format` of a configuration, empty if it has none; `None` if there is no configuration.
fn read_format(path: &Path) -> Option<String> {
    const MAX_BYTES: u64 = 64 << 20;
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        format: String,
    }
    let bytes = tokenformer_store::read_small(path, MAX_BYTES).ok()?;
    let config: Config = serde_json::from_slice(&bytes).ok()?;
    Some(config.format)
}

/// `OWNER/NAME`, as repositories on the Hugging Face Hub are called, where there is no folder OWNER.
fn is_repository(path: &Path) -> bool {
    let plain = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with(['.', '-']) && part.chars().all(known)
    };
    let parts = path.to_str().and_then(|name| name.split_once('/'));
    parts.is_some_and(|(owner, name)| plain(owner) && plain(name) && !Path::new(owner).exists())
}

/// A new folder in the working directory, named after what will be converted.
fn free_name(path: &Path) -> PathBuf {
    let whole = path.canonicalize().unwrap_or_else(|_| path.into());
    let is_file = whole.is_file();
    let stem = if is_file {
        whole.file_stem()
    } else {
        whole.file_name()
    };
    let stem = stem.unwrap_or_else(|| "model".as_ref());
    let named = |end: String| {
        let mut name = stem.to_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    let numbered = (2..).map(|n| named(format!("-converted-{n}")));
    std::iter::once(named("-converted".into()))
        .chain(numbered)
        .find(|name| !name.exists())
        .unwrap_or_else(|| named("-converted".into()))
}

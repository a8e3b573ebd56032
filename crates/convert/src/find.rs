//! What a path that a person typed leads to: weights, and the files that lie with them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenformer_formats::deepspeed::DeepSpeedFolder;
use tokenformer_store::read_small;

use crate::error::shown;
use crate::{Error, Result};

/// The largest index of a sharded checkpoint that is read.
const MAX_INDEX_BYTES: u64 = 64 << 20;
const MODEL_STATES: &str = "mp_rank_00_model_states.pt";

/// Where weights are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// In `torch.save` archives.
    Torch(Vec<PathBuf>),
    /// In safetensors files.
    Safetensors(Vec<PathBuf>),
    /// In a DeepSpeed training folder.
    DeepSpeed(PathBuf),
}

/// Weights and what lies with them.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) weights: Weights,
    /// Configurations, later ones winning.
    pub(crate) configs: Vec<PathBuf>,
    pub(crate) tokenizer: Option<PathBuf>,
}

/// Looks at a file or folder.
pub(crate) fn find(from: &Path) -> Result<Found> {
    let found = std::fs::metadata(from).map_err(Error::io(from, "look at it"))?;
    if found.is_dir() {
        return in_folder(from);
    }
    let folder = match from.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = from.file_name().unwrap_or_default().to_string_lossy();
    let weights = match name.ends_with(".index.json") {
        true => sharded(from)?,
        false => of_file(from)?,
    };
    Ok(beside(folder, weights))
}

fn in_folder(folder: &Path) -> Result<Found> {
    const INDEXES: [&str; 2] = [
        "model.safetensors.index.json",
        "pytorch_model.bin.index.json",
    ];
    const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
    if is_ours(folder) {
        return Err(Error::NoCheckpoint {
            path: folder.into(),
            got: "a model of this program".into(),
            help:
                "use it as it is, or turn it into a published checkpoint with `tokenformer export`"
                    .into(),
        });
    }
    if let Some(deepspeed) = deepspeed(folder) {
        let checkpoint = DeepSpeedFolder::open(&deepspeed)?.folder().to_path_buf();
        let mut found = beside(folder, Weights::DeepSpeed(deepspeed));
        if found.configs.is_empty() {
            found.configs = yaml_files(&checkpoint.join("configs"))?;
        }
        return Ok(found);
    }
    for name in INDEXES {
        if folder.join(name).is_file() {
            return Ok(beside(folder, sharded(&folder.join(name))?));
        }
    }
    for name in FILES {
        if folder.join(name).is_file() {
            return Ok(beside(folder, of_file(&folder.join(name))?));
        }
    }
    Err(Error::NoCheckpoint {
        path: folder.into(),
        got: "a folder with none of these".into(),
        help: "give the folder that holds model.safetensors, pytorch_model.bin or latest, or the file itself".into(),
    })
}

/// Whether a folder is a model directory, or a run of this program.
fn is_ours(folder: &Path) -> bool {
    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    let config = read_small(&folder.join("config.json"), MAX_INDEX_BYTES);
    let ours = config.is_ok_and(|text| {
        serde_json::from_slice(&text).is_ok_and(|found: Format| found.format == "tokenformer")
    });
    ours || folder.join("config.toml").is_file() && folder.join("checkpoints").is_dir()
}

/// The DeepSpeed folder that `folder` is or holds.
fn deepspeed(folder: &Path) -> Option<PathBuf> {
    let inner = folder.join("checkpoints");
    let is_checkpoint =
        |dir: &Path| dir.join(MODEL_STATES).is_file() || dir.join("latest").is_file();
    match () {
        () if is_checkpoint(folder) => Some(folder.into()),
        () if is_checkpoint(&inner) => Some(inner),
        () => None,
    }
}

fn beside(folder: &Path, weights: Weights) -> Found {
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    Found {
        weights,
        configs: ["config.json", "config.yml"]
            .into_iter()
            .find_map(file)
            .into_iter()
            .collect(),
        tokenizer: file("tokenizer.json"),
    }
}

/// The YAML files of a folder by name; none where there is no folder.
fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list it"))? {
        let path = entry.map_err(Error::io(folder, "list it"))?.path();
        if path
            .extension()
            .is_some_and(|end| end == "yml" || end == "yaml")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// By the first bytes: safetensors begin with the length of their JSON header.
fn of_file(path: &Path) -> Result<Weights> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(9).read_to_end(&mut start))
        .map_err(Error::io(path, "read it"))?;
    let is_safetensors = !start.starts_with(b"PK") && start.get(8) == Some(&b'{')
        || path.extension().is_some_and(|end| end == "safetensors");
    let paths = vec![path.to_path_buf()];
    Ok(match is_safetensors {
        true => Weights::Safetensors(paths),
        false => Weights::Torch(paths),
    })
}

/// The files that the index of a sharded checkpoint names.
fn sharded(index: &Path) -> Result<Weights> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let damaged = |what, got: String| Error::Damaged {
        path: index.into(),
        what,
        expected: "JSON whose weight_map gives each tensor the plain name of a file beside it"
            .into(),
        got,
        help: "the file is damaged or not the index of a checkpoint; copy it again",
    };
    let text = read_small(index, MAX_INDEX_BYTES)?;
    let Index { weight_map } = serde_json::from_slice(&text)
        .map_err(|error| damaged("the index cannot be read", error.to_string()))?;
    let names: BTreeSet<String> = weight_map.into_values().collect();
    let plain = |name: &str| {
        !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
    };
    if let Some(name) = names.iter().find(|name| !plain(name)) {
        return Err(damaged("a file name leads elsewhere", shown(name)));
    }
    let folder = index.parent().unwrap_or(Path::new("."));
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    let Some(first) = paths.first() else {
        return Err(damaged(
            "the index names no file",
            "an empty weight_map".into(),
        ));
    };
    if paths
        .iter()
        .any(|path| path.extension() != first.extension())
    {
        return Err(damaged(
            "files of several kinds",
            format!("{} files", paths.len()),
        ));
    }
    Ok(match of_file(first)? {
        Weights::Safetensors(_) => Weights::Safetensors(paths),
        _ => Weights::Torch(paths),
    })
}

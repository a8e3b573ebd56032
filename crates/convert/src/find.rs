//! Finds the weights at a path, and the files next to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenformer_formats::deepspeed::{DeepSpeedFolder, is_training_folder};
use tokenformer_store::read_small;

use crate::error::shown;
use crate::source::Source;
use crate::weights::Weights;
use crate::{Error, Result};

/// Size limit of the index of a sharded checkpoint.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Weights and the files next to them.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) weights: Weights,
    /// Configurations; later ones override earlier ones.
    pub(crate) configs: Vec<PathBuf>,
    pub(crate) tokenizer: Option<PathBuf>,
}

/// Looks at a file or folder.
pub(crate) fn find(from: &Path) -> Result<Found> {
    let found = std::fs::metadata(from).map_err(Error::io("look at it", from))?;
    if found.is_dir() {
        return in_folder(&snapshot(from)?);
    }
    let folder = match from.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = from.file_name().unwrap_or_default().to_string_lossy();
    if is_part_of_deepspeed(&name) {
        // The most precise weights are in several files.
        let mut found = in_folder(folder)?;
        if found.configs.is_empty() {
            found.configs = beside(&folder.join(".."), found.weights.clone()).configs;
        }
        return Ok(found);
    }
    let weights = match name.ends_with(".index.json") {
        true => sharded(from)?,
        false => of_file(from)?,
    };
    Ok(beside(folder, weights))
}

/// Names of the index of sharded weights.
const INDEXES: [&str; 2] = [
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
];
/// Names of weights in one file.
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Whether [`convert`](crate::convert()) takes a folder of weights as it is; from another one it takes a file that is named.
pub fn has_usual_weights(folder: &Path) -> bool {
    let mut names = INDEXES.into_iter().chain(FILES);
    is_training_folder(folder)
        || is_training_folder(&folder.join("checkpoints"))
        || names.any(|name| folder.join(name).is_file())
        || has_steps(folder)
}

fn in_folder(folder: &Path) -> Result<Found> {
    if is_ours(folder) {
        return Err(Error::NoCheckpoint {
            path: folder.into(),
            got: "a model of this program".into(),
            help:
                "use it as it is, or turn it into a published checkpoint with `tokenformer export`"
                    .into(),
        });
    }
    for inner in [folder, &folder.join("checkpoints")] {
        if is_training_folder(inner) {
            return in_deepspeed(folder, inner);
        }
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
    if has_steps(folder) {
        return in_deepspeed(folder, folder);
    }
    if folder.join(".metadata").is_file() {
        return Err(Error::NoCheckpoint {
            path: folder.into(),
            got: "a folder of torch.distributed.checkpoint (.metadata), whose tensors are in parts".into(),
            help: "join them first: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt, and \
                   give that file"
                .into(),
        });
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

/// The weights of the DeepSpeed folder `deepspeed`, which is `folder` or inside it. A running training can name a newer
/// checkpoint there at any moment, so the checkpoint is resolved only once.
fn in_deepspeed(folder: &Path, deepspeed: &Path) -> Result<Found> {
    let checkpoint = DeepSpeedFolder::open(deepspeed)?.folder().to_path_buf();
    let mut found = beside(folder, Weights::DeepSpeed(checkpoint.clone()));
    if found.configs.is_empty() {
        found.configs = yaml_files(&checkpoint.join("configs"))?;
    }
    Ok(found)
}

/// Whether a folder holds DeepSpeed checkpoints but no file that says which of them is the newest.
fn has_steps(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut steps = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("global_step")
    });
    steps.any(|entry| is_training_folder(&entry.path()))
}

/// Whether a file name is that of a part of a DeepSpeed checkpoint.
fn is_part_of_deepspeed(name: &str) -> bool {
    name.ends_with("_model_states.pt")
        || name.ends_with("-model_states.pt")
        || name.ends_with("_optim_states.pt")
}

/// The folder with the files, where `folder` is that of a repository in the Hugging Face cache: `snapshots/REVISION/`
/// has links to the files in `blobs/`, and `refs/main` names the newest revision.
fn snapshot(folder: &Path) -> Result<PathBuf> {
    const MAX_NAME_BYTES: u64 = 255;
    let snapshots = folder.join("snapshots");
    if !snapshots.is_dir() || !folder.join("blobs").is_dir() {
        return Ok(folder.into());
    }
    let newest = folder.join("refs").join("main");
    if newest.is_file() {
        let name = read_small(&newest, MAX_NAME_BYTES)?;
        let name = String::from_utf8_lossy(&name).trim().to_string();
        let revision = snapshots.join(&name);
        return match is_plain(&name) && revision.is_dir() {
            true => Ok(revision),
            false => Err(Error::Damaged {
                path: newest,
                what: "the file names no revision that is there",
                expected: format!("the name of a folder in {}", snapshots.display()),
                got: shown(&name),
                help: "give the folder of one revision in snapshots, or download it again",
            }),
        };
    }
    let entries = std::fs::read_dir(&snapshots).map_err(Error::io("list it", &snapshots))?;
    let revisions: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    match &revisions[..] {
        [one] => Ok(one.clone()),
        all => Err(Error::NoCheckpoint {
            path: snapshots,
            got: format!(
                "{} revisions, and no refs/main that says which is the newest",
                all.len()
            ),
            help: "give the folder of one revision".into(),
        }),
    }
}

/// Whether a name that comes from a file is a plain file name, which cannot lead out of its folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
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

/// The YAML files of a folder, sorted by name; none if the folder does not exist.
fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list it", folder))? {
        let path = entry.map_err(Error::io("list it", folder))?.path();
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

/// Detects the format from the first bytes: safetensors files begin with the length of their JSON header.
fn of_file(path: &Path) -> Result<Weights> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(9).read_to_end(&mut start))
        .map_err(Error::io("read it", path))?;
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
        #[serde(deserialize_with = "tokenformer_store::unique_strings")]
        weight_map: BTreeMap<String, String>,
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
    let names: BTreeSet<&String> = weight_map.values().collect();
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
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
    let weights = match of_file(first)? {
        Weights::Safetensors(_) => Weights::Safetensors(paths),
        _ => Weights::Torch(paths),
    };
    let source = Source::open(&weights)?;
    for (tensor, file) in &weight_map {
        let path = folder.join(file);
        if (0..source.files(tensor)).all(|nth| source.file(tensor, nth) != path) {
            return Err(Error::Damaged {
                path: index.into(),
                what: "the index and the files do not belong together",
                expected: format!("{} in {}", shown(tensor), shown(file)),
                got: match source.files(tensor) {
                    0 => "no such tensor in any of the files".into(),
                    _ => format!("it in {}", source.file(tensor, 0).display()),
                },
                help: "copy all of them again",
            });
        }
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoint_of_a_training_folder_is_chosen_once() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/deepspeed");
        let found = find(&folder).unwrap();
        assert_eq!(
            found.weights,
            Weights::DeepSpeed(folder.join("global_step3"))
        );
    }
}

//! Finds the files of a training folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{STATES, damaged};
use crate::error::shown;
use crate::{Error, Result, file};

const SHARD_END: &str = "_mp_rank_00_optim_states.pt";

/// How the weights of a checkpoint are stored in its folder.
enum Layout {
    /// The module is in one file, possibly with slices of the 32-bit weights next to it.
    Module,
    /// All weights are in slices (ZeRO stage 3).
    Stage3,
    /// One file per layer.
    Pipeline,
    /// One folder per parameter.
    Universal,
}

impl Layout {
    /// The layout of a folder; `None` if it has no checkpoint.
    fn of(folder: &Path) -> Option<Layout> {
        let names = names(folder);
        let has = |start: &str, end: &str| {
            (names.iter()).any(|name| name.starts_with(start) && name.ends_with(end))
        };
        let is_parameter = |name: &String| folder.join("zero").join(name).join("fp32.pt").is_file();
        match () {
            () if self::names(&folder.join("zero")).iter().any(is_parameter) => {
                Some(Layout::Universal)
            }
            () if has("layer_", "-model_states.pt") => Some(Layout::Pipeline),
            () if has(STATES, "") => Some(Layout::Module),
            () if has("zero_pp_rank_", "_model_states.pt") => Some(Layout::Stage3),
            () => None,
        }
    }

    /// The name of an unsupported layout and advice for the user.
    fn refusal(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Layout::Module => None,
            Layout::Stage3 => Some((
                "the weights were split by ZeRO stage 3",
                "merge them first with the zero_to_fp32.py that lies beside the checkpoint: \
                 python zero_to_fp32.py . pytorch_model.bin, and give that file",
            )),
            Layout::Pipeline => Some((
                "a pipeline checkpoint: each layer has a file of its own (layer_NN-model_MM-model_states.pt)",
                "merge the files into one state dict in PyTorch, with the number of the layer before each name \
                 (sequential.NN.), and give the file that torch.save makes of it",
            )),
            Layout::Universal => Some((
                "a universal checkpoint: each parameter has a folder of its own (zero/NAME/fp32.pt)",
                "give the checkpoint that ds_to_universal.py made it from; or make one state dict of the files in \
                 PyTorch, {NAME: torch.load(FILE)[\"param\"]}, and give the file that torch.save makes of it",
            )),
        }
    }
}

/// The names in a folder; none if the folder does not exist.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Whether a folder is a checkpoint of DeepSpeed, supported or not, or names its newest checkpoint.
pub fn is_training_folder(path: &Path) -> bool {
    LATEST.iter().any(|name| path.join(name).is_file()) || Layout::of(path).is_some()
}

/// Files that name the newest checkpoint.
const LATEST: [&str; 2] = ["latest", "latest_universal"];

/// The folder of one checkpoint: the given one, the one that its `latest` names, or the only one in it.
///
/// # Errors
/// When there is none, or its layout is not supported.
pub(super) fn checkpoint_folder(path: &Path) -> Result<PathBuf> {
    let folder = match (Layout::of(path), named(path)?) {
        (Some(_), _) => path.into(),
        (None, Some(folder)) => folder,
        (None, None) => only(path)?,
    };
    match Layout::of(&folder).and_then(|layout| layout.refusal()) {
        None => Ok(folder),
        Some((what, help)) => Err(Error::Unsupported {
            location: folder.display().to_string(),
            what: what.into(),
            help,
        }),
    }
}

/// The folder that a file `latest` names.
fn named(path: &Path) -> Result<Option<PathBuf>> {
    let mut latest = LATEST.iter().map(|name| path.join(name));
    let Some(latest) = latest.find(|latest| latest.is_file()) else {
        return Ok(None);
    };
    const MAX_TAG_BYTES: u64 = 255;
    let bytes = file::read_small(&latest, MAX_TAG_BYTES)?;
    let tag = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    let plain = !tag.is_empty() && !tag.starts_with('.') && !tag.contains(['/', '\\', ':', '\0']);
    if !plain {
        return Err(damaged(
            &latest,
            "the file names no folder".into(),
            "a name such as global_step600000",
            shown(&String::from_utf8_lossy(&bytes)),
        ));
    }
    let folder = path.join(tag);
    if !folder.is_dir() {
        return Err(Error::Unsupported {
            location: latest.display().to_string(),
            what: format!(
                "it names {}, which is not there; {}",
                shown(tag),
                listed(&checkpoints(path))
            ),
            help: "give the folder of one checkpoint",
        });
    }
    Ok(Some(folder))
}

/// The only checkpoint in a folder that does not say which is the newest.
fn only(path: &Path) -> Result<PathBuf> {
    let found = checkpoints(path);
    if let [name] = &found[..] {
        return Ok(path.join(name));
    }
    Err(Error::Unsupported {
        location: path.display().to_string(),
        what: format!(
            "not a DeepSpeed checkpoint: neither {STATES} nor latest is there; {}",
            listed(&found)
        ),
        help: "give the folder that holds the file latest, or one global_step folder in it",
    })
}

/// Folders in a folder that hold a checkpoint, by name.
fn checkpoints(path: &Path) -> Vec<String> {
    let mut found = names(path);
    found.retain(|name| name.starts_with("global_step") && Layout::of(&path.join(name)).is_some());
    found.sort_unstable();
    found
}

fn listed(checkpoints: &[String]) -> String {
    const SHOWN: usize = 4;
    let first = checkpoints.iter().take(SHOWN).map(|name| shown(name));
    let first: Vec<String> = first.collect();
    match checkpoints.len() {
        0 => "no other checkpoint is there".into(),
        count if count > SHOWN => {
            format!("there are {} and {} more", first.join(", "), count - SHOWN)
        }
        _ => format!("there is {}", first.join(", ")),
    }
}

/// The files with slices, indexed by rank.
pub(super) fn shards(folder: &Path) -> Result<BTreeMap<usize, PathBuf>> {
    let mut shards = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list it", folder))? {
        let path = entry.map_err(Error::io("list it", folder))?.path();
        let rank = path
            .file_name()
            .and_then(|name| name.to_str())
            .map(|name| name.strip_prefix("bf16_").unwrap_or(name))
            .and_then(|name| name.strip_prefix("zero_pp_rank_")?.strip_suffix(SHARD_END))
            .and_then(|rank| rank.parse().ok());
        let Some(rank) = rank else { continue };
        if let Some(other) = shards.insert(rank, path) {
            return Err(damaged(
                &other,
                format!("two files belong to rank {rank}"),
                "one file per rank",
                "files of several checkpoints in one folder".into(),
            ));
        }
    }
    Ok(shards)
}

//! Which files a folder has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{STATES, damaged};
use crate::error::shown;
use crate::{Error, Result, file};

const SHARD_END: &str = "_mp_rank_00_optim_states.pt";

/// The folder of one checkpoint: the one that was given, or the one that its `latest` names.
pub(super) fn checkpoint_folder(path: &Path) -> Result<PathBuf> {
    if path.join(STATES).is_file() {
        return Ok(path.into());
    }
    let latest = path.join("latest");
    if !latest.is_file() {
        return Err(Error::Unsupported {
            location: path.display().to_string(),
            what: format!("not a DeepSpeed checkpoint: neither {STATES} nor latest is there"),
            help: "give the folder that holds the file latest, or one global_step folder in it",
        });
    }
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
    Ok(path.join(tag))
}

/// The files with slices, by rank.
pub(super) fn shards(folder: &Path) -> Result<BTreeMap<usize, PathBuf>> {
    let mut shards = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list it"))? {
        let path = entry.map_err(Error::io(folder, "list it"))?.path();
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

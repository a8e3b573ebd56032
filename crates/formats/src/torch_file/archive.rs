//! The archive of a file: its memory map, its storages and its pickle.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::recognise::other_format;
use crate::error::shown;
use crate::pickle::Pickle;
use crate::{Error, Result, file, zip};

/// Memory that even a small file may take.
const SMALL_FILE_BYTES: usize = 16 << 20;

pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    pub(crate) map: Mmap,
    /// The range of each storage in `map`.
    pub(super) storages: HashMap<String, Range<usize>>,
    pub(crate) pickle: Pickle,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Archive> {
        let map = file::map(path)?;
        let location = path.display().to_string();
        if let Some(error) = other_format(&location, &map) {
            return Err(error);
        }
        let entries = zip::entries(&location, &map)?;
        let root = root(&location, &entries)?;
        let mut storages = HashMap::new();
        let mut pickle = None;
        for entry in &entries {
            let Some(name) = entry.name.strip_prefix(&root) else {
                continue;
            };
            if let Some(key) = name.strip_prefix("data/") {
                storages.insert(key.to_string(), entry.range.clone());
            } else if name == "data.pkl" {
                pickle = map.get(entry.range.clone());
            } else if name == "byteorder" && map.get(entry.range.clone()) != Some(b"little") {
                return Err(Error::Unsupported {
                    location,
                    what: "the file was saved on a big-endian machine, or names no byte order"
                        .into(),
                    help: "load and save it again with PyTorch on a common computer",
                });
            }
        }
        let budget_bytes = total_budget_bytes(&map);
        let pickle = Pickle::read(
            &format!("{location}, {root}data.pkl"),
            pickle.unwrap_or_default(),
            budget_bytes,
        )?;
        Ok(Archive {
            path: path.to_path_buf(),
            map,
            storages,
            pickle,
        })
    }

    /// Memory that listing the tensors may take: the budget that the pickle has left.
    pub(crate) fn budget_bytes(&self) -> usize {
        total_budget_bytes(&self.map).saturating_sub(self.pickle.spent_bytes)
    }

    /// Bytes of the map; empty for a range that no checked tensor has.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.map.get(range).unwrap_or_default()
    }

    pub(crate) fn damaged(&self, what: String, expected: String, got: String) -> Error {
        Error::Damaged {
            location: self.path.display().to_string(),
            what,
            expected,
            got,
            help: "the file is damaged or not a checkpoint; copy or save it again",
        }
    }
}

/// The memory budget of the file, for its pickle and the listing of its tensors together.
fn total_budget_bytes(map: &Mmap) -> usize {
    map.len().saturating_mul(2).saturating_add(SMALL_FILE_BYTES)
}

/// The folder, with its slash, that contains all entries.
fn root(location: &str, entries: &[zip::Entry]) -> Result<String> {
    let mut roots = entries
        .iter()
        .filter_map(|entry| entry.name.strip_suffix("data.pkl"));
    let damaged = |got: String| Error::Damaged {
        location: location.into(),
        what: "not a torch.save archive".into(),
        expected: "one entry FOLDER/data.pkl".into(),
        got,
        help: "if this is an ordinary ZIP file that holds a checkpoint, unpack it first",
    };
    match (roots.next(), roots.next()) {
        (Some(root), None) if root.ends_with('/') => {
            if entries
                .iter()
                .any(|entry| entry.name.strip_prefix(root) == Some("constants.pkl"))
            {
                return Err(Error::Unsupported {
                    location: location.into(),
                    what: "a TorchScript archive, which holds a program".into(),
                    help: "save the state dict instead: torch.save(model.state_dict(), path)",
                });
            }
            Ok(root.into())
        }
        (Some(_), Some(_)) => Err(damaged("several entries that end in data.pkl".into())),
        _ => Err(damaged(match entries.first() {
            Some(first) => format!(
                "{} entries, the first {}",
                entries.len(),
                shown(&first.name)
            ),
            None => "no entries".into(),
        })),
    }
}

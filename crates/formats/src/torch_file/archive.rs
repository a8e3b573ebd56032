//! The archive of a file: its memory map, its storages and its pickle.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

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
    /// In the order of the file.
    storages: Vec<Storage>,
    /// The index of each storage, by its key.
    keys: HashMap<String, usize>,
    pub(crate) pickle: Pickle,
}

/// The numbers of tensors, of which each is a view.
struct Storage {
    range: Range<usize>,
    crc: u32,
    /// Whether the bytes have this checksum; known once it was asked for.
    is_intact: OnceLock<bool>,
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
        let mut storages = Vec::new();
        let mut pickle = None;
        for entry in &entries {
            let Some(name) = entry.name.strip_prefix(&root) else {
                continue;
            };
            if let Some(key) = name.strip_prefix("data/") {
                let storage = Storage {
                    range: entry.range.clone(),
                    crc: entry.crc,
                    is_intact: OnceLock::new(),
                };
                storages.push((key.to_string(), storage));
            } else if name == "data.pkl" {
                if !has_checksum(&map, &entry.range, entry.crc) {
                    return Err(changed(&location, "data.pkl", entry.crc));
                }
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
        storages.sort_unstable_by_key(|(_, storage)| storage.range.start);
        let (keys, storages): (Vec<String>, Vec<Storage>) = storages.into_iter().unzip();
        Ok(Archive {
            path: path.to_path_buf(),
            map,
            storages,
            keys: keys.into_iter().zip(0..).collect(),
            pickle,
        })
    }

    /// The range of a storage in the map.
    pub(super) fn storage(&self, key: &str) -> Option<Range<usize>> {
        let storage = self.storages.get(*self.keys.get(key)?)?;
        Some(storage.range.clone())
    }

    /// Returns an error if the storage that a range lies in does not have the checksum that was saved with it. All of it is
    /// read for that, once.
    pub(super) fn check(&self, range: &Range<usize>) -> Result<()> {
        let after = (self.storages).partition_point(|storage| storage.range.start <= range.start);
        let Some((at, storage)) = (after.checked_sub(1))
            .and_then(|at| Some((at, self.storages.get(at)?)))
            .filter(|_| !range.is_empty())
        else {
            return Ok(());
        };
        let is_intact = (storage.is_intact)
            .get_or_init(|| has_checksum(&self.map, &storage.range, storage.crc));
        if *is_intact {
            return Ok(());
        }
        let key = self.keys.iter().find(|&(_, &index)| index == at);
        let entry = format!("data/{}", key.map_or("", |(key, _)| key));
        Err(changed(
            &self.path.display().to_string(),
            &entry,
            storage.crc,
        ))
    }

    /// Releases the memory pages of a range that was read.
    pub(super) fn release(&self, range: &Range<usize>) {
        file::release(&self.map, range);
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

/// Whether the bytes of an entry have its checksum. PyTorch saves 0 where it computes none: with
/// `torch.serialization.set_crc32_options(False)`, and for storages that are filled later.
fn has_checksum(map: &Mmap, range: &Range<usize>, crc: u32) -> bool {
    const STEP_BYTES: usize = 16 << 20;
    if crc == 0 {
        return true;
    }
    let mut found = crc32fast::Hasher::new();
    for start in range.clone().step_by(STEP_BYTES) {
        let step = start..range.end.min(start + STEP_BYTES);
        found.update(map.get(step.clone()).unwrap_or_default());
        file::release(map, &step);
    }
    found.finalize() == crc
}

/// The error for an entry whose bytes have another checksum.
fn changed(location: &str, entry: &str, crc: u32) -> Error {
    Error::Damaged {
        location: location.into(),
        what: format!("the entry {} is not as it was saved", shown(entry)),
        expected: format!("the checksum {crc:08x}"),
        got: "another one".into(),
        help: "the file is damaged; copy it again. If a program has changed it in place, load it with PyTorch and save it \
               again",
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

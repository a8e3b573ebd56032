//! The output folder, which is locked at the start and filled at the end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Summary;
use crate::error::{Error, Result};
use crate::file_names;
use crate::tokenizer::Tokenizer;
use crate::tokens::{PARTIAL_PREFIX, Written, create_beside, publish};

/// A folder that may be written to.
pub(super) struct Folder {
    path: PathBuf,
    /// Whether this call made the folder, which is then removed on failure.
    is_ours: bool,
    /// The lock is held while this value lives.
    _lock: File,
}

impl Folder {
    /// Creates the folder or checks that it may be used: it must be empty except for files of a killed call or, with
    /// `force`, a dataset.
    pub(super) fn claim(path: &Path, force: bool) -> Result<Self> {
        let folder = |is_ours| {
            Ok(Self {
                path: path.to_owned(),
                is_ours,
                _lock: lock(path)?,
            })
        };
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path).map_err(Error::io("create the folder", path))?;
                return folder(true);
            }
            entries => entries.map_err(Error::io("use as a folder", path))?,
        };
        let mut leftovers = Vec::new();
        let mut is_ours = false;
        for entry in entries {
            let entry = entry.map_err(Error::io("read", path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_leftover = name.starts_with(PARTIAL_PREFIX);
            let is_dataset = file_names::ALL.contains(&name.as_str());
            if !(is_leftover || force && is_dataset) {
                return Err(Error::OutputNotEmpty {
                    path: path.to_owned(),
                    found: name,
                    help: match is_dataset {
                        true => "choose another --out, or replace the dataset with --force",
                        false => "choose another --out; --force replaces a dataset, nothing else",
                    },
                });
            }
            is_ours |= is_leftover;
            if is_leftover && !file_names::UNFINISHED.contains(&name.as_str()) {
                leftovers.push(entry.path());
            }
        }
        // The folder may also hold a dataset, which must stay if the new one fails.
        let is_ours = is_ours && !path.join(file_names::DATASET).exists();
        let claimed = folder(is_ours)?;
        for leftover in leftovers {
            fs::remove_file(&leftover).map_err(Error::io("remove", &leftover))?;
        }
        Ok(claimed)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames all files to their final names. An old `dataset.json` is removed first and the new one is renamed last,
    /// so that files of two datasets are never taken for one.
    pub(super) fn publish(
        mut self,
        tokens: [Written; 2],
        tokenizer: &Tokenizer,
        summary: &Summary,
    ) -> Result<()> {
        let dataset = self.path.join(file_names::DATASET);
        let tokenizer_path = self.path.join(file_names::TOKENIZER);
        let mut json = serde_json::to_vec_pretty(summary)
            .map_err(|error| Error::io("write", &dataset)(error.into()))?;
        json.push(b'\n');
        let json = self.write_beside(&dataset, &json)?;
        let tokenizer = self.write_beside(&tokenizer_path, tokenizer.json())?;
        self.is_ours = false;
        match fs::remove_file(&dataset) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("replace", &dataset)(error));
            }
            _ => {}
        }
        for file in tokens {
            file.publish()?;
        }
        publish(tokenizer, &tokenizer_path)?;
        publish(json, &dataset)
    }

    fn write_beside(&self, path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
        let write = || {
            let mut file = create_beside(&self.path)?;
            file.write_all(bytes)?;
            Ok(file)
        };
        write().map_err(Error::io("write", path))
    }
}

/// Prevents other processes from working in the same folder at the same time.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(file_names::LOCK);
    let file = File::create(&path).map_err(Error::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::OutputNotEmpty {
            path: folder.to_owned(),
            found: "a dataset that another program is making".to_owned(),
            help: "wait until it has ended, or choose another --out",
        }),
        // Not every file system has locks; without one, only this safeguard is missing.
        Err(fs::TryLockError::Error(_)) => Ok(file),
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path.join(file_names::LOCK));
        if self.is_ours {
            // This succeeds only on an empty folder. Its error is ignored, because the original one matters more.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

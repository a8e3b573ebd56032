//! Finds the files behind the named paths, in a fixed order and each file once.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::own;
use crate::error::{Error, Result};

/// One file to read.
#[derive(Debug)]
pub(super) struct InputFile {
    pub path: PathBuf,
    /// Whether the user named the file, which must then hold text; files found in a folder may be skipped.
    pub is_named: bool,
}

/// One named path with the files that it leads to.
#[derive(Debug)]
pub(super) struct Input {
    pub path: PathBuf,
    pub is_folder: bool,
    pub files: Vec<InputFile>,
    /// Files and folders under this path that had been reached through another name before.
    pub repeats: u64,
}

/// A file or folder inside an input that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its path.
    pub path: PathBuf,
    /// What it is, such as "a dataset".
    pub what: &'static str,
}

/// The identity of a file, independent of its name.
#[cfg(unix)]
#[derive(Debug, PartialEq, Eq, Hash)]
struct FileId(u64, u64);

#[cfg(unix)]
impl FileId {
    fn of(_: &Path, metadata: &Metadata) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}

#[cfg(not(unix))]
#[derive(Debug, PartialEq, Eq, Hash)]
struct FileId(PathBuf);

#[cfg(not(unix))]
impl FileId {
    fn of(path: &Path, _: &Metadata) -> std::io::Result<Self> {
        fs::canonicalize(path).map(Self)
    }
}

/// Looks for the files of all inputs.
#[derive(Debug, Default)]
pub(super) struct Walk {
    seen: HashSet<FileId>,
    unwanted: HashSet<FileId>,
    /// Links whose target is missing or is a parent folder.
    pub skipped_links: u64,
    pub left_out: Vec<LeftOut>,
}

impl Walk {
    /// Files and folders at `unwanted` are skipped inside folders; those that do not exist are ignored.
    pub(super) fn new(unwanted: &[PathBuf]) -> Self {
        let id = |path: &PathBuf| FileId::of(path, &fs::metadata(path).ok()?).ok();
        Self {
            unwanted: unwanted.iter().filter_map(id).collect(),
            ..Self::default()
        }
    }

    /// Finds the files that `path` leads to.
    pub(super) fn expand(&mut self, path: &Path) -> Result<Input> {
        let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
        let mut input = Input {
            path: path.to_owned(),
            is_folder: metadata.is_dir(),
            files: Vec::new(),
            repeats: 0,
        };
        if metadata.is_file() {
            match self.is_new(path, &metadata)? {
                true => input.files.push(InputFile {
                    path: path.to_owned(),
                    is_named: true,
                }),
                false => input.repeats += 1,
            }
            return Ok(input);
        }
        if !metadata.is_dir() {
            return Err(Error::NotAFile {
                path: path.to_owned(),
            });
        }
        if let Some(what) = self.unwanted_kind(path, &metadata)? {
            return Err(Error::OwnOutput {
                path: path.to_owned(),
                what,
            });
        }
        self.expand_folder(&mut input)?;
        Ok(input)
    }

    fn expand_folder(&mut self, input: &mut Input) -> Result<()> {
        let mut entries = WalkDir::new(&input.path)
            .follow_links(true)
            .sort_by_file_name()
            .into_iter();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if error.loop_ancestor().is_some() || is_dangling_link(&error) => {
                    self.skipped_links += 1;
                    continue;
                }
                Err(error) => return Err(walk_error(&input.path, error)),
            };
            let is_folder = entry.file_type().is_dir();
            let is_wanted = self.is_wanted(&entry, input)?;
            if is_folder && !is_wanted {
                entries.skip_current_dir();
            } else if is_wanted && entry.file_type().is_file() {
                input.files.push(InputFile {
                    path: entry.into_path(),
                    is_named: false,
                });
            }
        }
        Ok(())
    }

    /// Whether to enter a folder or read a file.
    fn is_wanted(&mut self, entry: &DirEntry, input: &mut Input) -> Result<bool> {
        let is_inside = entry.depth() > 0;
        if is_inside && (is_hidden(entry) || is_store_of_links(entry)) {
            return Ok(false);
        }
        let path = entry.path();
        let metadata = entry.metadata().map_err(|error| walk_error(path, error))?;
        if is_inside && let Some(what) = self.unwanted_kind(path, &metadata)? {
            self.left_out.push(LeftOut {
                path: path.to_owned(),
                what,
            });
            return Ok(false);
        }
        let is_new = self.is_new(path, &metadata)?;
        input.repeats += u64::from(!is_new);
        Ok(is_new)
    }

    fn unwanted_kind(&self, path: &Path, metadata: &Metadata) -> Result<Option<&'static str>> {
        if metadata.is_dir()
            && let Some(kind) = own::kind(path)
        {
            return Ok(Some(kind));
        }
        let id = FileId::of(path, metadata).map_err(Error::io("read", path))?;
        let what = match metadata.is_dir() {
            true => "the folder to be written",
            false => "the tokenizer",
        };
        Ok(self.unwanted.contains(&id).then_some(what))
    }

    fn is_new(&mut self, path: &Path, metadata: &Metadata) -> Result<bool> {
        let id = FileId::of(path, metadata).map_err(Error::io("read", path))?;
        Ok(self.seen.insert(id))
    }
}

fn walk_error(path: &Path, error: walkdir::Error) -> Error {
    let path = error.path().unwrap_or(path).to_owned();
    Error::Io {
        action: "read",
        path,
        source: error.into(),
    }
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// The cache of the Hugging Face tools keeps contents under their hashes in `blobs` and revisions in `refs`; the files
/// with their names are links in `snapshots`.
fn is_store_of_links(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let Some(folder) = entry.path().parent() else {
        return false;
    };
    entry.file_type().is_dir()
        && (name == "blobs" || name == "refs")
        && ["blobs", "refs", "snapshots"]
            .iter()
            .all(|part| folder.join(part).is_dir())
}

fn is_dangling_link(error: &walkdir::Error) -> bool {
    error
        .path()
        .is_some_and(|path| path.is_symlink() && fs::metadata(path).is_err())
}

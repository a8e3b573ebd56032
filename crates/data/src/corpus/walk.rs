//! From named paths to files, in a fixed order.

use std::fs;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::error::{Error, Result};

/// One file to read.
#[derive(Debug)]
pub(super) struct InputFile {
    pub path: PathBuf,
    /// Named by the user, so that it must hold text; files met in a folder may be skipped.
    pub is_named: bool,
}

/// One named path with the files behind it.
#[derive(Debug)]
pub(super) struct Input {
    pub path: PathBuf,
    pub is_folder: bool,
    pub files: Vec<InputFile>,
}

/// The files behind `path`; links that lead nowhere or in a circle are counted, not followed.
pub(super) fn expand(path: &Path, skipped_links: &mut u64) -> Result<Input> {
    let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
    if metadata.is_file() {
        let file = InputFile {
            path: path.to_owned(),
            is_named: true,
        };
        return Ok(Input {
            path: path.to_owned(),
            is_folder: false,
            files: vec![file],
        });
    }
    if !metadata.is_dir() {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut files = Vec::new();
    let entries = WalkDir::new(path)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry));
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_file() => files.push(InputFile {
                path: entry.into_path(),
                is_named: false,
            }),
            Ok(_) => {}
            Err(error) if error.loop_ancestor().is_some() || is_dangling_link(&error) => {
                *skipped_links += 1;
            }
            Err(error) => {
                let path = error.path().unwrap_or(path).to_owned();
                return Err(Error::Io {
                    action: "read",
                    path,
                    source: error.into(),
                });
            }
        }
    }
    Ok(Input {
        path: path.to_owned(),
        is_folder: true,
        files,
    })
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn is_dangling_link(error: &walkdir::Error) -> bool {
    error
        .path()
        .is_some_and(|path| path.is_symlink() && fs::metadata(path).is_err())
}

//! Writing of files and folders, with this crate's errors.

use crate::{Error, Result};
use std::io::Write;
use std::path::Path;
use tokenformer_base::files::{parent, publish, stage};

/// Replaces the file at `path`: a reader sees the old content or the new one, never a part.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    // The name shares nothing with the target's: tools that match a part of the name must not find it.
    let written = stage(parent(path), ".tokenformer-").and_then(|mut file| {
        file.write_all(bytes)?;
        publish(file, path)
    });
    written.map_err(|source| Error::Io {
        action: "write the file",
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|source| Error::Io {
        action: "create the folder",
        path: path.to_owned(),
        source,
    })
}

//! File operations that survive a power cut, and names of temporary files.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokenformer_base::files;
pub(crate) use tokenformer_base::files::parent;

use crate::{Error, Result};

/// `prefix` + the last name of `path`, in the same directory.
pub(crate) fn sibling(path: &Path, prefix: &str) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::NoFileName {
        path: path.to_path_buf(),
    })?;
    let mut beside = OsString::from(prefix);
    beside.push(name);
    Ok(parent(path).join(beside))
}

/// Whether something has this name, a dangling link included.
pub(crate) fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(false)
        }
        Err(source) => Err(Error::io("look at it", path)(source)),
    }
}

/// Creates `dir` and missing parent folders, and syncs them.
pub(crate) fn create_dir_all(dir: &Path) -> Result<()> {
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    fs::create_dir_all(dir).map_err(Error::io("create the folder", dir))?;
    missing
        .into_iter()
        .try_for_each(|created| sync_dir(parent(created)))
}

/// Renames and syncs the directory, so that the new name survives a power cut. Both are in the same directory.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename to this name", to))?;
    sync_dir(parent(to))
}

/// Syncs the directory `dir`, so that new names in it survive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    files::sync_dir(dir).map_err(Error::io("sync the folder", dir))
}

/// Removes a file, a link (not its target) or a directory with its content.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).map_err(Error::io("look at it", path))?;
    if found.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
    .map_err(Error::io("remove it", path))
}

/// Removes a directory so that nothing is left under its name even if the process is killed in between.
pub(crate) fn discard(dir: &Path) -> Result<()> {
    let doomed = sibling(dir, DOOMED)?;
    if exists(&doomed)? {
        remove(&doomed)?;
    }
    rename(dir, &doomed)?;
    remove(&doomed)
}

/// Prefix of files and directories that are being written.
pub(crate) const TEMPORARY: &str = ".tmp-";
/// Prefix of directories that are being deleted.
pub(crate) const DOOMED: &str = ".tmp-delete-";
/// Prefix of old versions while they are being replaced.
pub(crate) const ASIDE: &str = ".old-";

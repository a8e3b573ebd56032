//! Exclusive use of a temporary name. The system releases it when the process dies.
//!
//! A lock alone is not enough: the other process may rename or remove what we opened before we lock it. So after
//! locking, the name must still lead to what was opened.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use crate::durable::{exists, remove};
use crate::{Error, Result};

/// Creates and claims an empty directory; one left by a killed process is removed first.
///
/// The claim holds while the returned handle lives. `None` where directories cannot be opened.
pub(crate) fn claim_dir(path: &Path) -> Result<Option<File>> {
    if exists(path)? {
        let _stale = if cfg!(unix) {
            Some(open_and_lock(path, OpenOptions::new().read(true))?)
        } else {
            None
        };
        remove(path)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(busy(path)),
        result => result.map_err(Error::io("create the folder", path))?,
    }
    if cfg!(unix) {
        open_and_lock(path, OpenOptions::new().read(true)).map(Some)
    } else {
        Ok(None)
    }
}

/// Opens and claims a file for writing, empty.
pub(crate) fn claim_file(path: &Path) -> Result<File> {
    let file = open_and_lock(
        path,
        OpenOptions::new().write(true).create(true).truncate(false),
    )?;
    file.set_len(0).map_err(Error::io("empty the file", path))?;
    Ok(file)
}

fn open_and_lock(path: &Path, options: &OpenOptions) -> Result<File> {
    let file = options
        .open(path)
        .map_err(Error::io("open it for writing", path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(busy(path)),
        // The file system has no locks, so nothing more can be done.
        Err(TryLockError::Error(_)) => Ok(file),
        Ok(()) if is_still(path, &file) => Ok(file),
        Ok(()) => Err(busy(path)),
    }
}

fn busy(path: &Path) -> Error {
    Error::Busy {
        path: path.to_path_buf(),
    }
}

#[cfg(unix)]
fn is_still(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(named), Ok(opened)) => (named.dev(), named.ino()) == (opened.dev(), opened.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still(_path: &Path, _file: &File) -> bool {
    true
}

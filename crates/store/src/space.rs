//! Checks that there is enough disk space before writing.

use std::path::Path;

use crate::{Error, Result};

/// Bytes that an ordinary user can still write on the file system of `path`.
///
/// For a path that does not exist yet, the nearest existing parent folder is used. `None` when the system does not
/// report it.
pub fn available_bytes(path: &Path) -> Option<u64> {
    path.ancestors()
        .map(|ancestor| {
            if ancestor.as_os_str().is_empty() {
                Path::new(".")
            } else {
                ancestor
            }
        })
        .find_map(|ancestor| fs4::available_space(ancestor).ok())
}

/// Returns an error if there is clearly too little space to write `needed_bytes` at `path`.
///
/// # Errors
/// [`Error::NoSpace`] with both numbers.
pub fn ensure_space(path: &Path, needed_bytes: u64) -> Result<()> {
    match available_bytes(path) {
        Some(available_bytes) if available_bytes < needed_bytes => Err(Error::NoSpace {
            path: path.to_path_buf(),
            needed_bytes,
            available_bytes,
        }),
        _ => Ok(()),
    }
}

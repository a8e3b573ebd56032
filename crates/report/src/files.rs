//! Atomic replacement of files.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Writes `bytes` next to `path`, then renames over it: a reader sees the old file or the new one, never a part.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    // The name shares nothing with the target's: tools that match a part of the name must not find it.
    let temporary = path.with_file_name(format!(
        ".{}-{}.tmp",
        std::process::id(),
        WRITES.fetch_add(1, Ordering::Relaxed)
    ));
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|source| {
        // The first failure is the one worth reporting.
        let _ = std::fs::remove_file(&temporary);
        Error::Io {
            action: "write the file",
            path: path.to_owned(),
            source,
        }
    })
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|source| Error::Io {
        action: "create the folder",
        path: path.to_owned(),
        source,
    })
}

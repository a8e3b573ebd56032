//! Small files that are replaced in one step: a reader sees the old content or the new, never a part.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use tokenformer_base::files;

use crate::claim::claim_file;
use crate::durable::{TEMPORARY, rename, sibling};
use crate::{Error, Result};

/// Writes `bytes` next to `path`, syncs, renames over `path` and syncs the directory.
///
/// The old file is never written to, so a process that has it mapped keeps seeing the old content.
///
/// ```
/// # fn main() -> Result<(), tokenformer_store::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("latest");
/// tokenformer_store::write_atomic(&path, b"step-00000500\n")?;
/// assert_eq!(tokenformer_store::read_small(&path, 64)?, b"step-00000500\n");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Io`]; the file under `path` is then the one that was there before. [`Error::Busy`] when another process
/// is writing the same file.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut staged = StagedFile::begin(path)?;
    staged
        .file()
        .write_all(bytes)
        .map_err(Error::io("write it", path))?;
    staged.commit()
}

/// Reads a whole file of at most `max_bytes`, holding no more than that in memory.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Io`].
pub fn read_small(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let read = files::read_small(path, max_bytes).map_err(Error::io("read it", path))?;
    read.ok_or_else(|| Error::TooLarge {
        path: path.to_path_buf(),
        max_bytes,
    })
}

/// A file being written next to its final name. If it is dropped without [`commit`](StagedFile::commit), it is removed.
pub(crate) struct StagedFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl StagedFile {
    pub(crate) fn begin(path: &Path) -> Result<StagedFile> {
        let temporary = sibling(path, TEMPORARY)?;
        let file = claim_file(&temporary)?;
        Ok(StagedFile {
            file,
            temporary,
            path: path.to_path_buf(),
            committed: false,
        })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    pub(crate) fn commit(mut self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(Error::io("sync it", &self.path))?;
        rename(&self.temporary, &self.path)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.committed {
            // The original error is already being returned; the next writer removes the file.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

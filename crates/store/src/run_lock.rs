//! One process at a time in a run directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::durable::create_dir_all;
use crate::{Error, Result, Warning};

/// Exclusive use of a run directory while the value lives.
///
/// The system takes the lock back when the process ends in any way. The file `run.lock` stays, empty: deleting it
/// would let two processes lock two files of the same name.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock, creating `run_dir` if needed. A file system without locks is reported through `warn`.
    ///
    /// # Errors
    /// [`Error::RunLocked`] when another handle, here or in another process, has it.
    pub fn acquire(run_dir: &Path, warn: &mut dyn FnMut(Warning)) -> Result<RunLock> {
        create_dir_all(run_dir)?;
        let path = run_dir.join("run.lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path, "open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::RunLocked {
                    run_dir: run_dir.to_path_buf(),
                });
            }
            Err(TryLockError::Error(source)) => warn(Warning::Unlocked { path, source }),
        }
        Ok(RunLock { _file: file })
    }
}

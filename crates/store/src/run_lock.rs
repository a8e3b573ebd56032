//! One process at a time in a run directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::durable::create_dir_all;
use crate::{Error, Result, Warning};

/// Exclusive use of a run directory while the value lives.
///
/// The system releases the lock when the process ends, for any reason. The file `run.lock` stays, empty: deleting it
/// would let two processes lock two files of the same name.
#[derive(Debug)]
pub struct RunLock {
    file: File,
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
            .map_err(Error::io("open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::RunLocked {
                    run_dir: run_dir.to_path_buf(),
                });
            }
            Err(TryLockError::Error(source)) => warn(Warning::Unlocked { path, source }),
        }
        Ok(RunLock { file })
    }
}

impl Drop for RunLock {
    /// Unlocks explicitly instead of only closing the file: while another thread starts a process, that process holds
    /// copies of all handles for a moment, and closing ours would leave it with the lock.
    fn drop(&mut self) {
        // If unlocking fails, closing the file is the fallback.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_handle_does_not_keep_the_lock() {
        let scratch = tempfile::tempdir().unwrap();
        let acquire = || RunLock::acquire(scratch.path(), &mut |warning| panic!("{warning}"));
        let lock = acquire().unwrap();
        let copy = lock.file.try_clone().unwrap();
        assert!(matches!(acquire(), Err(Error::RunLocked { .. })));
        drop(lock);
        acquire().unwrap();
        drop(copy);
    }
}

//! Locks that let one of the processes of a study do something at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;
use tokenformer_store::{Error as StoreError, RunLock, Warning};
use tokenformer_train::Result;

/// Time between two looks at what other processes have ended.
pub(crate) const WAIT: Duration = Duration::from_secs(1);

/// Where the locks of the study in the folder `out` lie.
pub(crate) fn claims(out: &Path) -> PathBuf {
    out.join("work").join("claims")
}

/// Waits for the lock `what` in the study's folder `out`. It is held until the value is dropped.
///
/// # Errors
/// If the folder cannot be written.
pub fn turn(out: &Path, what: &str) -> Result<RunLock> {
    let place = claims(out).join(what);
    loop {
        match RunLock::acquire(&place, &mut |_: Warning| {}) {
            Err(StoreError::RunLocked { .. }) => std::thread::sleep(WAIT),
            lock => return Ok(lock?),
        }
    }
}

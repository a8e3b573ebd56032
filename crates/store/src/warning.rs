//! Problems that do not stop the work.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::Error;

/// A problem that the user should know about although the work continues.
#[derive(Debug)]
#[non_exhaustive]
pub enum Warning {
    /// A checkpoint is broken and was skipped.
    Skipped {
        /// Its directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: Error,
    },
    /// A replacement was interrupted; the version before it is used.
    Recovered {
        /// The directory that was being replaced.
        path: PathBuf,
    },
    /// The file system has no locks, so nothing prevents a second process from using the directory.
    Unlocked {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Skipped { path, reason } => write!(
                f,
                "{}: skipped a broken checkpoint\n{reason}",
                path.display()
            ),
            Warning::Recovered { path } => {
                write!(
                    f,
                    "{}: a replacement was cut short; using the version before it",
                    path.display()
                )
            }
            Warning::Unlocked { path, source } => write!(
                f,
                "{}: this file system has no locks\n  got:      {source}\n  help:     make sure that only one process works in this folder",
                path.display()
            ),
        }
    }
}

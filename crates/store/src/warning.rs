//! What went wrong without stopping the work.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::Error;

/// Something the user should know although the work goes on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Warning {
    /// A checkpoint is broken and was passed over.
    Skipped {
        /// Its directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: Error,
    },
    /// A replacement was cut short; the version before it is used.
    Recovered {
        /// The directory that was being replaced.
        path: PathBuf,
    },
    /// The file system has no locks, so nothing keeps a second process away.
    Unlocked {
        /// The lock file.
        path: PathBuf,
        /// The system's answer.
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

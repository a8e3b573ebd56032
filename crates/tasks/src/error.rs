//! The error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: cannot {action}: {source}\n  help:     check the path and its permissions", path.display())]
    Io {
        /// What was attempted, such as "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason of the operating system or the decoder.
        source: io::Error,
    },
    /// An invalid row, request or package.
    #[error("{location}: {problem}\n  expected: {expected}\n  got:      {got}\n  help:     {help}")]
    Malformed {
        /// The file, or file:line.
        location: String,
        /// What is wrong.
        problem: Box<str>,
        /// What would be right.
        expected: Box<str>,
        /// What was found.
        got: Box<str>,
        /// What to do.
        help: Box<str>,
    },
    /// No task has this name.
    #[error(
        "{name:?}: no such task\n  expected: {}\n  help:     {}",
        names(),
        near(name)
    )]
    UnknownTask {
        /// The name.
        name: String,
    },
    /// A folder has no file for a task.
    #[error(
        "{}: no file for the task {task}\n  expected: one of {searched}\n  got:      {got}\n  help:     give the right file one of these names; {}",
        dir.display(), crate::fetch::HELP
    )]
    NoTaskFile {
        /// The folder.
        dir: PathBuf,
        /// The task.
        task: &'static str,
        /// The names that were searched.
        searched: String,
        /// What was found.
        got: String,
    },
    /// A folder has several files for a task.
    #[error(
        "{}: several files for the task {task}\n  expected: one\n  got:      {got}\n  help:     keep one of them in the folder",
        dir.display()
    )]
    SeveralTaskFiles {
        /// The folder.
        dir: PathBuf,
        /// The task.
        task: &'static str,
        /// The files.
        got: String,
    },
    /// A model gave a score that is not a number.
    #[error(
        "{location}: the score is not finite\n  expected: a log-likelihood\n  got:      {got}\n  help:     the model's weights are damaged or have diverged; evaluate an earlier checkpoint"
    )]
    NotFinite {
        /// The row.
        location: String,
        /// The score.
        got: f64,
    },
    /// A scorer broke its contract.
    #[error(
        "scorer: {got} answers\n  expected: one per request, {expected}\n  got:      {got}\n  help:     this is a bug of the scorer"
    )]
    Scorer {
        /// Requests.
        expected: usize,
        /// Answers.
        got: usize,
    },
    /// The model or its device failed.
    #[error(transparent)]
    Model(#[from] tokenformer_core::Error),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] tokenformer_core::device::DeviceError),
    /// The tokenizer failed, or the package could not be downloaded.
    #[error(transparent)]
    Data(#[from] tokenformer_data::Error),
    /// A file could not be written whole.
    #[error(transparent)]
    Store(#[from] tokenformer_store::Error),
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An `Io` error as a closure for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

fn names() -> String {
    crate::Task::ALL.map(|task| task.name()).join(", ")
}

fn near(name: &str) -> String {
    match tokenformer_base::nearest(name, crate::Task::ALL.map(|task| task.name())) {
        Some(near) => format!("did you mean {near}?"),
        None => "separate several tasks with commas; `all` means all six".into(),
    }
}

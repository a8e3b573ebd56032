//! The error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

use crate::decode::Unreadable;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The errors of this crate.
///
/// `Display` says what and where on the first line, then what was expected, what was found and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: cannot {action}: {source}{}", path.display(), io_help(source))]
    Io {
        /// What was attempted, such as "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A picture of a dataset that cannot be read any more.
    #[error(
        "{location}: {}\n  expected: {}\n  got:      {}\n  help:     put the file back, or run `tokenformer data prepare --images` again",
        reason.problem, reason.expected, reason.got
    )]
    Picture {
        /// The file, or its place in one.
        location: String,
        /// What is wrong with it.
        reason: Unreadable,
    },
    /// More pictures than accepted cannot be read.
    #[error(
        "{location}: too many unreadable pictures\n  expected: at most {limit} of {found}\n  got:      {count} so far{}\n  \
         help:     replace or remove these files, or accept more with --max-unreadable SHARE",
        listed(first)
    )]
    TooManyUnreadable {
        /// The folder.
        location: String,
        /// Pictures found.
        found: usize,
        /// Number of pictures that may be unreadable.
        limit: usize,
        /// Number of unreadable pictures.
        count: usize,
        /// The first of them, with the reasons.
        first: Vec<String>,
    },
    /// A folder or file that is not a set of pictures.
    #[error("{location}: {problem}\n  expected: {expected}\n  got:      {got}\n  help:     {help}")]
    Source {
        /// The folder or file.
        location: String,
        /// What is wrong.
        problem: &'static str,
        /// What a valid one has.
        expected: String,
        /// What was found.
        got: String,
        /// What to do.
        help: String,
    },
    /// A folder that is damaged or is not a dataset.
    #[error("{}: {problem}\n  expected: {expected}\n  got:      {got}\n  help:     run `tokenformer data prepare --images` again", path.display())]
    Dataset {
        /// The folder or the file in it.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A picture has changed since the dataset was made.
    #[error(
        "{}: the file changed since the dataset was made\n  expected: {expected}\n  got:      {got}\n  \
         help:     put the file back, or run `tokenformer data prepare --images` again",
        path.display()
    )]
    Changed {
        /// The picture's file.
        path: PathBuf,
        /// Its size or hash in the dataset.
        expected: String,
        /// Its size or hash now.
        got: String,
    },
    /// The folder to write is in use.
    #[error("{}: the folder is not empty\n  expected: a new or empty folder\n  got:      {found}\n  help:     {help}", path.display())]
    OutputNotEmpty {
        /// The folder.
        path: PathBuf,
        /// The name of an entry in it.
        found: String,
        /// What to do.
        help: &'static str,
    },
    /// An option outside its range.
    #[error("{option}: out of range\n  expected: {expected}\n  got:      {got}")]
    Option {
        /// The option, by its name.
        option: &'static str,
        /// The range.
        expected: &'static str,
        /// The value.
        got: String,
    },
    /// A program for downloading or unpacking a package failed.
    #[error("`{command}` failed: {reason}\n  expected: the package {package}\n  help:     {help}")]
    Download {
        /// The command as it was run.
        command: String,
        /// The end of its error output.
        reason: String,
        /// The package.
        package: &'static str,
        /// What to do.
        help: String,
    },
    /// An error while writing or verifying the folder.
    #[error(transparent)]
    Store(#[from] tokenformer_store::Error),
}

impl Error {
    /// Pairs an I/O error with its path, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

fn io_help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "\n  help:     check that the path exists",
        io::ErrorKind::PermissionDenied => "\n  help:     check the permissions",
        io::ErrorKind::StorageFull => "\n  help:     free space there, or choose another folder",
        _ => "",
    }
}

fn listed(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("\n            {line}"))
        .collect()
}

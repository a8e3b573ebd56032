//! The one error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

use crate::decode::Unreadable;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a picture and a training batch.
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
        /// The reason of the operating system.
        source: io::Error,
    },
    /// A picture that has to be read cannot be.
    #[error(
        "{location}: {}\n  expected: {}\n  got:      {}\n  help:     replace or remove the file",
        reason.problem, reason.expected, reason.got
    )]
    Picture {
        /// The file, or its place in one.
        location: String,
        /// What is wrong with it.
        reason: Unreadable,
    },
    /// More pictures cannot be read than is accepted.
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
        /// How many may be unreadable.
        limit: usize,
        /// How many are.
        count: usize,
        /// The first of them with their reasons.
        first: Vec<String>,
    },
    /// A folder or file that is no set of pictures.
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
    /// A dataset folder that is damaged, or none.
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
    /// A picture is not the one that the dataset was made of.
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
        /// What it has now.
        got: String,
    },
    /// The folder to write is in use.
    #[error("{}: the folder is not empty\n  expected: a new or empty folder\n  got:      {found}\n  help:     {help}", path.display())]
    OutputNotEmpty {
        /// The folder.
        path: PathBuf,
        /// What is in it.
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
    /// A program that gets a package failed.
    #[error("`{command}` failed: {reason}\n  expected: the package {package}\n  help:     {help}")]
    Download {
        /// The command as it was run.
        command: String,
        /// Its last words.
        reason: String,
        /// The package.
        package: &'static str,
        /// What to do.
        help: String,
    },
    /// The folder could not be written or verified.
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

/// Outside text on one line: control characters are shown, and what is too long is cut.
pub(crate) fn shown(text: &str) -> String {
    const CHARS: usize = 200;
    let mut line: String = text.chars().take(CHARS).flat_map(show).collect();
    if text.chars().nth(CHARS).is_some() {
        line.push_str("...");
    }
    line
}

fn show(c: char) -> Vec<char> {
    if c.is_control() {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

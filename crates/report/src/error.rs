//! The error type of this crate.

use std::path::PathBuf;

/// Errors of reading records and writing files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: cannot {action}\n  got:      {source}", path.display())]
    Io {
        /// What was attempted, such as `"read the records"`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A line of `metrics.jsonl` is not a record.
    #[error(
        "{}:{line}: not a metrics record: {problem}\n  expected: one JSON object per line with \"kind\": \"train\", \"eval\", \"grow\", \"sample\" or \"note\"\n  got:      {got}\n  help:     repair or remove the line; a run that goes on puts it aside by itself",
        path.display()
    )]
    BadRecord {
        /// The metrics file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The parser's error.
        problem: String,
        /// The start of the line.
        got: String,
    },
}

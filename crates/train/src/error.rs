//! Errors of training runs.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A recipe or setting cannot be used.
    #[error(
        "{}: {problem}\n  expected: {expected}\n  got:      {}\n  help:     {help}",
        shown(place),
        shown(got)
    )]
    Recipe {
        /// File and key.
        place: String,
        /// What is wrong.
        problem: String,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
        /// What to do.
        help: String,
    },
    /// A run cannot be resumed from a checkpoint.
    #[error("{}: cannot go on from this checkpoint: {problem}\n  expected: {expected}\n  got:      {got}\n  help:     {help}", path.display())]
    Resume {
        /// The checkpoint or run directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What the checkpoint says.
        expected: String,
        /// What was requested.
        got: String,
        /// What to do.
        help: String,
    },
    /// There is not enough memory.
    #[error(
        "{what}: not enough memory\n  expected: {needed} available\n  got:      {available}\n  help:     {help}"
    )]
    Memory {
        /// What should be loaded or trained.
        what: String,
        /// Bytes needed, for people.
        needed: String,
        /// Bytes available, for people.
        available: String,
        /// What to do.
        help: String,
    },
    /// A model computed something that is not a number, or infinite.
    #[error(
        "{what}: not finite\n  expected: finite numbers\n  got:      {got}\n  help:     the model's weights are damaged or have diverged; use an earlier checkpoint"
    )]
    NotFinite {
        /// What was computed, and where.
        what: String,
        /// The value found.
        got: f64,
    },
    /// The numbers of a run are not finite any more.
    #[error(
        "{}: the run has diverged at step {step}: {problem}\n  expected: finite numbers\n  got:      {got}\n  help:     {help}",
        path.display()
    )]
    Diverged {
        /// The run directory.
        path: PathBuf,
        /// Updates done or skipped.
        step: u64,
        /// The reason why the run ends.
        problem: String,
        /// The numbers.
        got: String,
        /// What to do, and from which checkpoint.
        help: String,
    },
    /// The ranks of a run do not fit together.
    #[error("{problem}\n  expected: {expected}\n  got:      {got}\n  help:     {help}")]
    Ranks {
        /// What is wrong, and with which rank.
        problem: String,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
        /// What to do.
        help: String,
    },
    /// It was asked to stop before there was a result.
    #[error(
        "{what}: stopped before its end\n  expected: {expected}\n  got:      {got}\n  help:     {help}"
    )]
    Stopped {
        /// What was being done.
        what: &'static str,
        /// How much there was to do.
        expected: String,
        /// How much was done.
        got: String,
        /// How to get a result.
        help: &'static str,
    },
    /// A file could not be read or written.
    #[error("{}: cannot {action}: {source}\n  help:     {help}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
        /// What to do.
        help: &'static str,
    },
    /// A file of a model or checkpoint has invalid content.
    #[error("{}: {problem}\n  help:     {help}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        help: String,
    },
    /// Models and growth.
    #[error(transparent)]
    Core(#[from] tokenformer_core::Error),
    /// Data and tokenizers.
    #[error(transparent)]
    Data(#[from] tokenformer_data::Error),
    /// Pictures.
    #[error(transparent)]
    Images(#[from] tokenformer_images::Error),
    /// Checkpoints.
    #[error(transparent)]
    Store(#[from] tokenformer_store::Error),
    /// Records and reports.
    #[error(transparent)]
    Report(#[from] tokenformer_report::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the user asked for something impossible (exit code 2), as opposed to a run that failed
    /// (exit code 1).
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Recipe { .. }
                | Self::Resume { .. }
                | Self::Core(tokenformer_core::Error::Config { .. })
                | Self::Images(tokenformer_images::Error::Option { .. })
                | Self::Data(
                    tokenformer_data::Error::Option { .. }
                        | tokenformer_data::Error::TokenizerSpec { .. }
                        | tokenformer_data::Error::NoInput
                )
        )
    }
}

impl From<tokenformer_core::device::DeviceError> for Error {
    fn from(error: tokenformer_core::device::DeviceError) -> Self {
        Self::Core(error.into())
    }
}

/// Quotes outside text: control characters are escaped, and of long text only the two ends are shown.
fn shown(text: &str) -> String {
    const CHARS: usize = 1000;
    const END_CHARS: usize = 300;
    let plain = |c: char| match c.is_control() && c != '\n' {
        true => '\u{fffd}',
        false => c,
    };
    let count = text.chars().count();
    if count <= CHARS {
        return text.chars().map(plain).collect();
    }
    let start = text.chars().take(END_CHARS).map(plain);
    let end = text.chars().skip(count - END_CHARS).map(plain);
    start.chain(" ... ".chars()).chain(end).collect()
}

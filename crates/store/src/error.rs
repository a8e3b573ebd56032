//! Errors: where, what was expected, what was found and what helps.

use std::io;
use std::path::{Path, PathBuf};

use tokenformer_base::files::io_help;
pub(crate) use tokenformer_base::shown;
use tokenformer_base::{near_list, shown_shape};

/// The errors of this crate.
///
/// The first line of the message says where and what; the `expected`, `got` and `help` lines follow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation.
    #[error("{}: cannot {action}\n  got:      {source}\n  help:     {}", path.display(), io_help(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as an infinitive.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The file system has too little space for the files to write.
    #[error(
        "{}: not enough free space\n  expected: {needed_bytes} bytes\n  got:      {available_bytes} bytes\n  \
         help:     free space there, or choose another folder",
        path.display()
    )]
    NoSpace {
        /// What was going to be written.
        path: PathBuf,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes available.
        available_bytes: u64,
    },
    /// A file that should be small is not.
    #[error("{}: the file is too large\n  expected: at most {max_bytes} bytes\n  help:     check that this is the file you mean", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size accepted.
        max_bytes: u64,
    },
    /// Another process is writing the same file or directory right now.
    #[error(
        "{}: another process is writing this\n  help:     wait for it to end, or choose another folder",
        path.display()
    )]
    Busy {
        /// What both want to write.
        path: PathBuf,
    },
    /// Another process is working in the run directory.
    #[error(
        "{}: another process is using this run directory\n  \
         help:     wait for it to end or stop it, or choose another folder",
        run_dir.display()
    )]
    RunLocked {
        /// The run directory.
        run_dir: PathBuf,
    },
    /// A name that is not the plain name of one file.
    #[error(
        "{}: the file name {} is refused\n  expected: a plain name: no folders, not empty, not {:?}, not starting with \".\"",
        path.display(), shown(name), crate::MANIFEST_NAME
    )]
    FileName {
        /// The directory, or the manifest that holds the name.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A path that has no last name, such as `/` or `..`.
    #[error("{}: the path does not end in a name\n  help:     give the folder by its name", path.display())]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
    /// The target exists, and replacing it would delete files that this crate did not write.
    #[error(
        "{}: the folder exists and holds other things\n  expected: nothing there, an empty folder, or one that was published whole\n  \
         got:      {got}\n  help:     choose another folder, or remove this one",
        path.display()
    )]
    NotReplaceable {
        /// The target.
        path: PathBuf,
        /// What was found there.
        got: String,
    },
    /// A value could not be written as JSON.
    #[error("{}: the value cannot be written as JSON\n  got:      {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The serialiser's error.
        source: serde_json::Error,
    },
    /// The directory has no manifest: it was never published, or not completely.
    #[error(
        "{}: {} is missing\n  expected: a folder that was published whole\n  help:     use an older checkpoint, or copy the folder again",
        dir.display(), crate::MANIFEST_NAME
    )]
    ManifestMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// The manifest has an unknown format or was changed.
    #[error(
        "{}: the manifest is not valid\n  expected: {expected}\n  got:      {got}\n  help:     use an older checkpoint, or copy the folder again",
        path.display()
    )]
    Manifest {
        /// The manifest's path.
        path: PathBuf,
        /// What a valid manifest has.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A file differs from its entry in the manifest.
    #[error(
        "{}: {} is damaged\n  expected: {expected}\n  got:      {got}\n  help:     use an older checkpoint, or copy the folder again",
        dir.display(), shown(name)
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// The file in it.
        name: String,
        /// What the manifest says.
        expected: String,
        /// What the file has.
        got: String,
    },
    /// A run has checkpoints, and each of them is broken.
    #[error(
        "{}: none of the {count} checkpoints can be used\n  got:      {newest}\n  help:     start again in another folder",
        dir.display()
    )]
    NoGoodCheckpoint {
        /// The folder of checkpoints.
        dir: PathBuf,
        /// How many there are.
        count: usize,
        /// The problem of the newest, in one line.
        newest: String,
    },
    /// The path leads to nothing that can be loaded.
    #[error(
        "{}: no model here\n  expected: a run, a checkpoint or a model folder of this program\n  got:      {got}\n  help:     {help}",
        path.display()
    )]
    NoModel {
        /// The path.
        path: PathBuf,
        /// What it is.
        got: String,
        /// What to do.
        help: String,
    },
    /// A pointer file (`latest`, `best`) does not hold a checkpoint's name.
    #[error(
        "{}: the pointer is not valid\n  expected: the name of a checkpoint, such as step-00000500\n  got:      {}\n  \
         help:     delete the file; the next checkpoint writes it anew",
        path.display(), shown(got)
    )]
    Pointer {
        /// The pointer file.
        path: PathBuf,
        /// Its content.
        got: String,
    },
    /// A `.safetensors` file breaks the format.
    #[error(
        "{}: not a valid safetensors file: {what}\n  expected: {expected}\n  got:      {got}\n  help:     the file is incomplete or damaged; copy or export it again",
        path.display()
    )]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The part of the file.
        what: String,
        /// What the format requires.
        expected: String,
        /// What was found.
        got: String,
    },
    /// No tensor has this name.
    #[error(
        "{}: the tensor {} is missing\n  expected: a tensor of this name\n  got:      {count} of other names{}\n  help:     check that this file belongs to the model",
        path.display(), shown(name), near_list(near)
    )]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The requested name.
        name: String,
        /// Similar names in the file, the most similar first.
        near: Vec<String>,
        /// How many tensors the file has.
        count: usize,
    },
    /// A tensor has another shape than expected.
    #[error(
        "{}: the tensor {} has the wrong shape\n  expected: {expected:?}\n  got:      {}\n  help:     check that this file belongs to the configuration",
        path.display(), shown(name), shown_shape(got)
    )]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The expected shape.
        expected: Vec<usize>,
        /// The shape in the file.
        got: Vec<usize>,
    },
    /// A buffer or stream has another number of elements or bytes than its tensor.
    #[error("{}: the tensor {} has the wrong size\n  expected: {expected} {unit}\n  got:      {got} {unit}", path.display(), shown(name))]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is counted: `elements` or `bytes`.
        unit: &'static str,
        /// The tensor's own count.
        expected: u64,
        /// The count given.
        got: u64,
    },
    /// A tensor's elements have a type that the reader cannot convert to the requested one.
    #[error("{}: the tensor {} has the wrong type\n  expected: {expected}\n  got:      {got}", path.display(), shown(name))]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The types accepted.
        expected: &'static str,
        /// The type in the file.
        got: String,
    },
    /// An integer does not fit.
    #[error(
        "{}: the tensor {} holds a number out of range\n  expected: 0 to {}\n  got:      {value} at element {index}",
        path.display(), shown(name), u32::MAX
    )]
    IntegerRange {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The element, counted from 0 in row-major order.
        index: usize,
        /// Its value.
        value: i128,
    },
    /// Tensors that cannot be written together.
    #[error("{}: the tensor {} cannot be written\n  got:      {got}", path.display(), shown(name))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Why.
        got: &'static str,
    },
}

impl Error {
    /// Pairs an I/O error with its path, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io {
            path,
            action,
            source,
        }
    }
}

/// A parser's message, which may repeat outside text, on one line.
pub(crate) fn shown_json(error: &serde_json::Error) -> String {
    const CHARS: usize = 300;
    let text = error.to_string();
    let mut line: String = text
        .chars()
        .take(CHARS)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if line.len() < text.len() {
        line.push_str("...");
    }
    line
}

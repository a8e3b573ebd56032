//! Errors: where, what was expected, what was found and what helps.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use tokenformer_base::files::io_help;
use tokenformer_base::near_list;
pub(crate) use tokenformer_base::shown;

use crate::Dtype;

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
    /// A file breaks its format.
    #[error("{location}: {what}\n  expected: {expected}\n  got:      {got}\n  help:     {help}")]
    Damaged {
        /// The file, with the part of it if known.
        location: String,
        /// What is wrong.
        what: String,
        /// What the format requires.
        expected: String,
        /// What was found.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// A file that may be valid but has a format that this crate does not support.
    #[error("{location}: {what}\n  help:     {help}")]
    Unsupported {
        /// The file, with the part of it if known.
        location: String,
        /// What it is.
        what: String,
        /// What to do.
        help: &'static str,
    },
    /// A pickle requests a function or class that does not belong in a checkpoint.
    #[error(
        "{location}: the pickle asks for {}, which is refused; it has not been run\n  \
         expected: tensors, numbers, strings and containers of them\n  \
         help:     do not load this file elsewhere if you do not trust its source; otherwise save only the state dict: \
         torch.save(model.state_dict(), path)",
        shown(global)
    )]
    RefusedGlobal {
        /// The file, with the part of it if known.
        location: String,
        /// The function or class, as `module.name`.
        global: String,
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
        /// Tensors in the file.
        count: usize,
    },
    /// A tensor's elements are not floating-point numbers.
    #[error(
        "{}: the tensor {} has elements of another type\n  expected: F32, F16, BF16 or F64\n  got:      {got}",
        path.display(), shown(name)
    )]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type in the file.
        got: Dtype,
    },
    /// A buffer or a stream has another length than its tensor.
    #[error("{}: the tensor {} has another size\n  expected: {expected} elements\n  got:      {got}", path.display(), shown(name))]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Number of elements of the shape.
        expected: u64,
        /// Number of elements given.
        got: u64,
    },
    /// The format cannot express what should be written.
    #[error("{}: {what}\n  expected: {expected}\n  got:      {got}", path.display())]
    Unwritable {
        /// The file to be written.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// What the format requires.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A configuration key has a value that cannot be used, or is missing.
    #[error(
        "{location}: the key {} {problem}\n  expected: {expected}\n  got:      {got}\n  help:     {help}",
        shown(key)
    )]
    Config {
        /// The file, with the line if known; all files if a key is in none.
        location: Box<str>,
        /// The key, dotted for nested ones.
        key: Box<str>,
        /// "is missing", "has another type" and the like.
        problem: &'static str,
        /// What can be used.
        expected: String,
        /// The value.
        got: String,
        /// What to do.
        help: Cow<'static, str>,
    },
    /// A token outside the vocabulary.
    #[error(
        "{}: the token {token} at position {position_tokens} of sequence {sequence} is outside the vocabulary\n  \
         expected: ids from 0 to below {vocab_size}\n  \
         help:     check that the data and the model use the same tokenizer",
        path.display()
    )]
    TokenRange {
        /// The token file.
        path: PathBuf,
        /// The sequence.
        sequence: usize,
        /// Position in the sequence.
        position_tokens: u64,
        /// The token.
        token: i64,
        /// The vocabulary's size.
        vocab_size: u64,
    },
    /// A read outside a token file.
    #[error("{}: tokens {start}..{start}+{len} of sequence {sequence} are outside the file\n  expected: at most {available} tokens", path.display())]
    OutOfRange {
        /// The token file.
        path: PathBuf,
        /// The sequence.
        sequence: usize,
        /// First requested token.
        start: usize,
        /// Number of requested tokens.
        len: usize,
        /// Tokens of the sequence, 0 if the sequence does not exist.
        available: usize,
    },
    /// An invalid argument of the caller.
    #[error("{name}: out of range\n  expected: {expected}\n  got:      {got}")]
    Argument {
        /// The value's name.
        name: &'static str,
        /// What can be used.
        expected: String,
        /// What was given.
        got: String,
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

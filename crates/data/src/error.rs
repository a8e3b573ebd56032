//! The error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

use tokenformer_base::files::io_help;

/// The errors of this crate.
///
/// `Display` says what and where on the first line, then what was expected, what was found and what
/// to do about it, where each applies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: cannot {action}: {source}\n  help:     {}", path.display(), io_help(source))]
    Io {
        /// What was attempted, such as "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// No input was named.
    #[error(
        "no input\n  expected: at least one file or folder of text\n  got:      none\n  help:     name one with --input PATH"
    )]
    NoInput,
    /// A path that is neither a regular file nor a folder.
    #[error(
        "{}: not a regular file\n  expected: a file or a folder\n  help:     inputs are read more than once, so pipes and devices do not work; write the text to a file", path.display()
    )]
    NotAFile {
        /// The path as given.
        path: PathBuf,
    },
    /// An input that was named explicitly holds no text.
    #[error(
        "{location}: no text\n  expected: {expected}\n  got:      {got}\n  help:     leave this input out, or check that it is the one you meant"
    )]
    NoText {
        /// The file or folder.
        location: String,
        /// What an input of this kind must hold.
        expected: &'static str,
        /// What was found instead.
        got: String,
    },
    /// Bytes that are not UTF-8.
    #[error(
        "{location}: not UTF-8 text\n  expected: UTF-8\n  got:      the invalid byte 0x{byte:02x} at byte offset {offset_bytes}\n  help:     {help}"
    )]
    NotUtf8 {
        /// The file, or file:line.
        location: String,
        /// Offset of the first invalid byte from the start of the decompressed document.
        offset_bytes: usize,
        /// The first invalid byte.
        byte: u8,
        /// What to do.
        help: &'static str,
    },
    /// A file in a known format that is not supported.
    #[error(
        "{}: not text: {format}\n  expected: text in UTF-8, JSON Lines, or either compressed by gzip or zstd\n  got:      {format}\n  help:     {help}", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The name of its format, such as "xz".
        format: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// An input that is a folder that this program wrote or will write.
    #[error(
        "{}: this is {what}, not text\n  expected: a folder of text\n  got:      {what}, as this program writes it\n  help:     name the folder of the texts it was made from", path.display()
    )]
    OwnOutput {
        /// The folder.
        path: PathBuf,
        /// What it holds, such as "a dataset".
        what: &'static str,
    },
    /// A zstd frame whose window takes more memory than is allowed.
    #[error(
        "{}: its zstd window is too large\n  expected: a window of at most {expected_bytes} bytes (zstd --long=27)\n  got:      a window of {got_bytes} bytes\n  help:     compress it again with a smaller one: zstd -dc --long=31 FILE | zstd --long=27 > NEW", path.display()
    )]
    Window {
        /// The compressed file.
        path: PathBuf,
        /// The largest window accepted.
        expected_bytes: u64,
        /// The window that the frame requires.
        got_bytes: u64,
    },
    /// A key was given for texts that are not JSON Lines.
    #[error(
        "{location}: the key \"{key}\" was given, but this is not JSON Lines\n  expected: one JSON object per line\n  got:      {got}\n  help:     leave --text-key out to read it as plain text; `jq -c '.[]' FILE > NEW` makes lines of an array, `jq -c . FILE > NEW` of objects over several lines"
    )]
    KeyWithoutLines {
        /// The file, or the option.
        location: String,
        /// The key given.
        key: String,
        /// What was found.
        got: &'static str,
    },
    /// One document is larger than the limit; compressed files can be far larger than they look.
    #[error(
        "{location}: the document is too large\n  expected: at most {limit_bytes} bytes per document, decompressed\n  got:      more\n  help:     split it, or use JSON Lines with one document per line"
    )]
    DocumentTooLarge {
        /// The file, or file:line.
        location: String,
        /// The limit that was exceeded.
        limit_bytes: u64,
    },
    /// A `.gz` or `.zst` file that cannot be decompressed.
    #[error(
        "{}: cannot decompress: {reason}\n  expected: a complete {format} file\n  help:     the file is damaged, cut short or of another format; fetch or compress it again", path.display()
    )]
    Decompress {
        /// The compressed file.
        path: PathBuf,
        /// "gzip" or "zstd".
        format: &'static str,
        /// The decoder's error.
        reason: String,
    },
    /// A line of a JSON Lines file that is not JSON.
    #[error(
        "{location}:{column}: not JSON: {reason}\n  expected: one JSON object per line\n  help:     {help}"
    )]
    JsonLine {
        /// file:line.
        location: String,
        /// Column in bytes, from 1.
        column: usize,
        /// The parser's error.
        reason: String,
        /// What to do.
        help: &'static str,
    },
    /// A JSON line without a string at the key.
    #[error(
        "{location}: the key \"{key}\" {problem}\n  expected: an object with the string key \"{key}\"\n  got:      {got}\n  help:     choose another key with --text-key"
    )]
    JsonText {
        /// file:line.
        location: String,
        /// The key that holds the text.
        key: String,
        /// "is missing" or "is not a string".
        problem: &'static str,
        /// The keys or the type found.
        got: String,
    },
    /// An invalid tokenizer specification.
    #[error(
        "--tokenizer {spec}: {problem}\n  expected: bytes, gpt2, bpe:SIZE (such as bpe:4096) or a file FILE.json\n  got:      {spec}"
    )]
    TokenizerSpec {
        /// The specification as given.
        spec: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tokenizer file that cannot be used.
    #[error(
        "{location}: not a usable tokenizer: {problem}\n  expected: {expected}\n  help:     {help}"
    )]
    TokenizerFile {
        /// The file, or "the trained tokenizer".
        location: String,
        /// What is wrong.
        problem: String,
        /// What was expected.
        expected: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// The tokenizer failed on a text.
    #[error(
        "{location}: the tokenizer failed: {reason}\n  help:     the tokenizer file does not fit this text; try another one, or `bytes`"
    )]
    Encode {
        /// The document, or "text".
        location: String,
        /// The reason.
        reason: String,
    },
    /// A package could not be downloaded.
    #[error(
        "{command}: failed: {reason}\n  expected: a file of the package\n  help:     Python's pip is needed for this, and a network or mirror that has the package; or get the package elsewhere and name it with --package FILE"
    )]
    Pip {
        /// The command line.
        command: String,
        /// The end of its error output, or why it could not start.
        reason: String,
    },
    /// A file or folder is not the package of a set of texts.
    #[error(
        "{}: not the package with the texts\n  expected: {package}, its file or the folder it was unpacked into, with {texts} texts\n  got:      {got}\n  help:     leave --package out to download it", path.display()
    )]
    NotThePackage {
        /// The file or folder.
        path: PathBuf,
        /// The package and its version.
        package: &'static str,
        /// The number of texts that it has.
        texts: usize,
        /// What was found.
        got: String,
    },
    /// A file to write exists with other content.
    #[error(
        "{}: another file is in the way\n  expected: none, or the text as it was fetched before\n  got:      other content\n  help:     move it away, or choose another --out", path.display()
    )]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// A token file that is damaged or has another format.
    #[error("{}: {problem}\n  expected: {expected}\n  got:      {got}\n  help:     run `tokenformer data prepare` again", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// An attempt to write a token outside the vocabulary.
    #[error("{}: the token {token} is outside the vocabulary\n  expected: ids below {vocab_size}", path.display())]
    TokenRange {
        /// The file to be written.
        path: PathBuf,
        /// The token id.
        token: u32,
        /// The vocabulary size.
        vocab_size: u32,
    },
    /// A read past the end of a token file.
    #[error(
        "tokens {start}..{start}+{len} are outside the file\n  expected: at most {available} tokens"
    )]
    OutOfRange {
        /// First requested token.
        start: usize,
        /// Number of requested tokens.
        len: usize,
        /// Tokens in the file.
        available: usize,
    },
    /// A text that is too short for one window.
    #[error(
        "too few tokens for one window\n  expected: at least {expected_tokens} tokens (the context of {context_tokens} and one target)\n  got:      {got_tokens} tokens\n  help:     use more text, or a shorter context: model.context of a recipe, --context of `eval`"
    )]
    TooShort {
        /// Tokens needed.
        expected_tokens: usize,
        /// Tokens available.
        got_tokens: usize,
        /// The requested context length.
        context_tokens: usize,
    },
    /// An option outside its range.
    #[error("{option}: out of range\n  expected: {expected}\n  got:      {got}")]
    Option {
        /// The option as written on the command line.
        option: &'static str,
        /// The range.
        expected: &'static str,
        /// The value.
        got: String,
    },
    /// The output folder is in use.
    #[error(
        "{}: the folder is not empty\n  expected: a new or empty folder\n  got:      {found}\n  help:     {help}", path.display()
    )]
    OutputNotEmpty {
        /// The folder.
        path: PathBuf,
        /// The name of an entry in it.
        found: String,
        /// What to do.
        help: &'static str,
    },
    /// There is too little text for both splits.
    #[error(
        "{split}: {} in this split\n  expected: text for training and for validation, at least 2 tokens each: one to read and one to predict\n  got:      {documents} document(s), {text_bytes} bytes in all\n  help:     add more text",
        if *tokens == 0 { "no tokens" } else { "a single token" }
    )]
    EmptySplit {
        /// The split that is empty, or as good as empty.
        split: &'static str,
        /// Its tokens.
        tokens: u64,
        /// Documents read.
        documents: u64,
        /// Bytes read.
        text_bytes: u64,
    },
    /// The inputs changed between two passes.
    #[error(
        "the inputs changed while they were read\n  expected: {expected_documents} documents of {expected_bytes} bytes, as in the first pass\n  got:      {got_documents} documents of {got_bytes} bytes\n  help:     run again once nothing writes to them"
    )]
    InputChanged {
        /// Documents in the first pass.
        expected_documents: u64,
        /// Bytes in the first pass.
        expected_bytes: u64,
        /// Documents in this pass.
        got_documents: u64,
        /// Bytes in this pass.
        got_bytes: u64,
    },
    /// A dataset folder whose files do not belong together.
    #[error("{}: {problem}\n  expected: {expected}\n  got:      {got}\n  help:     run `tokenformer data prepare` again", path.display())]
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
    /// The sources of the crates in `Cargo.lock` cannot be found.
    #[error(
        "{}: cannot find crate sources: {reason}\n  expected: a folder with Cargo.toml and Cargo.lock, and `cargo` on the PATH\n  help:     use your own text with --data PATH", manifest_dir.display()
    )]
    CrateSources {
        /// The folder of the manifest.
        manifest_dir: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns a closure for `map_err` that makes an `Io` error.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl Error {
    /// Adds the name of the document to an error of the tokenizer.
    pub(crate) fn in_document(self, source: &str) -> Self {
        match self {
            Self::Encode { reason, .. } => Self::Encode {
                location: source.to_owned(),
                reason,
            },
            other => other,
        }
    }
}

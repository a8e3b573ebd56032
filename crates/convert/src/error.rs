//! Errors: where, what was expected, what was found and what helps.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use tokenformer_base::shown;
use tokenformer_base::shown_shape;

/// The errors of this crate.
///
/// The first line of the message says where and what; the `expected`, `got` and `help` lines follow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation.
    #[error("{}: cannot {action}\n  got:      {source}\n  help:     check the path, its permissions and its disk", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as an infinitive.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A path without weights.
    #[error(
        "{}: no checkpoint here\n  \
         expected: a .bin, .pt or .safetensors file, a Hugging Face folder or a DeepSpeed folder\n  \
         got:      {got}\n  help:     {help}",
        path.display()
    )]
    NoCheckpoint {
        /// The path.
        path: PathBuf,
        /// What it is.
        got: String,
        /// What to do.
        help: String,
    },
    /// Weights without a configuration.
    #[error(
        "{}: the configuration is missing\n  expected: config.json or config.yml beside the weights\n  got:      neither\n  \
         help:     give the file with --config, for example --config 150M_eval.yml",
        path.display()
    )]
    NoConfig {
        /// The weights.
        path: PathBuf,
    },
    /// The tensors do not match the configuration.
    #[error("{0}")]
    Tensors(Box<TensorMismatch>),
    /// A file whose content is not as required.
    #[error("{}: {what}\n  expected: {expected}\n  got:      {got}\n  help:     {help}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// A setting that no model of this program supports.
    #[error(
        "{place}: {what} cannot be converted\n  expected: {expected}\n  got:      {got}\n  help:     {help}"
    )]
    Unsupported {
        /// The configuration.
        place: String,
        /// The setting.
        what: &'static str,
        /// What can be converted.
        expected: &'static str,
        /// What was found.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// An invalid setting.
    #[error("{place}: {source}")]
    Setting {
        /// The configuration.
        place: String,
        /// What is wrong with it.
        source: tokenformer_core::Error,
    },
    /// A tokenizer with more tokens than the embedding has rows.
    #[error(
        "{}: the tokenizer has more tokens than the model\n  expected: at most {rows}, the rows of the embedding\n  \
         got:      {tokens}\n  help:     give the tokenizer that the model was trained with, by --tokenizer",
        path.display()
    )]
    Vocabulary {
        /// The tokenizer.
        path: PathBuf,
        /// Its tokens.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The file holds all tensors of a model more than once.
    #[error(
        "{}: {} parts of it hold a whole model\n  expected: one\n  got:      {}\n  \
         help:     save the one that you mean by itself, for example torch.save(torch.load(path)[key], \"model.bin\")",
        path.display(), places.len(), few(places)
    )]
    Ambiguous {
        /// The weights.
        path: PathBuf,
        /// The place of each copy, quoted.
        places: Vec<String>,
    },
    /// An object that is not a tensor of numbers, under the name of a required tensor.
    #[error(
        "{}: the tensor {} cannot be read as weights\n  expected: elements of the type F32, F16, BF16 or F64\n  got:      {got}\n  \
         help:     convert it in PyTorch first, for example with .float().clone(), and save it again",
        path.display(), shown(name)
    )]
    NoWeights {
        /// The weights.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What it is.
        got: String,
    },
    /// Two copies of a tensor that differ.
    #[error(
        "{}: the tensor {} differs from {kept} {at}\n  expected: {expected}\n  got:      {got}\n  help:     {help}",
        path.display(), shown(name)
    )]
    Copies {
        /// The file with the copy.
        path: PathBuf,
        /// The copy.
        name: String,
        /// What it was compared with.
        kept: String,
        /// The index of the first difference.
        at: String,
        /// The value of the first there.
        expected: String,
        /// The value of the copy there.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// A weight that is not finite.
    #[error(
        "{}: the tensor {} is not finite at index {index:?}\n  expected: numbers\n  got:      {got}\n  \
         help:     the weights are damaged or of a failed training; use an earlier checkpoint",
        path.display(), shown(name)
    )]
    NotFiniteWeight {
        /// The weights.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The element's index along each axis.
        index: Vec<usize>,
        /// The value found.
        got: f32,
    },
    /// A model whose logits are not finite.
    #[error(
        "{}: the logits are not finite\n  expected: numbers\n  got:      {got}\n  \
         help:     the weights hold infinities or are no numbers, as after a failed training; use an earlier checkpoint",
        path.display()
    )]
    NotFinite {
        /// The weights.
        path: PathBuf,
        /// What was found.
        got: String,
    },
    /// A model that the published layout cannot express.
    #[error(
        "{place}: the published layout cannot express this\n  expected: {expected}\n  got:      {got}\n  help:     {help}"
    )]
    NotPublishable {
        /// The setting or site.
        place: String,
        /// What the layout can express.
        expected: String,
        /// What the model has.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// A target that may not be overwritten.
    #[error("{}: {what}\n  help:     {help}", path.display())]
    Target {
        /// The target.
        path: PathBuf,
        /// Why not.
        what: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// A repository that could not be downloaded.
    #[error(
        "{repository}: no such file or folder, and the repository of this name on the Hugging Face Hub did not give {what}\n  \
         got:      {got}\n  help:     {help}"
    )]
    Hub {
        /// The repository.
        repository: String,
        /// The file, or the part of the repository, that was requested.
        what: String,
        /// The reply.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// Errors of files of other programs.
    #[error(transparent)]
    Formats(#[from] tokenformer_formats::Error),
    /// Errors of model directories.
    #[error(transparent)]
    Store(#[from] tokenformer_store::Error),
    /// Errors of models.
    #[error(transparent)]
    Core(#[from] tokenformer_core::Error),
    /// Errors of datasets and tokenizers.
    #[error(transparent)]
    Data(#[from] tokenformer_data::Error),
    /// Errors of model files.
    #[error(transparent)]
    Train(#[from] tokenformer_train::Error),
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

impl From<tokenformer_core::device::DeviceError> for Error {
    fn from(error: tokenformer_core::device::DeviceError) -> Self {
        Error::Core(error.into())
    }
}

/// The differences between tensors and what a configuration requires.
#[derive(Debug, Default)]
pub struct TensorMismatch {
    /// The weights.
    pub path: PathBuf,
    /// The configuration.
    pub config: String,
    /// Number of tensors that the configuration requires.
    pub wanted: usize,
    /// Names of missing tensors.
    pub missing: Vec<String>,
    /// Name, required shape and shape found.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Names of tensors that are not in the configuration.
    pub unexpected: Vec<String>,
    /// What to do.
    pub help: String,
}

impl TensorMismatch {
    /// Whether nothing differs.
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.shapes.is_empty() && self.unexpected.is_empty()
    }
}

/// Number of names listed for each kind of difference; of the others only the number is given.
const SHOWN: usize = 6;

/// The first few names, and how many more there are.
fn few(all: &[String]) -> String {
    let first = all.get(..SHOWN).unwrap_or(all).join(", ");
    match all.len().checked_sub(SHOWN + 1) {
        Some(more) => format!("{first} and {} more", more + 1),
        None => first,
    }
}

impl fmt::Display for TensorMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, shapes) = (self.missing.len(), self.shapes.len());
        writeln!(
            f,
            "{}: the tensors do not fit {}: {missing} missing, {shapes} of another shape, {} unexpected",
            self.path.display(),
            self.config,
            self.unexpected.len()
        )?;
        writeln!(
            f,
            "  expected: {} tensors with the published names and shapes",
            self.wanted
        )?;
        let mut list = |label: &str, count: usize, lines: &mut dyn Iterator<Item = String>| {
            for line in lines.take(SHOWN) {
                writeln!(f, "  {label} {line}")?;
            }
            match count.checked_sub(SHOWN + 1) {
                Some(more) => writeln!(f, "  {label} and {} more", more + 1),
                None => Ok(()),
            }
        };
        list(
            "missing: ",
            missing,
            &mut self.missing.iter().map(String::clone),
        )?;
        let mut lines = self.shapes.iter().map(|(name, wanted, got)| {
            format!("{name}: {wanted:?} expected, {} found", shown_shape(got))
        });
        list("shape:   ", shapes, &mut lines)?;
        let mut lines = self.unexpected.iter().map(|name| shown(name));
        list("extra:   ", self.unexpected.len(), &mut lines)?;
        write!(f, "  help:     {}", self.help)
    }
}

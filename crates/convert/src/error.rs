//! What can go wrong, told as where, what was expected, what was found and what helps.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use tokenformer_base::shown;
use tokenformer_base::shown_shape;

/// Everything this crate refuses or fails at.
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
        /// The system's answer.
        source: io::Error,
    },
    /// A path that leads to no weights.
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
    /// Tensors and configuration do not belong together.
    #[error("{0}")]
    Tensors(Box<TensorMismatch>),
    /// A file that does not say what it should.
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
    /// A setting for which this program has no model.
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
    /// A setting that no model can have.
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
    /// All tensors of a model are there more than once.
    #[error(
        "{}: {} parts of it hold a whole model\n  expected: one\n  got:      {}\n  \
         help:     save the one that you mean by itself, for example torch.save(torch.load(path)[key], \"model.bin\")",
        path.display(), places.len(), few(places)
    )]
    Ambiguous {
        /// The weights.
        path: PathBuf,
        /// What each of them is in, quoted.
        places: Vec<String>,
    },
    /// Something else than numbers stands where a tensor is wanted.
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
        /// Where they differ first.
        at: String,
        /// What the first has there.
        expected: String,
        /// What the copy has there.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// A weight that is no number.
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
        /// Where in it, along each axis.
        index: Vec<usize>,
        /// What is there.
        got: f32,
    },
    /// A model that computes no numbers.
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
    /// A model that the published layout has no words for.
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
    /// A target that must not be written to.
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
        /// The file, or what else was asked for.
        what: String,
        /// The answer.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// Files of other programs.
    #[error(transparent)]
    Formats(#[from] tokenformer_formats::Error),
    /// Model directories.
    #[error(transparent)]
    Store(#[from] tokenformer_store::Error),
    /// Models.
    #[error(transparent)]
    Core(#[from] tokenformer_core::Error),
    /// Datasets and tokenizers.
    #[error(transparent)]
    Data(#[from] tokenformer_data::Error),
    /// Files of models.
    #[error(transparent)]
    Train(#[from] tokenformer_train::Error),
}

impl Error {
    /// Pairs an I/O error with its path, for `map_err`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
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

/// How tensors differ from what a configuration asks for.
#[derive(Debug, Default)]
pub struct TensorMismatch {
    /// The weights.
    pub path: PathBuf,
    /// The configuration.
    pub config: String,
    /// Tensors that the configuration asks for.
    pub wanted: usize,
    /// Names that are missing.
    pub missing: Vec<String>,
    /// Name, shape asked for and shape found.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Names that the configuration does not ask for.
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

/// Names of a kind that are told; of the others, how many there are.
const SHOWN: usize = 6;

/// The first of many, and how many more there are.
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

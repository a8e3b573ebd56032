//! Errors of models.

use tokenformer_device::DeviceError;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is impossible or contradicts another.
    #[error(
        "{field}: not a possible setting\n  expected: {expected}\n  got:      {got}\n  help:     {help}"
    )]
    Config {
        /// The setting, for example `model.heads`.
        field: String,
        /// What would be possible.
        expected: String,
        /// What was given.
        got: String,
        /// What to do.
        help: String,
    },
    /// The text of a model configuration cannot be read.
    #[error("{what}: {reason}\n  help:     {help}")]
    Format {
        /// What was being read.
        what: String,
        /// Why it failed.
        reason: String,
        /// What to do.
        help: String,
    },
    /// A named array is missing, or has another shape than the configuration says.
    #[error(
        "tensor {name}: {reason}\n  expected: shape {expected:?}\n  help:     the weights and the configuration belong to different models"
    )]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
        /// The shape that the configuration requires.
        expected: Vec<usize>,
    },
    /// A growth that must preserve the function changed it.
    #[error(
        "growth: the outputs moved\n  expected: {expected}\n  got:      {got}\n  help:     {help}"
    )]
    GrowthMoved {
        /// The guarantee.
        expected: String,
        /// How far they moved.
        got: String,
        /// What to do.
        help: &'static str,
    },
    /// The context window is full.
    #[error(
        "context: full\n  expected: at most {context} tokens\n  got:      {needed}\n  help:     shorten the prompt or ask for fewer new tokens"
    )]
    ContextFull {
        /// Positions that the model has.
        context: usize,
        /// Positions that would be needed.
        needed: usize,
    },
    /// A token number is not in the vocabulary.
    #[error(
        "token {token}: not in the vocabulary\n  expected: a number below {vocab}\n  help:     was the text made with another tokenizer than the model's?"
    )]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Tokens in the vocabulary.
        vocab: usize,
    },
    /// A class number is not among the model's.
    #[error(
        "class {class}: not known to the model\n  expected: a number below {classes}\n  help:     was the data set made with other classes than the model's?"
    )]
    ClassOutOfRange {
        /// The class.
        class: u32,
        /// Classes of the model.
        classes: usize,
    },
    /// A model of one kind of input was given another.
    #[error(
        "model: reads another kind of input\n  expected: {expected}\n  got:      {got}\n  help:     `inspect` shows what a model reads"
    )]
    OtherInput {
        /// What it reads.
        expected: &'static str,
        /// What it was given.
        got: &'static str,
    },
    /// A model without causal mask was asked to predict what follows in a text.
    #[error(
        "model: not causal\n  expected: a model in which a position sees only those before it\n  got:      an encoder without a mask\n  help:     an encoder sees the tokens that it would have to predict: it can neither continue a text nor be trained or measured on predicting one"
    )]
    NotCausal,
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Shorthand for [`Error::Config`].
pub(crate) fn config_error(
    field: impl Into<String>,
    expected: impl Into<String>,
    got: impl ToString,
    help: impl Into<String>,
) -> Error {
    Error::Config {
        field: field.into(),
        expected: expected.into(),
        got: got.to_string(),
        help: help.into(),
    }
}

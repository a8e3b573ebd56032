//! Bits per byte: losses over the bytes of the tokens that they were measured on.

use std::f64::consts::LN_2;
use tokenformer_data::{ByteCounts, TokenFile, Tokenizer};

/// How many bytes of text a token represents.
#[derive(Clone, Debug, PartialEq)]
pub enum ScoredBytes {
    /// The bytes of each token are known.
    Counted(ByteCounts),
    /// The tokenizer does not say; every token counts as the mean of the whole text, in bytes.
    Mean(f64),
    /// Nothing is known.
    Unknown,
}

impl ScoredBytes {
    /// The byte counts of the tokens of `text`.
    pub fn new(tokenizer: &Tokenizer, text: &TokenFile) -> Self {
        match ByteCounts::new(tokenizer) {
            Some(counts) => Self::Counted(counts),
            None if text.text_bytes() > 0 && text.len() > 0 => {
                Self::Mean(text.text_bytes() as f64 / text.len() as f64)
            }
            None => Self::Unknown,
        }
    }

    /// Bytes of `targets`, each of which follows the token of `inputs` at the same place.
    pub fn of(&self, inputs: &[u32], targets: &[u32]) -> Option<f64> {
        match self {
            Self::Counted(counts) => Some(counts.sum(inputs, targets) as f64),
            Self::Mean(bytes) => Some(bytes * targets.len() as f64),
            Self::Unknown => None,
        }
    }

    /// Whether [`Self::of`] counts bytes, as opposed to estimating them.
    pub fn is_counted(&self) -> bool {
        matches!(self, Self::Counted(_))
    }
}

/// Bits per byte of a summed loss of `nats` over tokens of `bytes` bytes; `None` if there are no bytes.
///
/// ```
/// # use tokenformer_train::bits_per_byte;
/// // Two tokens of 3 bytes each, with 3 bits of loss each.
/// assert_eq!(bits_per_byte(6.0 * std::f64::consts::LN_2, Some(6.0)), Some(1.0));
/// assert_eq!(bits_per_byte(1.0, Some(0.0)), None);
/// ```
pub fn bits_per_byte(nats: f64, bytes: Option<f64>) -> Option<f64> {
    let bytes = bytes.filter(|&bytes| bytes > 0.0)?;
    Some(nats / LN_2 / bytes)
}

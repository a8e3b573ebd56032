//! The tokenizer as written on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::train::{MAX_BPE_VOCAB_SIZE, MIN_BPE_VOCAB_SIZE};
use crate::error::{Error, Result};

/// Which tokenizer to use.
///
/// ```
/// use tokenformer_data::TokenizerSpec;
///
/// let spec: TokenizerSpec = "bpe:4096".parse()?;
/// assert_eq!(spec, TokenizerSpec::TrainBpe { vocab_size: 4096 });
/// assert_eq!(spec.to_string(), "bpe:4096");
/// # Ok::<(), tokenformer_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerSpec {
    /// `bytes`
    Bytes,
    /// `gpt2`: the encoding of GPT-2, which needs no file.
    Gpt2,
    /// `bpe:SIZE`: train a byte-pair encoding on the training text.
    TrainBpe {
        /// Wanted number of tokens, including the 256 bytes and the end-of-document token.
        vocab_size: usize,
    },
    /// `FILE.json`
    File(PathBuf),
}

impl FromStr for TokenizerSpec {
    type Err = Error;

    fn from_str(spec: &str) -> Result<Self> {
        let error = |problem: String| Error::TokenizerSpec {
            spec: spec.to_owned(),
            problem,
        };
        if spec == "bytes" {
            return Ok(Self::Bytes);
        }
        if spec == "gpt2" {
            return Ok(Self::Gpt2);
        }
        if let Some(size) = spec.strip_prefix("bpe:") {
            let vocab_size = size
                .parse()
                .map_err(|_| error(format!("{size:?} is not a number of tokens")))?;
            if !(MIN_BPE_VOCAB_SIZE..=MAX_BPE_VOCAB_SIZE).contains(&vocab_size) {
                return Err(error(format!(
                    "{vocab_size} tokens are outside {MIN_BPE_VOCAB_SIZE}..={MAX_BPE_VOCAB_SIZE}"
                )));
            }
            return Ok(Self::TrainBpe { vocab_size });
        }
        if spec.ends_with(".json") {
            return Ok(Self::File(spec.into()));
        }
        Err(error("not a tokenizer".into()))
    }
}

impl fmt::Display for TokenizerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => write!(f, "bytes"),
            Self::Gpt2 => write!(f, "gpt2"),
            Self::TrainBpe { vocab_size } => write!(f, "bpe:{vocab_size}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

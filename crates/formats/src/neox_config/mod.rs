//! Configurations of GPT-NeoX (YAML) and of published TokenFormer models (`config.json`, the same keys).
//!
//! The usual file is YAML that looks like JSON, with comments and commas before closing braces; plain `key: value` lines
//! work too. A key may be written with `-` or `_`.
//!
//! ```
//! use tokenformer_formats::neox_config::{NeoxConfig, Positions};
//!
//! # fn main() -> Result<(), tokenformer_formats::Error> {
//! let config = NeoxConfig::parse(&[("small.yml", r#"{
//!   "num_layers": 2, "hidden_size": 64, "num-attention-heads": 4,
//!   "qkv_slot_num": 64, "proj_slot_num": 64, "ffn_slot_num": 256, # parameter tokens
//!   "seq_length": 128, "pos_emb": "rotary", "rotary_pct": 0.25,
//!   "norm": "layernorm_nonparam", "final_norm": "layernorm",
//! }"#)])?;
//! assert_eq!(config.ffn_slot_num, 256);
//! assert_eq!(config.positions, Positions::Rotary { fraction: 0.25, base: 10000.0 });
//! assert_eq!(config.layernorm_epsilon, 1e-5);
//! # Ok(())
//! # }
//! ```
//!
//! Defaults are those of GPT-NeoX's `neox_arguments` with TokenFormer's additions.

mod check;
mod keys;
mod parse;
mod training;
mod value;

use std::path::Path;

pub use training::Training;
pub use value::ConfigValue;

use crate::{Error, Result, file};
use keys::Keys;

/// Size limit of a file; real ones have a few thousand bytes. Parsing YAML on one line takes memory of a hundred times
/// its length.
const MAX_FILE_BYTES: u64 = 128 << 10;

/// The model that a configuration describes, and its training settings for information.
#[derive(Clone, Debug, PartialEq)]
pub struct NeoxConfig {
    /// Blocks.
    pub num_layers: usize,
    /// Width.
    pub hidden_size: usize,
    /// Heads; they divide the width.
    pub num_attention_heads: usize,
    /// Parameter tokens of each query, key and value projection.
    pub qkv_slot_num: usize,
    /// Parameter tokens of each output projection.
    pub proj_slot_num: usize,
    /// Parameter tokens of each feed-forward layer.
    pub ffn_slot_num: usize,
    /// Tokens of a training sequence.
    pub seq_length: usize,
    /// Tokens of the longest sequence.
    pub max_position_embeddings: usize,
    /// The positional encoding.
    pub positions: Positions,
    /// Whether the output head has a separate matrix instead of sharing the embedding's.
    pub no_weight_tying: bool,
    /// The norm before attention and feed-forward layers.
    pub norm: Norm,
    /// The norm before the output head.
    pub final_norm: Norm,
    /// Added to the variance in all norms.
    pub layernorm_epsilon: f64,
    /// The nonlinearity over parameter tokens.
    pub norm_activation_type: NormActivation,
    /// The embedding's rows are padded to a multiple of this.
    pub make_vocab_size_divisible_by: usize,
    /// Initialisation of keys and embedding, by its name in GPT-NeoX.
    pub init_method: String,
    /// Initialisation of values, by its name in GPT-NeoX.
    pub output_layer_init_method: String,
    /// Standard deviation of the initialisations that use one.
    pub init_method_std: f64,
    /// How the model was trained.
    pub training: Training,
    /// Keys that have no effect here, sorted. None of them looks like an absent one that decides what the model computes.
    pub ignored: Vec<String>,
}

/// The positional encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Rotary embedding.
    Rotary {
        /// Share of a head's channels that is rotated, the first ones (`rotary_pct`).
        fraction: f64,
        /// Base of the frequencies (`rotary_emb_base`).
        base: f64,
    },
    /// No positions.
    None,
}

/// A layer norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Without gain and bias (`layernorm_nonparam`).
    Plain,
    /// With gain and bias (`layernorm`).
    Affine,
}

/// The nonlinearity over parameter tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormActivation {
    /// L2 norm, then GELU (`l2_norm_gelu`).
    L2NormGelu,
    /// GELU, then L2 norm (`gelu_l2_norm`).
    GeluL2Norm,
    /// Softmax times the number of tokens (`softmax`).
    Softmax,
}

impl NeoxConfig {
    /// Reads and merges files; a key in a later file overrides earlier ones.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Damaged`] for text that is not YAML, [`Error::Io`].
    pub fn load<P: AsRef<Path>>(paths: &[P]) -> Result<NeoxConfig> {
        let mut texts = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let location = path.display().to_string();
            let text =
                String::from_utf8(file::read_small(path, MAX_FILE_BYTES)?).map_err(|error| {
                    Error::Damaged {
                        location: location.clone(),
                        what: "the file is not text".into(),
                        expected: "YAML or JSON in UTF-8".into(),
                        got: format!(
                            "another byte at offset {}",
                            error.utf8_error().valid_up_to()
                        ),
                        help: "check that this is the file you mean",
                    }
                })?;
            texts.push((location, text));
        }
        let texts: Vec<(&str, &str)> = texts
            .iter()
            .map(|(location, text)| (&**location, &**text))
            .collect();
        NeoxConfig::parse(&texts)
    }

    /// Reads and merges texts, each with its name for messages; a key in a later text overrides earlier ones.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Damaged`] for text that is not YAML.
    pub fn parse(texts: &[(&str, &str)]) -> Result<NeoxConfig> {
        let mut keys = Keys::default();
        for (location, text) in texts {
            keys.merge(location, parse::mapping(location, text)?)?;
        }
        check::config(keys)
    }
}

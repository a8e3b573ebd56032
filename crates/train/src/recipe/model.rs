//! `[model]`: the architecture, as a preset and what differs from it.

use super::tables::is_default;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tokenformer_core::config::{
    Family, HeadKind, Init, Input, LogitScale, NormKind, NormSpan, Positions, Residual, Slots,
    Theta,
};
use tokenformer_core::presets::Preset;
use tokenformer_core::{ModelConfig, ModelSpec};

/// How positions enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PositionKind {
    /// Rotary embedding.
    Rotary,
    /// A learned vector per position.
    Learned,
    /// Sines and cosines of an image's columns and rows.
    #[serde(rename = "sincos2d")]
    SinCos2d,
    /// None.
    None,
}

/// `[model]`: a preset, and what differs from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ModelTable {
    /// The preset that gave the values that the recipe does not set.
    pub preset: String,
    /// `tokenformer`, or `gpt` for a plain Transformer.
    #[serde(default)]
    pub family: Family,
    /// What the model reads; tokens by default.
    #[serde(default, skip_serializing_if = "Input::is_tokens")]
    pub input: Input,
    /// Tokens of the vocabulary; 0 takes the tokenizer's. Classes of an image model.
    pub vocab: usize,
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    /// Positions; 0 takes those of an image's patches.
    pub context: usize,
    pub slots: Slots,
    pub theta: Theta,
    pub norm: NormSpan,
    /// Hidden width of the MLPs of a plain Transformer; 0 for four times the width.
    #[serde(default)]
    pub mlp_hidden: usize,
    /// Whether the linear layers of a plain Transformer have biases.
    #[serde(default)]
    pub bias: bool,
    /// Whether a position sees only itself and those before it.
    #[serde(default = "yes")]
    pub causal: bool,
    #[serde(default)]
    pub residual: Residual,
    pub positions: PositionKind,
    pub rotary_fraction: f64,
    pub rotary_base: f64,
    #[serde(default = "plain")]
    pub block_norm: NormKind,
    pub final_norm: NormKind,
    #[serde(default)]
    pub head: HeadKind,
    /// Whether an untied head has a bias.
    #[serde(default, skip_serializing_if = "is_default")]
    pub head_bias: bool,
    pub logit_scale: LogitScale,
    pub init: Init,
}

pub(super) fn yes() -> bool {
    true
}

fn plain() -> NormKind {
    NormKind::Plain
}

impl ModelTable {
    /// The values of a preset; its vocabulary is left to the tokenizer.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn from_preset(name: &str) -> Result<Self> {
        let spec = Preset::named(name)?.spec();
        let (positions, rotary_fraction, rotary_base) = match spec.positions {
            Positions::Rotary { fraction, base } => (PositionKind::Rotary, fraction, base),
            Positions::Learned => (PositionKind::Learned, 0.25, 10_000.0),
            Positions::SinCos2d => (PositionKind::SinCos2d, 0.25, 10_000.0),
            Positions::None => (PositionKind::None, 0.25, 10_000.0),
        };
        Ok(Self {
            preset: name.into(),
            family: spec.family,
            input: spec.input,
            vocab: 0,
            width: spec.width,
            layers: spec.layers,
            heads: spec.heads,
            context: spec.context,
            slots: spec.slots,
            theta: spec.theta,
            norm: spec.norm,
            mlp_hidden: spec.mlp_hidden,
            bias: spec.bias,
            causal: spec.causal,
            residual: spec.residual,
            positions,
            rotary_fraction,
            rotary_base,
            block_norm: spec.block_norm,
            final_norm: spec.final_norm,
            head: spec.head,
            head_bias: spec.head_bias,
            logit_scale: spec.logit_scale,
            init: spec.init,
        })
    }

    /// The fresh model for a tokenizer of `tokenizer_vocab` tokens.
    ///
    /// # Errors
    /// If the sizes are impossible, the vocabulary is smaller than the tokenizer's, or a model of text sees what it should
    /// predict.
    pub fn build(&self, tokenizer_vocab: usize) -> Result<ModelConfig> {
        let vocab = if self.vocab == 0 {
            tokenizer_vocab
        } else {
            self.vocab
        };
        if vocab < tokenizer_vocab {
            return Err(Error::Recipe {
                place: "model.vocab".into(),
                problem: "the dataset's tokenizer has more tokens than the model".into(),
                expected: format!("at least {tokenizer_vocab}, or 0 to take the tokenizer's"),
                got: vocab.to_string(),
                help: "set model.vocab = 0, or prepare the data with another tokenizer".into(),
            });
        }
        if self.input.is_tokens() && !self.causal {
            return Err(Error::Recipe {
                place: "model.causal".into(),
                problem: "not causal".into(),
                expected: "true, for a model in which a position sees only those before it".into(),
                got: "false, for an encoder without a mask".into(),
                help: "an encoder sees the tokens that it should predict, so its loss means nothing; leave model.causal out".into(),
            });
        }
        let Slots { qkv, proj, ffn } = self.slots;
        for (key, tokens) in [("qkv", qkv), ("proj", proj), ("ffn", ffn)] {
            if tokens > 0 && self.family == Family::Gpt {
                return Err(Error::Recipe {
                    place: format!("model.slots.{key}"),
                    problem: "a plain Transformer has no parameter tokens".into(),
                    expected: "0, with model.family = \"gpt\"".into(),
                    got: tokens.to_string(),
                    help: "model.mlp_hidden sets the width of its MLPs".into(),
                });
            }
            if tokens == 0 && self.family == Family::Tokenformer {
                return Err(Error::Recipe {
                    place: format!("model.slots.{key}"),
                    problem: "a site without tokens computes nothing".into(),
                    expected: "at least 1".into(),
                    got: "0".into(),
                    help: "`config presets` lists sizes that work".into(),
                });
            }
        }
        let positions = match self.positions {
            PositionKind::Rotary => Positions::Rotary {
                fraction: self.rotary_fraction,
                base: self.rotary_base,
            },
            PositionKind::Learned => Positions::Learned,
            PositionKind::SinCos2d => Positions::SinCos2d,
            PositionKind::None => Positions::None,
        };
        let spec = ModelSpec {
            family: self.family,
            input: self.input,
            vocab,
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            context: self.context,
            slots: self.slots,
            theta: self.theta,
            norm: self.norm,
            mlp_hidden: self.mlp_hidden,
            bias: self.bias,
            causal: self.causal,
            residual: self.residual,
            positions,
            block_norm: self.block_norm,
            final_norm: self.final_norm,
            head: self.head,
            head_bias: self.head_bias,
            logit_scale: self.logit_scale,
            init: self.init,
        };
        Ok(spec.build()?)
    }
}

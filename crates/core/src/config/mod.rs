//! The configuration of a model: everything that is needed to rebuild it, apart from the weights.
//!
//! [`ModelConfig`] is stored as `config.json` in every model directory (`docs/formats.md`). It describes every layer
//! of every block, with the segments of its parameter tokens, so a grown model needs no further information. A fresh
//! one is made from a [`ModelSpec`], the `[model]` table of a recipe. What only training needs, a `τ` that moves or
//! which arrays are frozen, is [`TrainingSettings`].

mod check;
mod input;
mod layer;
mod legacy;
mod spec;
mod stages;
mod training;

pub use crate::path::SiteKind;
pub use input::{ImageInput, Input, Pool};
pub use layer::{BlockConfig, LayerConfig, MlpPart, SegmentConfig, SiteConfig};
pub use spec::{Family, ModelSpec, Slots};
pub use tokenformer_device::{NormSpan, Theta};
pub use training::{Anneal, BaseSizes, ParamTraining, Tracked, TrainingSettings};

pub(crate) use check::{MAX_LAYERS, MAX_SIZE};
pub(crate) use training::in_block;

use crate::error::{Error, Result};
use crate::version::Version;
use serde::{Deserialize, Serialize};

/// Version of the `config.json` format that this code writes. Version 1 is read as well.
pub const FORMAT_VERSION: u32 = 2;

/// How positions enter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Positions {
    /// Rotary embedding on the first `fraction` of each head's channels.
    Rotary {
        /// Share of a head's channels that is rotated.
        fraction: f64,
        /// Base of the frequencies.
        base: f64,
    },
    /// A learned vector per position, added to the embedding, as in GPT-2.
    Learned,
    /// For images: sines and cosines of a patch's column and row, added to its embedding; not learned.
    #[serde(rename = "sincos2d")]
    SinCos2d,
    /// None: only the causal mask distinguishes positions.
    None,
}

/// A LayerNorm's learnable part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormKind {
    /// Gain and bias.
    #[default]
    Affine,
    /// None, as inside the blocks of the published language models.
    Plain,
}

/// How a block's two branches join the residual stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Residual {
    /// `h = h + attention(norm(h))`, then `h = h + ffn(norm(h))`.
    #[default]
    Sequential,
    /// `h = h + attention(norm(h)) + ffn(norm(h))`, as in GPT-J and GPT-NeoX.
    Parallel,
}

/// The output head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// The embedding table serves as head.
    #[default]
    Tied,
    /// A separate table.
    Untied,
}

/// Factor of the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogitScale {
    /// 1, as in the published language models.
    #[default]
    One,
    /// 1/√width, as in the paper's growth study.
    InverseSqrtWidth,
}

/// How fresh weights of the blocks and of the embedding are drawn. `D` is the width, `L` the number of blocks. In image
/// models the patch weight is N(0, 1/inputs), class token and positions N(0, 0.02²), and the head 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// The released PyTorch code: keys, embedding and linear weights that read the residual stream N(0, 0.02²);
    /// values and linear weights that write to it N(0, (2/(L·√D))²).
    #[default]
    Released,
    /// The paper's growth study: keys N(0, 1/D), values N(0, 1/N), linear weights N(0, 1/inputs), embedding N(0, 1).
    FanIn,
}

/// A model's architecture, down to the segments of each site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Always `tokenformer`.
    pub format: String,
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// What the model reads.
    #[serde(default, skip_serializing_if = "Input::is_tokens")]
    pub input: Input,
    /// Tokens `V` of the vocabulary, padding included; classes of an image model.
    pub vocab: usize,
    /// Width `D`.
    pub width: usize,
    /// Attention heads `H`; a head has `D/H` channels.
    pub heads: usize,
    /// Positions `T` that the model is trained for and can attend to; of an image model [`ImageInput::positions`].
    pub context: usize,
    /// Whether a position sees only itself and those before it. A bidirectional encoder has no mask.
    #[serde(default = "yes")]
    pub causal: bool,
    /// How branches join the residual stream.
    #[serde(default)]
    pub residual: Residual,
    /// How positions enter.
    pub positions: Positions,
    /// ε of the LayerNorms.
    pub norm_eps: f64,
    /// The two norms of each block.
    #[serde(default = "plain")]
    pub block_norm: NormKind,
    /// The last norm.
    #[serde(default)]
    pub final_norm: NormKind,
    /// The output head.
    #[serde(default)]
    pub head: HeadKind,
    /// Whether an untied head has a bias.
    #[serde(default, skip_serializing_if = "is_no")]
    pub head_bias: bool,
    /// Factor of the logits.
    #[serde(default)]
    pub logit_scale: LogitScale,
    /// How fresh weights are drawn (growth uses it too).
    #[serde(default)]
    pub init: Init,
    /// The blocks, first to last.
    pub blocks: Vec<BlockConfig>,
}

fn yes() -> bool {
    true
}

fn is_no(flag: &bool) -> bool {
    !flag
}

fn plain() -> NormKind {
    NormKind::Plain
}

impl ModelConfig {
    /// Reads and checks `config.json` text; `origin` names it in messages. Version 1 kept in the same file what only
    /// training needs; it is returned with the configuration, and empty for later versions.
    ///
    /// # Errors
    /// [`Error::Format`] for an unknown version or key or malformed JSON, [`Error::Config`] for impossible settings.
    pub fn from_json(text: &str, origin: &str) -> Result<(Self, TrainingSettings)> {
        let format = |reason: String, help: &str| Error::Format {
            what: origin.into(),
            reason,
            help: help.into(),
        };
        // The version is read first and alone, so that a later one is named as such and not by what it added.
        let Version(version) = serde_json::from_str(text)
            .map_err(|e| format(e.to_string(), "the file must be a JSON object"))?;
        let malformed =
            |e: serde_json::Error| format(e.to_string(), "docs/formats.md lists the keys");
        let (config, training) = match version {
            Some(1) => serde_json::from_str::<legacy::Version1>(text)
                .map_err(malformed)?
                .upgrade(),
            Some(v) if v == u64::from(FORMAT_VERSION) => (
                serde_json::from_str(text).map_err(malformed)?,
                TrainingSettings::default(),
            ),
            _ => {
                let got = version.map_or("no version".into(), |v| format!("version {v}"));
                let reason = format!(
                    "unknown format\n  expected: version 1 or {FORMAT_VERSION}\n  got:      {got}"
                );
                return Err(format(
                    reason,
                    "use the program version that wrote this model",
                ));
            }
        };
        config.validate()?;
        training.validate()?;
        Ok((config, training))
    }

    /// The text of `config.json`.
    pub fn to_json(&self) -> String {
        // Writing to memory fails for maps with other keys than strings alone, and there is no map in it.
        let mut text =
            serde_json::to_string_pretty(self).expect("plain data with string keys serialises");
        text.push('\n');
        text
    }

    /// Blocks `L`.
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Classes that an image model distinguishes, the rows of its head.
    pub fn classes(&self) -> usize {
        self.vocab
    }

    /// Channels of a head.
    pub fn channels(&self) -> usize {
        self.width / self.heads
    }

    /// Rotated channels per head; 0 without rotary positions.
    pub fn rotary_dims(&self) -> usize {
        match self.positions {
            Positions::Rotary { fraction, .. } => (self.channels() as f64 * fraction) as usize,
            Positions::Learned | Positions::SinCos2d | Positions::None => 0,
        }
    }

    /// The factor of the logits.
    pub fn logit_factor(&self) -> f32 {
        match self.logit_scale {
            LogitScale::One => 1.0,
            LogitScale::InverseSqrtWidth => 1.0 / (self.width as f32).sqrt(),
        }
    }

    /// Learnable numbers of all layers of all blocks, biases included: `2·D·ΣN` for a model of sites.
    pub fn body_params(&self) -> u64 {
        let layers = self.blocks.iter().flat_map(BlockConfig::layers);
        layers.map(|layer| layer.params(self.width)).sum()
    }

    /// Learnable numbers in all.
    pub fn params(&self) -> u64 {
        let d = self.width as u64;
        let norm = |kind| match kind {
            NormKind::Affine => 2 * d,
            NormKind::Plain => 0,
        };
        let table = self.vocab as u64 * d;
        let front = match &self.input {
            Input::Tokens => table,
            Input::Image(image) => {
                (image.patch_len() as u64 + 1 + u64::from(image.has_class_token())) * d
            }
        };
        let positions = match self.positions {
            Positions::Learned => self.context as u64 * d,
            Positions::Rotary { .. } | Positions::SinCos2d | Positions::None => 0,
        };
        let head = match self.head {
            HeadKind::Tied => 0,
            HeadKind::Untied => table + u64::from(self.head_bias) * self.vocab as u64,
        };
        let norms = 2 * self.layers() as u64 * norm(self.block_norm) + norm(self.final_norm);
        self.body_params() + front + positions + head + norms
    }

    /// Numbers of all matrices of the blocks: the multiply-adds of a row.
    fn body_matrices(&self) -> u64 {
        let layers = self.blocks.iter().flat_map(BlockConfig::layers);
        layers.map(|layer| layer.matrix_params(self.width)).sum()
    }

    /// Multiply-adds of embedding the patches of an image; 0 for a language model.
    fn patch_products(&self) -> f64 {
        let image = self.input.image();
        image.map_or(0.0, |image| (image.patches() * image.patch_len()) as f64) * self.width as f64
    }

    /// Floating-point operations of the forward pass of one image, two per multiply-add: `2·P·C·ph·pw·D` for the patches,
    /// `T·(2·body + 4·L·D·T)` for the blocks and `2·V·D` for the head. Of a language model, of a whole context.
    pub fn forward_flops(&self) -> f64 {
        let (d, t) = (self.width as f64, self.context as f64);
        let attention = 4.0 * self.layers() as f64 * d * t;
        let blocks = t * (2.0 * self.body_matrices() as f64 + attention);
        let heads = if self.input.is_tokens() { t } else { 1.0 };
        2.0 * self.patch_products() + blocks + heads * 2.0 * self.vocab as f64 * d
    }

    /// Floating-point operations of training on one image, with nothing frozen: three times those of
    /// [`ModelConfig::forward_flops`], and `30·T·hidden` for the nonlinearities, less the gradient of the pixels, which
    /// nobody needs. Of a language model, of a whole context.
    pub fn train_flops(&self) -> f64 {
        let units = (self.context * self.hidden_units()) as f64;
        3.0 * (self.forward_flops() + 10.0 * units) - 2.0 * self.patch_products()
    }

    /// Parameter tokens of all sites, or hidden units of all MLPs.
    fn hidden_units(&self) -> usize {
        let layers = self.blocks.iter().flat_map(BlockConfig::layers);
        layers.map(LayerConfig::hidden).sum()
    }

    /// Floating-point operations of one token's forward pass at context length `t`, two per multiply-add:
    /// `2·body + 4·L·D·t + 2·V·D`, where `body` are the numbers of all matrices of the blocks (paper, table 3; no credit
    /// for the causal mask). For an image model `t` is ignored and the image's number of positions is used.
    pub fn forward_flops_per_token(&self, t: usize) -> f64 {
        if !self.input.is_tokens() {
            return self.forward_flops() / self.context as f64;
        }
        let (d, v) = (self.width as f64, self.vocab as f64);
        let attention = 4.0 * self.layers() as f64 * d * t as f64;
        2.0 * self.body_matrices() as f64 + attention + 2.0 * v * d
    }

    /// Floating-point operations of training on one token at context length `t`, with nothing frozen:
    /// `3·(2·body + 4·L·D·t + 2·V·D + 10·hidden)`, where `hidden` are all parameter tokens, or hidden units of MLPs. The
    /// products of the backward pass cost twice those of the forward pass. [`crate::Gradients::flops`] counts what is
    /// done, and [`crate::Model::train_flops_per_token`] leaves out the gradients of what is frozen. Of an image model,
    /// those of an image over its positions.
    pub fn train_flops_per_token(&self, t: usize) -> f64 {
        if !self.input.is_tokens() {
            return self.train_flops() / self.context as f64;
        }
        3.0 * (self.forward_flops_per_token(t) + 10.0 * self.hidden_units() as f64)
    }
}

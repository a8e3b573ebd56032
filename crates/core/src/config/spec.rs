//! A fresh model, before any growth.

use super::{
    BlockConfig, FORMAT_VERSION, HeadKind, Init, Input, LayerConfig, LogitScale, MAX_LAYERS,
    ModelConfig, NormKind, Positions, Residual, SiteConfig, check,
};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use tokenformer_device::{NormSpan, Theta};

/// What the layers of a fresh model's blocks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Pattention sites in all five places.
    #[default]
    Tokenformer,
    /// Linear projections and an MLP: a plain Transformer.
    Gpt,
}

/// Parameter tokens per site of a fresh model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// Parameter tokens of the query, key and value projections, each.
    pub qkv: usize,
    /// Parameter tokens of the output projection.
    pub proj: usize,
    /// Parameter tokens of the feed-forward network.
    pub ffn: usize,
}

/// A fresh model: the `[model]` table of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// What the layers are.
    pub family: Family,
    /// What the model reads.
    pub input: Input,
    /// Tokens of the vocabulary; 0 takes the tokenizer's. Classes of an image model.
    pub vocab: usize,
    /// Width `D`.
    pub width: usize,
    /// Blocks `L`.
    pub layers: usize,
    /// Attention heads `H`.
    pub heads: usize,
    /// Positions `T`; 0 takes those of the image's patches.
    pub context: usize,
    /// Parameter tokens per site, of a TokenFormer.
    pub slots: Slots,
    /// Nonlinearity, of a TokenFormer.
    pub theta: Theta,
    /// Span of the sites' norms, of a TokenFormer.
    pub norm: NormSpan,
    /// Hidden width of the MLPs, of a GPT; 0 for `4·width`.
    pub mlp_hidden: usize,
    /// Whether linear layers have biases, of a GPT.
    pub bias: bool,
    /// Whether a position sees only itself and those before it.
    pub causal: bool,
    /// How branches join the residual stream.
    pub residual: Residual,
    /// How positions enter.
    pub positions: Positions,
    /// The norms of the blocks.
    pub block_norm: NormKind,
    /// The last norm.
    pub final_norm: NormKind,
    /// The output head.
    pub head: HeadKind,
    /// Whether an untied head has a bias.
    pub head_bias: bool,
    /// Factor of the logits.
    pub logit_scale: LogitScale,
    /// How weights are drawn.
    pub init: Init,
}

impl Default for ModelSpec {
    /// The choices of the published language models, without any size.
    fn default() -> Self {
        Self {
            family: Family::Tokenformer,
            input: Input::Tokens,
            vocab: 0,
            width: 0,
            layers: 0,
            heads: 0,
            context: 0,
            slots: Slots::default(),
            theta: Theta::L2NormGelu,
            norm: NormSpan::Joint,
            mlp_hidden: 0,
            bias: false,
            causal: true,
            residual: Residual::Sequential,
            positions: Positions::Rotary {
                fraction: 0.25,
                base: 10_000.0,
            },
            block_norm: NormKind::Plain,
            final_norm: NormKind::Affine,
            head: HeadKind::Tied,
            head_bias: false,
            logit_scale: LogitScale::One,
            init: Init::Released,
        }
    }
}

impl ModelSpec {
    /// The configuration of the fresh model.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for impossible settings.
    pub fn build(&self) -> Result<ModelConfig> {
        check::size("layers", self.layers, MAX_LAYERS)?;
        let context = match (self.context, &self.input) {
            (0, Input::Image(image)) => {
                image.check("input")?;
                image.positions()
            }
            (context, _) => context,
        };
        let config = ModelConfig {
            format: "tokenformer".into(),
            version: FORMAT_VERSION,
            input: self.input,
            vocab: self.vocab,
            width: self.width,
            heads: self.heads,
            context,
            causal: self.causal,
            residual: self.residual,
            positions: self.positions,
            norm_eps: match self.input {
                Input::Tokens => 1e-5,
                // What timm's and most other vision Transformers have.
                Input::Image(_) => 1e-6,
            },
            block_norm: self.block_norm,
            final_norm: self.final_norm,
            head: self.head,
            head_bias: self.head_bias,
            logit_scale: self.logit_scale,
            init: self.init,
            blocks: vec![self.block(); self.layers],
        };
        config.validate()?;
        Ok(config)
    }

    fn block(&self) -> BlockConfig {
        let bias = self.bias;
        let site = |tokens| {
            LayerConfig::Pattention(SiteConfig::fresh(tokens, self.theta, self.norm, 0, 0))
        };
        let [qkv, proj, ffn] = match self.family {
            Family::Tokenformer => [self.slots.qkv, self.slots.proj, self.slots.ffn].map(site),
            Family::Gpt => {
                let hidden = match self.mlp_hidden {
                    0 => self.width.saturating_mul(4),
                    hidden => hidden,
                };
                let linear = LayerConfig::Linear { bias };
                [
                    linear.clone(),
                    linear,
                    LayerConfig::Mlp {
                        hidden,
                        bias,
                        parts: Vec::new(),
                    },
                ]
            }
        };
        BlockConfig {
            stage: 0,
            query: qkv.clone(),
            key: qkv.clone(),
            value: qkv,
            proj,
            ffn,
        }
    }
}

//! The network: embedding of tokens or of an image's patches, blocks, final norm, output head.
//!
//! ```text
//! h = E[token]                            (+ P[position])
//! for each block:
//!     u = LN(h)
//!     c = attention(rotary(query(u)), rotary(key(u)), value(u))     softmax attention between tokens
//!     h = h + proj(c)
//!     h = h + ffn(LN(h))
//! logits = scale · LN_final(h)·Eᵀ
//! ```
//!
//! An image model has `h = [class; patches·Wᵀ + b] + P[position]`, and `logits = LN_final(pool(h))·Wᵀ + b`, where `pool` takes
//! the row of the class token, or the mean of the rows.
//!
//! The layers `query`, `key`, `value`, `proj` and `ffn` are Pattention sites in a TokenFormer, and linear projections
//! and an MLP in a plain Transformer ([`crate::layers`], [`crate::block`]). Training runs the forward pass with a
//! tape, inference without, decoding with a [`Cache`].
//!
//! The whole network is here, from its inputs to its losses, in the order of the formulas above.

pub(crate) mod each;
mod fired;
mod seen;
mod training;

use crate::block::{AttentionSettings, Block};
use crate::build::{Builder, Weights, trunk};
use crate::cache::Cache;
use crate::config::{
    BaseSizes, FORMAT_VERSION, HeadKind, Init, Input, LogitScale, ModelConfig, NormKind, Positions,
    SiteKind,
};
use crate::error::{Error, Result};
use crate::graph::{Blocks, Graph, LossTargets, OutputHead};
use crate::init;
use crate::input_layer::InputLayer;
use crate::layers::Norm;
use crate::param::Param;
use crate::path::{ParamPath, ParamRole};
use crate::tensor::Tensor;
pub use fired::TokenWeights;
pub use seen::{ImageTrace, SiteTrace};
use std::collections::HashMap;
use std::sync::Arc;
use tokenformer_device::{Device, Role, RotaryTable, WeightFormat};

/// A Transformer on a device, of language or of images: a TokenFormer, or a plain one.
#[derive(Debug)]
pub struct Model {
    device: Arc<dyn Device>,
    spec: Spec,
    input_layer: InputLayer,
    blocks: Vec<Block>,
    attend: AttentionSettings,
    final_norm: Norm,
    /// A separate output head; `None` if it is tied to the embedding.
    head: Option<Head>,
    next_id: usize,
    base: BaseSizes,
}

/// A separate output head.
#[derive(Debug)]
struct Head {
    table: Param,
    bias: Option<Param>,
}

/// Settings that no part of the network holds.
#[derive(Clone, Debug)]
struct Spec {
    width: usize,
    context: usize,
    norm_eps: f64,
    block_norm: NormKind,
    positions: Positions,
    logit_scale: LogitScale,
    init: Init,
}

/// Name of a layer in files: `blocks.3.ffn`.
pub fn site_name(block: usize, kind: SiteKind) -> String {
    format!("blocks.{block}.{}", kind.name())
}

impl Model {
    /// A model with fresh random weights.
    ///
    /// # Errors
    /// If the configuration is impossible or memory is short.
    pub fn fresh(device: &Arc<dyn Device>, config: &ModelConfig, seed: u64) -> Result<Self> {
        Self::build(device, config, &mut |path, shape| {
            init::fresh(config, seed, path, shape)
        })
    }

    /// As [`Model::fresh`], for inference.
    ///
    /// # Errors
    /// As [`Model::build_for_inference`].
    pub fn fresh_for_inference(
        device: &Arc<dyn Device>,
        config: &ModelConfig,
        format: WeightFormat,
        seed: u64,
    ) -> Result<Self> {
        Self::build_for_inference(device, config, format, &mut |path, shape| {
            init::fresh(config, seed, path, shape)
        })
    }

    /// A model whose arrays come from `weights`, called once per array by path and shape.
    ///
    /// # Errors
    /// If the configuration is impossible, memory is short, or `weights` fails.
    pub fn build(
        device: &Arc<dyn Device>,
        config: &ModelConfig,
        weights: &mut Weights<'_>,
    ) -> Result<Self> {
        Self::assemble(
            config,
            Builder {
                device,
                next_id: 0,
                weights,
                kept: HashMap::new(),
                pack: None,
            },
        )
    }

    /// As [`Model::build`], for inference: every matrix is packed in the form in which the device multiplies with
    /// it fastest, as soon as it is read, and stored in no other. Such a model cannot be trained or grown.
    ///
    /// # Errors
    /// As [`Model::build`], and if the device does not know the format.
    pub fn build_for_inference(
        device: &Arc<dyn Device>,
        config: &ModelConfig,
        format: WeightFormat,
        weights: &mut Weights<'_>,
    ) -> Result<Self> {
        Self::assemble(
            config,
            Builder {
                device,
                next_id: 0,
                weights,
                kept: HashMap::new(),
                pack: Some(format),
            },
        )
    }

    pub(crate) fn assemble(config: &ModelConfig, mut builder: Builder<'_, '_>) -> Result<Self> {
        config.validate()?;
        let (d, device) = (config.width, Arc::clone(builder.device));
        let input_layer = InputLayer::build(&mut builder, config)?;
        let blocks = (config.blocks.iter().enumerate())
            .map(|(b, block)| builder.block(b, block, config))
            .collect::<Result<Vec<_>>>()?;
        let final_norm = builder.norm(None, "final_norm", config.final_norm, config)?;
        let head = match config.head {
            HeadKind::Tied => None,
            HeadKind::Untied => {
                let place = trunk(config, "head");
                let table = builder.table(place, ParamRole::Head, [config.vocab, d])?;
                let bias = ParamPath::new(place, ParamRole::Bias);
                let bias = match config.head_bias {
                    true => Some(builder.param(bias, vec![config.vocab])?),
                    false => None,
                };
                Some(Head { table, bias })
            }
        };
        let rotary = match config.positions {
            Positions::Rotary { base, .. } => {
                let dims = config.rotary_dims();
                let [cos, sin] = RotaryTable::numbers(config.context, dims, base);
                Some(Arc::new(RotaryTable {
                    dims,
                    cos: device.alloc_from(cos, Role::Weight)?,
                    sin: device.alloc_from(sin, Role::Weight)?,
                }))
            }
            Positions::Learned | Positions::SinCos2d | Positions::None => None,
        };
        let next_id = builder.next_id;
        Ok(Self {
            device,
            spec: Spec {
                width: d,
                context: config.context,
                norm_eps: config.norm_eps,
                block_norm: config.block_norm,
                positions: config.positions,
                logit_scale: config.logit_scale,
                init: config.init,
            },
            input_layer,
            blocks,
            attend: AttentionSettings {
                heads: config.heads,
                causal: config.causal,
                residual: config.residual,
                blocks: config.layers(),
                rotary,
            },
            final_norm,
            head,
            next_id,
            base: BaseSizes::default(),
        })
    }

    /// The current configuration.
    pub fn config(&self) -> ModelConfig {
        let s = &self.spec;
        ModelConfig {
            format: "tokenformer".into(),
            version: FORMAT_VERSION,
            input: self.input_layer.input(),
            vocab: self.vocab(),
            width: s.width,
            heads: self.attend.heads,
            context: s.context,
            causal: self.attend.causal,
            residual: self.attend.residual,
            positions: s.positions,
            norm_eps: s.norm_eps,
            block_norm: s.block_norm,
            final_norm: match self.final_norm.affine {
                Some(_) => NormKind::Affine,
                None => NormKind::Plain,
            },
            head: match self.head {
                Some(_) => HeadKind::Untied,
                None => HeadKind::Tied,
            },
            head_bias: self.head.as_ref().is_some_and(|head| head.bias.is_some()),
            logit_scale: s.logit_scale,
            init: s.init,
            blocks: self.blocks.iter().map(Block::config).collect(),
        }
    }

    /// The device that the model lives on.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Tokens of the vocabulary; classes of an image model.
    pub fn vocab(&self) -> usize {
        self.output_head().table.shape()[0]
    }

    /// What the model reads.
    pub fn input(&self) -> Input {
        self.input_layer.input()
    }

    /// Positions that the model can attend to.
    pub fn context(&self) -> usize {
        self.spec.context
    }

    /// The blocks, first to last.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Takes all arrays out, by name, with the number of the next one. What stays must be replaced by another model.
    pub(crate) fn take_params(&mut self) -> (HashMap<String, Param>, usize) {
        let params = self.each_param_mut().map(Param::take);
        let by_name = params.map(|p| (p.name().to_string(), p)).collect();
        (by_name, self.next_id)
    }

    /// All parameters in the order of files: embedding (patches and class token of an image model), positions, blocks,
    /// final norm, head.
    pub fn params(&self) -> Vec<&Param> {
        self.each_param().collect()
    }

    /// As [`Model::params`], one after the other.
    pub fn each_param(&self) -> impl Iterator<Item = &Param> {
        let head = self.head.iter();
        (self.input_layer.params())
            .chain(self.blocks.iter().flat_map(Block::params))
            .chain(self.final_norm.affine.iter().flatten())
            .chain(head.flat_map(|head| std::iter::once(&head.table).chain(&head.bias)))
    }

    /// As [`Model::params`], to change.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        self.each_param_mut().collect()
    }

    /// As [`Model::params_mut`], one after the other.
    pub fn each_param_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        let head = self.head.iter_mut();
        (self.input_layer.params_mut())
            .chain(self.blocks.iter_mut().flat_map(Block::params_mut))
            .chain(self.final_norm.affine.iter_mut().flatten())
            .chain(head.flat_map(|head| std::iter::once(&mut head.table).chain(&mut head.bias)))
    }

    /// Learnable numbers.
    pub fn param_count(&self) -> u64 {
        self.each_param().map(|p| p.len() as u64).sum()
    }

    /// An empty cache for `batch` sequences of at most `capacity` positions.
    ///
    /// # Errors
    /// If memory is short, the model has fewer positions, or it is not causal and so cannot be continued token by
    /// token.
    pub fn cache(&self, batch: usize, capacity: usize) -> Result<Cache> {
        self.ensure_causal()?;
        if capacity > self.spec.context {
            return Err(Error::ContextFull {
                context: self.spec.context,
                needed: capacity,
            });
        }
        let (layers, width) = (self.blocks.len(), self.spec.width);
        Cache::new(&self.device, layers, batch, capacity, width)
    }

    /// Checks that a position sees only itself and those before it, without which a loss of next tokens means nothing.
    ///
    /// # Errors
    /// [`Error::NotCausal`] for an encoder.
    pub fn ensure_causal(&self) -> Result<()> {
        match self.attend.causal {
            true => Ok(()),
            false => Err(Error::NotCausal),
        }
    }

    /// Checks that every token is in the vocabulary.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`] with the first that is not.
    pub fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        match tokens.iter().find(|&&t| t as usize >= self.vocab()) {
            Some(&token) => Err(Error::TokenOutOfRange {
                token,
                vocab: self.vocab(),
            }),
            None => Ok(()),
        }
    }

    /// Hidden states `[B, T, D]` after the final norm, for `tokens` `[B, T]`. With a `cache`, the tokens
    /// follow those that it has seen, and it takes them in.
    ///
    /// # Errors
    /// If the model reads images, a token is not in the vocabulary, the context is full, or the device fails.
    ///
    /// # Panics
    /// If `tokens` is not a whole number of sequences, or a cache is for another number of them.
    pub fn hidden<'m>(
        &'m self,
        g: &mut Graph<'m>,
        tokens: &[u32],
        batch: usize,
        mut cache: Option<&mut Cache>,
    ) -> Result<Tensor> {
        let InputLayer::Tokens(input_layer) = &self.input_layer else {
            let (expected, got) = ("images", "tokens");
            return Err(Error::OtherInput { expected, got });
        };
        self.check_tokens(tokens)?;
        assert!(
            batch > 0 && tokens.len().is_multiple_of(batch),
            "tokens are [B, T]"
        );
        let length = tokens.len() / batch;
        let seen = cache.as_ref().map_or(0, |c| c.len());
        let room = cache.as_ref().map_or(self.spec.context, |c| c.capacity());
        if seen + length > room {
            return Err(Error::ContextFull {
                context: room,
                needed: seen + length,
            });
        }
        assert!(
            cache.as_ref().is_none_or(|c| c.batch() == batch),
            "a cache is for its batch"
        );
        let mut h = input_layer.forward(g, tokens, batch, seen)?;
        for (b, block) in self.blocks.iter().enumerate() {
            h = match &mut cache {
                Some(cache) => block.forward(g, &self.attend, b, h, Some(&mut cache.layer(b)))?,
                None => g.block(self, b, h)?,
            };
        }
        if let Some(cache) = cache {
            cache.advance(length);
        }
        Ok(self.final_norm.forward(g, &h)?)
    }

    /// What the head of an image model reads of `pixels` `[B, C, H, W]`: `[B, 1, D]`, the class token's row or the mean of
    /// all patches, after the final norm.
    ///
    /// # Errors
    /// If the model reads tokens, or the device fails.
    ///
    /// # Panics
    /// If `pixels` are not `batch` images of the model's size.
    pub fn pooled<'m>(&'m self, g: &mut Graph<'m>, pixels: &[f32], batch: usize) -> Result<Tensor> {
        let InputLayer::Image(input_layer) = &self.input_layer else {
            let (expected, got) = ("tokens", "images");
            return Err(Error::OtherInput { expected, got });
        };
        assert!(
            batch > 0 && pixels.len() == batch * input_layer.input.pixels(),
            "pixels are [B, C, H, W]"
        );
        let mut h = input_layer.forward(g, pixels, batch)?;
        for b in 0..self.blocks.len() {
            h = g.block(self, b, h)?;
        }
        let pooled = input_layer.pool(g, h)?;
        Ok(self.final_norm.forward(g, &pooled)?)
    }

    /// The output head, with its table `[V, D]`.
    fn output_head(&self) -> OutputHead<'_> {
        let (table, bias) = match (&self.head, &self.input_layer) {
            (Some(head), _) => (&head.table, head.bias.as_ref()),
            (None, InputLayer::Tokens(input_layer)) => (&input_layer.embedding, None),
            (None, InputLayer::Image(_)) => {
                unreachable!("a checked image model has a head of its own")
            }
        };
        let scale = self.logit_factor();
        OutputHead { table, bias, scale }
    }

    /// Checks that every target is a token of the vocabulary, or a class of an image model.
    fn check_targets(&self, targets: &[u32]) -> Result<()> {
        match (&self.input_layer, self.check_tokens(targets)) {
            (InputLayer::Image(_), Err(Error::TokenOutOfRange { token, vocab })) => {
                let (class, classes) = (token, vocab);
                Err(Error::ClassOutOfRange { class, classes })
            }
            (_, checked) => checked,
        }
    }

    /// Logits `[B, T, V]` of hidden states `[B, T, D]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits<'m>(&'m self, g: &mut Graph<'m>, hidden: &Tensor) -> Result<Tensor> {
        Ok(g.logits(hidden, self.output_head())?)
    }

    /// Losses `[B, T, 1]` (nats) of hidden states `[B, T, D]`, on the device. In a training graph the objective grows
    /// by `weight · Σ`.
    ///
    /// # Errors
    /// If a target is not in the vocabulary or not a class, or the device fails.
    pub fn losses<'m>(
        &'m self,
        g: &mut Graph<'m>,
        hidden: &Tensor,
        targets: LossTargets<'_>,
        weight: f32,
    ) -> Result<Tensor> {
        if let LossTargets::Classes(classes) = targets {
            self.check_targets(classes)?;
        }
        Ok(g.loss(hidden, self.output_head(), targets, weight)?)
    }

    /// Cross-entropy (nats) of each of `tokens` `[B, T]` against `targets` `[B, T]`. In a training graph
    /// the objective grows by `weight · Σ`.
    ///
    /// # Errors
    /// As [`Model::hidden`].
    pub fn loss<'m>(
        &'m self,
        g: &mut Graph<'m>,
        tokens: &[u32],
        targets: &[u32],
        batch: usize,
        weight: f32,
    ) -> Result<Vec<f32>> {
        let mut nll = Vec::new();
        self.loss_into(g, tokens, targets, batch, weight, &mut nll)?;
        Ok(nll)
    }

    /// As [`Model::loss`], into a list that is used again.
    ///
    /// # Errors
    /// As [`Model::hidden`].
    pub fn loss_into<'m>(
        &'m self,
        g: &mut Graph<'m>,
        tokens: &[u32],
        targets: &[u32],
        batch: usize,
        weight: f32,
        nll: &mut Vec<f32>,
    ) -> Result<()> {
        self.check_tokens(targets)?;
        let hidden = self.hidden(g, tokens, batch, None)?;
        let losses = self.losses(g, &hidden, LossTargets::Classes(targets), weight)?;
        nll.resize(targets.len(), 0.0);
        Ok(losses.read(&*self.device, nll)?)
    }

    /// Cross-entropy (nats) of each row of hidden states `[B, T, D]` against `targets` `[B·T]`. In a training
    /// graph the objective grows by `weight · Σ`.
    ///
    /// # Errors
    /// If a target is not in the vocabulary, or the device fails.
    pub fn cross_entropy<'m>(
        &'m self,
        g: &mut Graph<'m>,
        hidden: &Tensor,
        targets: &[u32],
        weight: f32,
    ) -> Result<Vec<f32>> {
        let losses = self.losses(g, hidden, LossTargets::Classes(targets), weight)?;
        Ok(losses.to_host(&*self.device)?)
    }

    /// Logits `[B·T, V]` of `tokens` `[B, T]` on the host, in one pass without a tape.
    ///
    /// # Errors
    /// As [`Model::hidden`].
    pub fn infer(&self, tokens: &[u32], batch: usize) -> Result<Vec<f32>> {
        let mut g = Graph::inference(&self.device);
        let hidden = self.hidden(&mut g, tokens, batch, None)?;
        Ok(self.logits(&mut g, &hidden)?.to_host(&*self.device)?)
    }

    /// Logits `[B, classes]` of `pixels` `[B, C, H, W]` on the host, in one pass without a tape.
    ///
    /// # Errors
    /// As [`Model::pooled`].
    ///
    /// # Panics
    /// As [`Model::pooled`].
    pub fn classify(&self, pixels: &[f32], batch: usize) -> Result<Vec<f32>> {
        let mut g = Graph::inference(&self.device);
        let pooled = self.pooled(&mut g, pixels, batch)?;
        Ok(self.logits(&mut g, &pooled)?.to_host(&*self.device)?)
    }

    fn logit_factor(&self) -> f32 {
        match self.spec.logit_scale {
            LogitScale::One => 1.0,
            LogitScale::InverseSqrtWidth => 1.0 / (self.spec.width as f32).sqrt(),
        }
    }
}

impl Blocks for Model {
    fn block<'m>(&'m self, g: &mut Graph<'m>, b: usize, h: Tensor) -> Result<Tensor> {
        Ok(self.blocks[b].forward(g, &self.attend, b, h, None)?)
    }
}

//! The network: embedding, blocks, final norm, output head.
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
//! The layers `query`, `key`, `value`, `proj` and `ffn` are Pattention sites in a TokenFormer, and linear projections
//! and an MLP in a plain Transformer ([`crate::layers`], [`crate::block`]). Training runs the forward pass with a
//! tape, inference without, decoding with a [`Cache`].

pub(crate) mod each;
mod training;

use crate::block::{Attend, Block};
use crate::build::{Builder, Weights};
use crate::cache::Cache;
use crate::config::{
    BaseSizes, FORMAT_VERSION, HeadKind, Init, LogitScale, ModelConfig, NormKind, Positions,
    SiteKind,
};
use crate::error::{Error, Result};
use crate::graph::{Blocks, Graph, LossTargets};
use crate::init;
use crate::layers::Norm;
use crate::param::{Param, ParamRole};
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;
use tokenformer_device::{Device, Role, RotaryTable, WeightFormat};

/// A Transformer language model on a device: a TokenFormer, or a plain one.
#[derive(Debug)]
pub struct Model {
    device: Arc<dyn Device>,
    spec: Spec,
    embedding: Param,
    positions: Option<Param>,
    blocks: Vec<Block>,
    attend: Attend,
    final_norm: Norm,
    /// `None` if the embedding serves as head.
    head: Option<Param>,
    next_id: usize,
    base: BaseSizes,
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
    /// it fastest, as soon as it is there, and kept in no other. Such a model cannot be trained or grown.
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
        let embedding = builder.table("embedding", ParamRole::Embedding, [config.vocab, d])?;
        let positions = match config.positions {
            Positions::Learned => {
                Some(builder.table("positions", ParamRole::Positions, [config.context, d])?)
            }
            Positions::Rotary { .. } | Positions::None => None,
        };
        let blocks = (config.blocks.iter().enumerate())
            .map(|(b, block)| builder.block(b, block, config))
            .collect::<Result<Vec<_>>>()?;
        let final_norm = builder.norm(None, "final_norm", config.final_norm, config)?;
        let head = match config.head {
            HeadKind::Tied => None,
            HeadKind::Untied => Some(builder.table("head", ParamRole::Head, [config.vocab, d])?),
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
            Positions::Learned | Positions::None => None,
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
            embedding,
            positions,
            blocks,
            attend: Attend {
                heads: config.heads,
                causal: config.causal,
                residual: config.residual,
                rotary,
            },
            final_norm,
            head,
            next_id,
            base: BaseSizes::default(),
        })
    }

    /// The configuration as it now stands.
    pub fn config(&self) -> ModelConfig {
        let s = &self.spec;
        ModelConfig {
            format: "tokenformer".into(),
            version: FORMAT_VERSION,
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
            logit_scale: s.logit_scale,
            init: s.init,
            blocks: self.blocks.iter().map(Block::config).collect(),
        }
    }

    /// The device that the model lives on.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.embedding.shape()[0]
    }

    /// Positions that the model can attend to.
    pub fn context(&self) -> usize {
        self.spec.context
    }

    /// The blocks, first to last.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The blocks, to change sites of.
    pub fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }

    /// Takes all arrays out, by name, with the number of the next one. What stays must be replaced by another model.
    pub(crate) fn take_params(&mut self) -> (HashMap<String, Param>, usize) {
        let params = self.each_param_mut().map(Param::take);
        let by_name = params.map(|p| (p.name().to_string(), p)).collect();
        (by_name, self.next_id)
    }

    /// All parameters in the order of files: embedding, positions, blocks, final norm, head.
    pub fn params(&self) -> Vec<&Param> {
        self.each_param().collect()
    }

    /// As [`Model::params`], one after the other.
    pub fn each_param(&self) -> impl Iterator<Item = &Param> {
        std::iter::once(&self.embedding)
            .chain(&self.positions)
            .chain(self.blocks.iter().flat_map(Block::params))
            .chain(self.final_norm.affine.iter().flatten())
            .chain(&self.head)
    }

    /// As [`Model::params`], to change.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        self.each_param_mut().collect()
    }

    /// As [`Model::params_mut`], one after the other.
    pub fn each_param_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        std::iter::once(&mut self.embedding)
            .chain(&mut self.positions)
            .chain(self.blocks.iter_mut().flat_map(Block::params_mut))
            .chain(self.final_norm.affine.iter_mut().flatten())
            .chain(&mut self.head)
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
        if !self.attend.causal {
            return Err(Error::NotCausal);
        }
        if capacity > self.spec.context {
            return Err(Error::ContextFull {
                context: self.spec.context,
                needed: capacity,
            });
        }
        let (layers, width) = (self.blocks.len(), self.spec.width);
        Cache::new(&self.device, layers, batch, capacity, width)
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
    /// If a token is not in the vocabulary, the context is full, or the device fails.
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
        let mut h = self.embed(g, tokens, batch, seen)?;
        for b in 0..self.blocks.len() {
            h = match &mut cache {
                Some(cache) => {
                    self.blocks[b].forward(g, &self.attend, h, Some(&mut cache.layer(b)))?
                }
                None => g.block(self, b, h)?,
            };
        }
        if let Some(cache) = cache {
            cache.advance(length);
        }
        Ok(self.final_norm.forward(g, &h)?)
    }

    /// `E[token]`, plus the vectors of positions from `first` on if they are learned.
    fn embed<'m>(
        &'m self,
        g: &mut Graph<'m>,
        tokens: &[u32],
        batch: usize,
        first: usize,
    ) -> Result<Tensor> {
        let h = g.embed(&self.embedding, tokens, batch)?;
        let Some(table) = &self.positions else {
            return Ok(h);
        };
        let p = g.positions(table, first, [batch, tokens.len() / batch])?;
        Ok(g.add(h, p)?)
    }

    /// The table of the output head `[V, D]`.
    fn table(&self) -> &Param {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Logits `[B, T, V]` of hidden states `[B, T, D]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits<'m>(&'m self, g: &mut Graph<'m>, hidden: &Tensor) -> Result<Tensor> {
        Ok(g.logits(hidden, self.table(), self.logit_factor())?)
    }

    /// Losses `[B, T, 1]` (nats) of hidden states `[B, T, D]`, on the device. In a training graph the objective grows
    /// by `weight · Σ`.
    ///
    /// # Errors
    /// If a target is not in the vocabulary, or the device fails.
    pub fn losses<'m>(
        &'m self,
        g: &mut Graph<'m>,
        hidden: &Tensor,
        targets: LossTargets<'_>,
        weight: f32,
    ) -> Result<Tensor> {
        if let LossTargets::Classes(classes) = targets {
            self.check_tokens(classes)?;
        }
        Ok(g.loss(hidden, self.table(), self.logit_factor(), targets, weight)?)
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

    fn logit_factor(&self) -> f32 {
        match self.spec.logit_scale {
            LogitScale::One => 1.0,
            LogitScale::InverseSqrtWidth => 1.0 / (self.spec.width as f32).sqrt(),
        }
    }
}

impl Blocks for Model {
    fn block<'m>(&'m self, g: &mut Graph<'m>, b: usize, h: Tensor) -> Result<Tensor> {
        Ok(self.blocks[b].forward(g, &self.attend, h, None)?)
    }
}

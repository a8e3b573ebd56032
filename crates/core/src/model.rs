//! The network: embedding, blocks of attention and feed-forward Pattention, final norm, tied head.
//!
//! ```text
//! h = E[token]
//! for each block:
//!     u = LN(h)
//!     c = attention(rotary(Pattₖ(u)) ...)          softmax attention between tokens
//!     h = h + Patt_proj(c)
//!     h = h + Patt_ffn(LN(h))
//! logits = scale · LN_final(h)·Eᵀ
//! ```
//!
//! There is one forward pass. Training runs it with a tape, inference without, decoding with a
//! [`Cache`].

use crate::config::{
    BlockConfig, FORMAT_VERSION, FinalNorm, Init, LogitScale, ModelConfig, Positions, SiteConfig,
    SiteKind, Theta,
};
use crate::device::{AttentionShape, Device, RotaryTable, Side, Temp, WeightFormat};
use crate::error::{Error, Result};
use crate::graph::{Again, Graph, Tensor};
use crate::init;
use crate::memory::Memory;
use crate::param::{Affine, Param};
use crate::site::{Segment, Site};
use std::sync::Arc;

/// A TokenFormer language model on a device.
#[derive(Debug)]
pub struct Model {
    device: Arc<dyn Device>,
    spec: Spec,
    embedding: Param,
    blocks: Vec<Block>,
    final_norm: Option<Affine>,
    rotary: Option<Arc<RotaryTable>>,
    next_id: usize,
}

/// The settings that blocks share.
#[derive(Clone, Debug)]
struct Spec {
    width: usize,
    heads: usize,
    context: usize,
    theta: Theta,
    theta_eps: f64,
    norm_eps: f64,
    positions: Positions,
    logit_scale: LogitScale,
    init: Init,
}

/// One block.
#[derive(Debug)]
pub struct Block {
    query: Site,
    key: Site,
    value: Site,
    proj: Site,
    ffn: Site,
}

/// Keys and values of the positions seen so far, for decoding.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<[Temp; 2]>,
    batch: usize,
    capacity: usize,
    len: usize,
}

impl Cache {
    /// Positions seen.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Most positions that it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets everything after the first `len` positions.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// A cache of `sequences.len()` sequences with room for `capacity` positions: the `i`-th has seen what
    /// sequence `sequences[i]` of this one has. Texts that begin alike are so computed once.
    ///
    /// # Errors
    /// If memory is short.
    ///
    /// # Panics
    /// If a sequence is not in this cache, nothing has been seen, or `capacity` is below what was seen.
    pub fn fork(
        &self,
        device: &Arc<dyn Device>,
        sequences: &[usize],
        capacity: usize,
    ) -> Result<Self> {
        assert!(sequences.iter().all(|&s| s < self.batch) && (1..=capacity).contains(&self.len));
        // Positions beyond those seen hold copies of the last until they are written.
        let rows: Vec<u32> = (sequences.iter())
            .flat_map(|s| (0..capacity).map(move |t| s * self.capacity + t.min(self.len - 1)))
            .map(|row| row as u32)
            .collect();
        let copy = |from: &Temp| -> Result<Temp> {
            let width = from.len() / (self.batch * self.capacity);
            let mut to = Temp::new(device, rows.len() * width)?;
            device.embed(from, &rows, width, &mut to)?;
            Ok(to)
        };
        let layers = (self.layers.iter())
            .map(|[keys, values]| Ok([copy(keys)?, copy(values)?]))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            layers,
            batch: sequences.len(),
            capacity,
            len: self.len,
        })
    }
}

impl Block {
    /// A site.
    pub fn site(&self, kind: SiteKind) -> &Site {
        match kind {
            SiteKind::Query => &self.query,
            SiteKind::Key => &self.key,
            SiteKind::Value => &self.value,
            SiteKind::Proj => &self.proj,
            SiteKind::Ffn => &self.ffn,
        }
    }

    /// A site, to change.
    pub fn site_mut(&mut self, kind: SiteKind) -> &mut Site {
        match kind {
            SiteKind::Query => &mut self.query,
            SiteKind::Key => &mut self.key,
            SiteKind::Value => &mut self.value,
            SiteKind::Proj => &mut self.proj,
            SiteKind::Ffn => &mut self.ffn,
        }
    }

    fn sites(&self) -> [&Site; 5] {
        [&self.query, &self.key, &self.value, &self.proj, &self.ffn]
    }

    fn sites_mut(&mut self) -> [&mut Site; 5] {
        [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.proj,
            &mut self.ffn,
        ]
    }
}

/// Gives the numbers of an array by name and shape, when a model is built.
pub type Weights<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>> + 'a;

/// Makes the parameters of a model, numbering them.
pub(crate) struct Builder<'a, 'w> {
    pub device: &'a Arc<dyn Device>,
    pub next_id: usize,
    pub weights: &'a mut Weights<'w>,
    /// For inference: the format in which matrices are prepared, one by one.
    pub prepare: Option<WeightFormat>,
}

impl Builder<'_, '_> {
    pub(crate) fn param(&mut self, name: String, shape: Vec<usize>) -> Result<Param> {
        let host = (self.weights)(&name, &shape)?;
        if host.len() != shape.iter().product::<usize>() {
            let reason = format!("{} numbers were given", host.len());
            return Err(Error::Tensor {
                name,
                reason,
                expected: shape,
            });
        }
        self.next_id += 1;
        Ok(Param::new(
            self.device,
            self.next_id - 1,
            name,
            shape,
            host,
        )?)
    }

    /// A matrix `[rows, cols]`.
    pub(crate) fn matrix(&mut self, name: String, shape: [usize; 2], side: Side) -> Result<Param> {
        let mut param = self.param(name, shape.to_vec())?;
        if let Some(format) = self.prepare {
            param.prepare(self.device, side, format)?;
        }
        Ok(param)
    }

    pub(crate) fn segment(
        &mut self,
        site_name: &str,
        index: usize,
        config: &crate::config::SegmentConfig,
        width: usize,
    ) -> Result<Segment> {
        let name = |part| format!("{site_name}.segments.{index}.{part}");
        let keys = self.matrix(name("keys"), [config.tokens, width], Side::Rows)?;
        let values = self.matrix(name("values"), [config.tokens, width], Side::Columns)?;
        Ok(Segment::new(config, keys, values))
    }

    pub(crate) fn block(
        &mut self,
        b: usize,
        block: &BlockConfig,
        all: &ModelConfig,
    ) -> Result<Block> {
        let mut site = |kind: SiteKind| -> Result<Site> {
            let config: &SiteConfig = block.site(kind);
            let name = site_name(b, kind);
            let segments = (config.segments.iter().enumerate())
                .map(|(s, segment)| self.segment(&name, s, segment, all.width))
                .collect::<Result<Vec<_>>>()?;
            Ok(Site::new(
                config,
                all.theta.into(),
                all.theta_eps as f32,
                segments,
            ))
        };
        Ok(Block {
            query: site(SiteKind::Query)?,
            key: site(SiteKind::Key)?,
            value: site(SiteKind::Value)?,
            proj: site(SiteKind::Proj)?,
            ffn: site(SiteKind::Ffn)?,
        })
    }
}

/// Name of a site in files: `blocks.3.ffn`.
pub fn site_name(block: usize, kind: SiteKind) -> String {
    format!("blocks.{block}.{}", kind.name())
}

impl Model {
    /// A model with fresh random weights.
    ///
    /// # Errors
    /// If the configuration is impossible or memory is short.
    pub fn fresh(device: &Arc<dyn Device>, config: &ModelConfig, seed: u64) -> Result<Self> {
        config.validate()?;
        Self::build(device, config, &mut |name, shape| {
            fresh_weights(config, seed, name, shape)
        })
    }

    /// A model whose arrays come from `weights`, called once per array by name and shape.
    ///
    /// # Errors
    /// If the configuration is impossible, memory is short, or `weights` fails.
    pub fn build(
        device: &Arc<dyn Device>,
        config: &ModelConfig,
        weights: &mut Weights<'_>,
    ) -> Result<Self> {
        Self::build_as(device, config, None, weights)
    }

    /// As [`Model::build`], for inference: every matrix is put into the form in which the device multiplies with
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
        Self::build_as(device, config, Some(format), weights)
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
        config.validate()?;
        Self::build_for_inference(device, config, format, &mut |name, shape| {
            fresh_weights(config, seed, name, shape)
        })
    }

    fn build_as(
        device: &Arc<dyn Device>,
        config: &ModelConfig,
        prepare: Option<WeightFormat>,
        weights: &mut Weights<'_>,
    ) -> Result<Self> {
        config.validate()?;
        let d = config.width;
        let mut builder = Builder {
            device,
            next_id: 0,
            weights,
            prepare,
        };
        let mut embedding = builder.matrix("embedding".into(), [config.vocab, d], Side::Rows)?;
        embedding.trainable = config.trunk_trainable;
        let blocks = (config.blocks.iter().enumerate())
            .map(|(b, block)| builder.block(b, block, config))
            .collect::<Result<Vec<_>>>()?;
        let final_norm = match config.final_norm {
            FinalNorm::Affine => {
                let mut part = |name: &str| -> Result<Param> {
                    let mut param = builder.param(format!("final_norm.{name}"), vec![d])?;
                    param.decays = false;
                    param.trainable = config.trunk_trainable;
                    Ok(param)
                };
                Some(Affine {
                    gain: part("gain")?,
                    bias: part("bias")?,
                })
            }
            FinalNorm::Plain => None,
        };
        let rotary = match config.positions {
            Positions::Rotary { base, .. } => Some(Arc::new(RotaryTable::new(
                config.context,
                config.rotary_dims(),
                base,
            ))),
            Positions::None => None,
        };
        let ModelConfig {
            width,
            heads,
            context,
            theta,
            theta_eps,
            norm_eps,
            positions,
            ..
        } = *config;
        let (logit_scale, init) = (config.logit_scale, config.init);
        let spec = Spec {
            width,
            heads,
            context,
            theta,
            theta_eps,
            norm_eps,
            positions,
            logit_scale,
            init,
        };
        let (device, next_id) = (Arc::clone(device), builder.next_id);
        Ok(Self {
            device,
            spec,
            embedding,
            blocks,
            final_norm,
            rotary,
            next_id,
        })
    }

    /// The configuration as it now stands: segments, `τ`, what is frozen.
    pub fn config(&self) -> ModelConfig {
        let block = |block: &Block| BlockConfig {
            query: block.query.config(),
            key: block.key.config(),
            value: block.value.config(),
            proj: block.proj.config(),
            ffn: block.ffn.config(),
        };
        let s = &self.spec;
        ModelConfig {
            format: "tokenformer".into(),
            version: FORMAT_VERSION,
            vocab: self.embedding.shape()[0],
            width: s.width,
            heads: s.heads,
            context: s.context,
            theta: s.theta,
            theta_eps: s.theta_eps,
            norm_eps: s.norm_eps,
            positions: s.positions,
            final_norm: if self.final_norm.is_some() {
                FinalNorm::Affine
            } else {
                FinalNorm::Plain
            },
            logit_scale: s.logit_scale,
            init: s.init,
            trunk_trainable: self.embedding.trainable,
            blocks: self.blocks.iter().map(block).collect(),
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

    pub(crate) fn blocks_vec_mut(&mut self) -> &mut Vec<Block> {
        &mut self.blocks
    }

    pub(crate) fn next_id_mut(&mut self) -> &mut usize {
        &mut self.next_id
    }

    /// All parameters in the order of files: embedding, blocks, final norm.
    pub fn params(&self) -> Vec<&Param> {
        self.each_param().collect()
    }

    /// As [`Model::params`], one after the other.
    pub fn each_param(&self) -> impl Iterator<Item = &Param> {
        let sites = self.blocks.iter().flat_map(Block::sites);
        let segments = sites.flat_map(|site| &site.segments);
        let norm = self.final_norm.iter().flat_map(|n| [&n.gain, &n.bias]);
        std::iter::once(&self.embedding)
            .chain(segments.flat_map(|s| [&s.keys, &s.values]))
            .chain(norm)
    }

    /// As [`Model::params`], to change.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        self.each_param_mut().collect()
    }

    /// As [`Model::params_mut`], one after the other.
    pub fn each_param_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        let sites = self.blocks.iter_mut().flat_map(Block::sites_mut);
        let segments = sites.flat_map(|site| &mut site.segments);
        let norm = self.final_norm.iter_mut();
        std::iter::once(&mut self.embedding)
            .chain(segments.flat_map(|s| [&mut s.keys, &mut s.values]))
            .chain(norm.flat_map(|n| [&mut n.gain, &mut n.bias]))
    }

    /// Learnable numbers.
    pub fn param_count(&self) -> u64 {
        self.each_param().map(|p| p.len() as u64).sum()
    }

    /// Tells the sites which training step comes next, for a `τ` that anneals.
    pub fn set_step(&mut self, step: u64) {
        self.blocks
            .iter_mut()
            .flat_map(Block::sites_mut)
            .for_each(|site| site.set_step(step));
    }

    /// An empty cache for `batch` sequences of at most `capacity` positions.
    ///
    /// # Errors
    /// If memory is short, or the model has fewer positions.
    pub fn cache(&self, batch: usize, capacity: usize) -> Result<Cache> {
        if capacity > self.spec.context {
            return Err(Error::ContextFull {
                context: self.spec.context,
                needed: capacity,
            });
        }
        let len = batch * capacity * self.spec.width;
        let layers = (self.blocks.iter())
            .map(|_| Ok([Temp::new(&self.device, len)?, Temp::new(&self.device, len)?]))
            .collect::<Result<Vec<_>>>()?;
        Ok(Cache {
            layers,
            batch,
            capacity,
            len: 0,
        })
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

    /// Hidden states `[B·T, D]` after the final norm, for `tokens` `[B, T]`. With a `cache`, the tokens
    /// follow those that it has seen, and it takes them in.
    ///
    /// # Errors
    /// If a token is not in the vocabulary, the context is full, or the device fails.
    ///
    /// # Panics
    /// If `tokens` is not a whole number of sequences.
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
        let t = tokens.len() / batch;
        let seen = cache.as_ref().map_or(0, |c| c.len);
        let room = cache.as_ref().map_or(self.spec.context, |c| c.capacity);
        if seen + t > room {
            return Err(Error::ContextFull {
                context: room,
                needed: seen + t,
            });
        }
        assert!(
            cache.as_ref().is_none_or(|c| c.batch == batch),
            "a cache is for its batch"
        );

        let eps = self.spec.norm_eps as f32;
        let mut h = g.embed(&self.embedding, tokens)?;
        for b in 0..self.blocks.len() {
            h = match &mut cache {
                None if g.memory() == Some(Memory::Lean) => g.again(self, b, batch, h)?,
                cache => self.block(g, b, batch, h, cache.as_deref_mut())?,
            };
        }
        if let Some(cache) = cache {
            cache.len += t;
        }
        Ok(g.layer_norm(&h, self.final_norm.as_ref(), eps)?)
    }

    /// Block `b` of the residual stream `h`.
    fn block<'m>(
        &'m self,
        g: &mut Graph<'m>,
        b: usize,
        batch: usize,
        h: Tensor,
        cache: Option<&mut Cache>,
    ) -> Result<Tensor> {
        let (block, eps) = (&self.blocks[b], self.spec.norm_eps as f32);
        let u = g.layer_norm(&h, None, eps)?;
        let c = self.attend(g, block, &u, batch, cache.map(|c| (c, b)))?;
        drop(u);
        let y = g.pattention(&c, &block.proj)?;
        drop(c);
        let h = g.add(h, &y)?;
        drop(y);
        let u = g.layer_norm(&h, None, eps)?;
        let y = g.pattention(&u, &block.ffn)?;
        drop(u);
        Ok(g.add(h, &y)?)
    }

    /// Softmax attention between the tokens of each sequence, with projections by Pattention.
    fn attend<'m>(
        &'m self,
        g: &mut Graph<'m>,
        block: &'m Block,
        u: &Tensor,
        batch: usize,
        cache: Option<(&mut Cache, usize)>,
    ) -> Result<Tensor> {
        let (heads, channels) = (self.spec.heads, self.spec.width / self.spec.heads);
        let t = u.shape()[0] / batch;
        let seen = cache.as_ref().map_or(0, |(c, _)| c.len);

        let sites = [&block.query, &block.key, &block.value];
        let [mut q, mut k, v] = g.pattention_group(u, sites)?;
        if let Some(table) = &self.rotary {
            q = g.rotate(q, table, [t, heads, channels], seen)?;
            k = g.rotate(k, table, [t, heads, channels], seen)?;
        }
        let shape = |key_stride| AttentionShape {
            batch,
            queries: t,
            keys: seen + t,
            key_stride,
            heads,
            channels,
            causal: true,
        };
        Ok(match cache {
            Some((cache, b)) => {
                g.attention_cached(shape(cache.capacity), [q, k, v], &mut cache.layers[b])?
            }
            None => g.attention(shape(t), [q, k, v])?,
        })
    }

    /// Logits `[R, V]` of hidden states `[R, D]`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits<'m>(&'m self, g: &mut Graph<'m>, hidden: &Tensor) -> Result<Tensor> {
        Ok(g.logits(hidden, &self.embedding, self.logit_factor())?)
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
        let scale = self.logit_factor();
        Ok(g.cross_entropy(&hidden, &self.embedding, scale, targets, weight, nll)?)
    }

    /// Cross-entropy (nats) of each row of hidden states `[R, D]` against `targets` `[R]`. In a training
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
        self.check_tokens(targets)?;
        let mut nll = Vec::new();
        let scale = self.logit_factor();
        g.cross_entropy(hidden, &self.embedding, scale, targets, weight, &mut nll)?;
        Ok(nll)
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

impl Again for Model {
    fn part<'m>(
        &'m self,
        g: &mut Graph<'m>,
        part: usize,
        batch: usize,
        h: Tensor,
    ) -> Result<Tensor> {
        self.block(g, part, batch, h, None)
    }
}

/// Fresh numbers of a named array.
pub(crate) fn fresh_weights(
    config: &ModelConfig,
    seed: u64,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>> {
    let len = shape.iter().product();
    let std = match name {
        "final_norm.gain" => return init::constant_array(len, 1.0),
        "final_norm.bias" => return init::constant_array(len, 0.0),
        "embedding" => init::embedding_std(config),
        keys if keys.ends_with(".keys") => init::key_std(config),
        _ => init::value_std(config, shape[0]),
    };
    init::normal_array(seed, name, len, std)
}

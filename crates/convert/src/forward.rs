//! The network block by block, for models larger than memory: what [`Model::infer`] computes, while no more than one
//! block is in memory.

use std::sync::Arc;

use tokenformer_core::config::{FinalNorm, Positions};
use tokenformer_core::device::{AttentionShape, RotaryTable};
use tokenformer_core::{Device, Graph, Model, ModelConfig, SiteKind};

use crate::pipe::CHUNK_ELEMENTS;
use crate::source::Source;
use crate::{Error, Result};

const EMBEDDING: &str = "embedding";

/// The arrays of a model, read when they are needed.
pub(crate) struct Arrays<'a> {
    pub(crate) source: &'a mut Source,
    /// From the name of an array in a model directory to its name in the source.
    pub(crate) named: &'a dyn Fn(&str) -> String,
}

impl Arrays<'_> {
    /// Sizes of a configuration are believed, and memory is taken for them, only when the weights have them too.
    fn expect_shape(&self, name: &str, shape: &[usize]) -> Result<()> {
        let name = (self.named)(name);
        match self.source.shape(&name) {
            Some(got) if got == shape => Ok(()),
            got => Err(Error::Damaged {
                path: self.source.path().into(),
                what: "the weights and the configuration belong to different models",
                expected: format!("{name} of shape {shape:?}"),
                got: got.map_or("no such array".into(), |got| format!("{got:?}")),
                help: "convert or train the model again",
            }),
        }
    }

    /// Passes the elements of an array on, at most `chunk` at a time.
    fn for_each_chunk(
        &mut self,
        name: &str,
        chunk: usize,
        take: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let name = (self.named)(name);
        let mut count = 0;
        self.source.for_each_chunk(&name, chunk, &mut |numbers| {
            count += numbers.len();
            take(numbers);
            Ok(())
        })?;
        self.source.passed((count * size_of::<f32>()) as u64)
    }
}

/// Logits `[V]` after the last of `tokens`, which are at most as many as the context.
pub(crate) fn last_logits(
    device: &Arc<dyn Device>,
    config: &ModelConfig,
    tokens: &[u32],
    arrays: &mut Arrays<'_>,
) -> Result<Vec<f32>> {
    arrays.expect_shape(EMBEDDING, &[config.vocab, config.width])?;
    let mut h = embed(config, tokens, arrays)?;
    // What the models of one block have in common.
    let base = ModelConfig {
        vocab: tokens.len(),
        blocks: Vec::new(),
        ..config.clone()
    };
    let mut seat = None;
    for (block, of_block) in config.blocks.iter().enumerate() {
        let mut alone = base.clone();
        alone.blocks.push(of_block.clone());
        let is_last = block + 1 == config.layers();
        if !is_last {
            alone.final_norm = FinalNorm::Plain;
        }
        h = run_block(device, alone, block, is_last, &h, &mut seat, arrays)?;
    }
    let last = h.split_off(h.len().saturating_sub(config.width));

    let factor = f64::from(config.logit_factor());
    let mut logits = Vec::with_capacity(config.vocab);
    for_each_row(config, arrays, &mut |row| {
        let products = row
            .iter()
            .zip(&last)
            .map(|(&e, &x)| f64::from(e) * f64::from(x));
        logits.push((factor * products.sum::<f64>()) as f32);
    })?;
    Ok(logits)
}

/// Passes the rows of the embedding on.
fn for_each_row(
    config: &ModelConfig,
    arrays: &mut Arrays<'_>,
    take: &mut dyn FnMut(&[f32]),
) -> Result<()> {
    const ROWS: usize = 1024;
    arrays.for_each_chunk(EMBEDDING, ROWS * config.width, &mut |numbers| {
        numbers.chunks_exact(config.width).for_each(&mut *take);
    })
}

/// Rows of the embedding `[T, D]`.
fn embed(config: &ModelConfig, tokens: &[u32], arrays: &mut Arrays<'_>) -> Result<Vec<f32>> {
    let mut h = vec![0.0; tokens.len() * config.width];
    let mut index = 0;
    for_each_row(config, arrays, &mut |row| {
        let slots = tokens.iter().zip(h.chunks_exact_mut(config.width));
        for (_, slot) in slots.filter(|&(&token, _)| token == index) {
            slot.copy_from_slice(row);
        }
        index += 1;
    })?;
    Ok(h)
}

/// A model of one block, into which the blocks are loaded one after the other, and memory for one of its arrays.
///
/// Its embedding is the hidden states in front of the block, so that token `t` stands for row `t`.
struct Seat {
    config: ModelConfig,
    model: Model,
    numbers: Vec<f32>,
}

impl Seat {
    fn new(
        device: &Arc<dyn Device>,
        config: ModelConfig,
        block: usize,
        arrays: &Arrays<'_>,
    ) -> Result<Seat> {
        let mut failed = None;
        let built = Model::build(device, &config, &mut |name, shape| {
            let known = match name {
                EMBEDDING => Ok(()),
                _ => arrays.expect_shape(&name_in(block, name), shape),
            };
            known.map_err(|error| {
                let reason = error.to_string();
                failed = Some(error);
                tokenformer_core::Error::Tensor {
                    name: name.into(),
                    reason,
                    expected: shape.into(),
                }
            })?;
            Ok(vec![0.0; shape.iter().product()])
        });
        let model = match failed {
            Some(error) => return Err(error),
            None => built?,
        };
        Ok(Seat {
            config,
            model,
            numbers: Vec::new(),
        })
    }

    fn load(
        &mut self,
        device: &Arc<dyn Device>,
        block: usize,
        h: &[f32],
        arrays: &mut Arrays<'_>,
    ) -> Result<()> {
        for param in self.model.params_mut() {
            if param.name() == EMBEDDING {
                device.upload(h, param.value_mut())?;
                continue;
            }
            let name = name_in(block, param.name());
            arrays.expect_shape(&name, param.shape())?;
            self.numbers.clear();
            arrays.for_each_chunk(&name, CHUNK_ELEMENTS, &mut |numbers| {
                self.numbers.extend_from_slice(numbers);
            })?;
            device.upload(&self.numbers, param.value_mut())?;
        }
        Ok(())
    }
}

/// The name in the whole model of an array of the model of one block.
fn name_in(block: usize, name: &str) -> String {
    match name.strip_prefix("blocks.0.") {
        Some(rest) => format!("blocks.{block}.{rest}"),
        None => name.into(),
    }
}

/// Hidden states `[T, D]` after a block, after the final norm too if it is the last one.
fn run_block(
    device: &Arc<dyn Device>,
    alone: ModelConfig,
    block: usize,
    is_last: bool,
    h: &[f32],
    seat: &mut Option<Seat>,
    arrays: &mut Arrays<'_>,
) -> Result<Vec<f32>> {
    // Equal blocks, as most are, take each other's place in memory.
    let mut seated = match seat.take() {
        Some(seat) if seat.config == alone => seat,
        old => {
            drop(old);
            Seat::new(device, alone, block, arrays)?
        }
    };
    seated.load(device, block, h, arrays)?;
    let tokens: Vec<u32> = (0..seated.config.vocab as u32).collect();
    let mut g = Graph::inference(device);
    let model = &seated.model;
    let h = match is_last {
        true => model.hidden(&mut g, &tokens, 1, None)?,
        false => through(model, &seated.config, &mut g, &tokens)?,
    };
    let h = h.to_host(&**device)?;
    *seat = Some(seated);
    Ok(h)
}

/// Hidden states after the only block of `model`, before any final norm; [`Model::hidden`] goes on to it.
fn through<'m>(
    model: &'m Model,
    config: &ModelConfig,
    g: &mut Graph<'m>,
    tokens: &[u32],
) -> Result<tokenformer_core::graph::Tensor> {
    let (Some(block), Some(embedding)) = (model.blocks().first(), model.params().first().copied())
    else {
        return Err(Error::Core(tokenformer_core::Error::Config {
            field: "layers".into(),
            expected: "at least 1".into(),
            got: "0".into(),
            help: "check config.json".into(),
        }));
    };
    let eps = config.norm_eps as f32;
    let (heads, channels) = (config.heads, config.width / config.heads);
    let t = tokens.len();
    let h = g.embed(embedding, tokens)?;
    let u = g.layer_norm(&h, None, eps)?;
    let mut q = g.pattention(&u, block.site(SiteKind::Query))?;
    let mut k = g.pattention(&u, block.site(SiteKind::Key))?;
    let v = g.pattention(&u, block.site(SiteKind::Value))?;
    if let Positions::Rotary { base, .. } = config.positions {
        let table = Arc::new(RotaryTable::new(t, config.rotary_dims(), base));
        q = g.rotate(q, &table, [t, heads, channels], 0)?;
        k = g.rotate(k, &table, [t, heads, channels], 0)?;
    }
    let shape = AttentionShape {
        batch: 1,
        queries: t,
        keys: t,
        key_stride: t,
        heads,
        channels,
        causal: true,
    };
    let c = g.attention(shape, [q, k, v])?;
    let y = g.pattention(&c, block.site(SiteKind::Proj))?;
    let h = g.add(h, &y)?;
    let u = g.layer_norm(&h, None, eps)?;
    let y = g.pattention(&u, block.site(SiteKind::Ffn))?;
    Ok(g.add(h, &y)?)
}

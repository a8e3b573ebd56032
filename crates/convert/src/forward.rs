//! Runs the network block by block, for models larger than memory: it computes the same as [`Model::infer`] with at
//! most one block in memory.

use std::sync::Arc;

use tokenformer_core::config::{HeadKind, NormKind, Positions};
use tokenformer_core::graph::Blocks;
use tokenformer_core::path::ParamRole;
use tokenformer_core::{Device, Graph, Model, ModelConfig, Tensor};

use crate::layout::CHUNK_ELEMENTS;
use crate::layout::elements;
use crate::source::{ReadBytes, Source};
use crate::{Error, Result};

const EMBEDDING: &str = "embedding";
const POSITIONS: &str = "positions";
const HEAD: &str = "head";
const HEAD_BIAS: &str = "head.bias";

/// The arrays of a model, read when they are needed.
pub(crate) struct Arrays<'a> {
    source: &'a Source,
    /// Maps the name of an array in a model directory to its name in the source.
    named: &'a dyn Fn(&str) -> String,
    read: ReadBytes,
}

impl<'a> Arrays<'a> {
    /// Arrays of a source that has them under the names to which `named` maps those of a model directory.
    pub(crate) fn new(source: &'a Source, named: &'a dyn Fn(&str) -> String) -> Arrays<'a> {
        Arrays {
            source,
            named,
            read: ReadBytes::default(),
        }
    }

    /// Calls a function with the elements of an array of this shape, at most `chunk` at a time.
    fn for_each_chunk(
        &mut self,
        name: &str,
        shape: &[usize],
        chunk: usize,
        take: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let name = (self.named)(name);
        // Memory is taken for the sizes of a configuration only after the shapes of the weights confirm them.
        let got = self.source.shape(&name);
        if got != Some(shape) {
            return Err(Error::Damaged {
                path: self.source.path().into(),
                what: "the weights and the configuration belong to different models",
                expected: format!("{name} of shape {shape:?}"),
                got: got.map_or("no such array".into(), |got| format!("{got:?}")),
                help: "convert or train the model again",
            });
        }
        self.source.for_each_chunk(&name, chunk, &mut |numbers| {
            take(numbers);
            Ok(())
        })?;
        self.read.add(self.source, &name);
        Ok(())
    }

    /// A whole array.
    fn whole(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        self.for_each_chunk(name, shape, CHUNK_ELEMENTS, &mut |numbers| {
            // The file has this many: the shape was compared above.
            all.reserve_exact(elements(shape) as usize - all.len());
            all.extend_from_slice(numbers)
        })?;
        Ok(all)
    }
}

/// Logits `[V]` after the last of `tokens`, of which there are at most as many as the context length.
pub(crate) fn last_logits(
    device: &Arc<dyn Device>,
    config: &ModelConfig,
    tokens: &[u32],
    arrays: &mut Arrays<'_>,
) -> Result<Vec<f32>> {
    let mut h = embed(config, tokens, arrays)?;
    for block in 0..config.layers() {
        h = run_block(device, config, block, &h, arrays)?;
    }
    let last = h.split_off(h.len().saturating_sub(config.width));

    let factor = f64::from(config.logit_factor());
    let mut logits = Vec::with_capacity(config.vocab);
    let table = match config.head {
        HeadKind::Tied => EMBEDDING,
        HeadKind::Untied => HEAD,
    };
    let shape = [config.vocab, config.width];
    for_each_row(arrays, table, shape, &mut |row| {
        let products = row
            .iter()
            .zip(&last)
            .map(|(&e, &x)| f64::from(e) * f64::from(x));
        logits.push((factor * products.sum::<f64>()) as f32);
    })?;
    if config.head_bias {
        let bias = arrays.whole(HEAD_BIAS, &[config.vocab])?;
        logits.iter_mut().zip(bias).for_each(|(l, b)| *l += b);
    }
    Ok(logits)
}

/// Calls a function with each row of a table.
fn for_each_row(
    arrays: &mut Arrays<'_>,
    table: &str,
    shape: [usize; 2],
    take: &mut dyn FnMut(&[f32]),
) -> Result<()> {
    const ROWS: usize = 1024;
    let [_, width] = shape;
    arrays.for_each_chunk(table, &shape, ROWS * width, &mut |numbers| {
        numbers.chunks_exact(width).for_each(&mut *take);
    })
}

/// Rows of the embedding `[T, D]`, plus those of learned positions.
fn embed(config: &ModelConfig, tokens: &[u32], arrays: &mut Arrays<'_>) -> Result<Vec<f32>> {
    let mut h = Vec::new();
    let mut index = 0;
    let shape = [config.vocab, config.width];
    for_each_row(arrays, EMBEDDING, shape, &mut |row| {
        h.resize(tokens.len() * config.width, 0.0);
        let slots = tokens.iter().zip(h.chunks_exact_mut(config.width));
        for (_, slot) in slots.filter(|&(&token, _)| token == index) {
            slot.copy_from_slice(row);
        }
        index += 1;
    })?;
    if config.positions == Positions::Learned {
        let mut rows = h.chunks_exact_mut(config.width);
        let shape = [config.context, config.width];
        for_each_row(arrays, POSITIONS, shape, &mut |position| {
            let row = rows.next().into_iter().flatten();
            row.zip(position).for_each(|(h, p)| *h += p);
        })?;
    }
    Ok(h)
}

/// Hidden states `[T, D]` after a block; for the last block, after the final norm too.
///
/// It runs a model of this one block. That model's embedding table is the hidden states, so that token `t` looks up row
/// `t`.
fn run_block(
    device: &Arc<dyn Device>,
    config: &ModelConfig,
    block: usize,
    h: &[f32],
    arrays: &mut Arrays<'_>,
) -> Result<Vec<f32>> {
    let t = h.len() / config.width;
    let is_last = block + 1 == config.layers();
    let mut alone = config.clone();
    alone.vocab = t;
    // The hidden states already include positions, and this model computes no logits.
    alone.head = HeadKind::Tied;
    alone.head_bias = false;
    if alone.positions == Positions::Learned {
        alone.positions = Positions::None;
    }
    alone.blocks = config.blocks.get(block).cloned().into_iter().collect();
    if !is_last {
        alone.final_norm = NormKind::Plain;
    }
    let mut failed = None;
    let built = Model::build(device, &alone, &mut |path, shape| {
        if path.role == ParamRole::Embedding {
            return Ok(h.to_vec());
        }
        let name = path.in_block(block).to_string();
        arrays.whole(&name, shape).map_err(|error| {
            let reason = error.to_string();
            failed = Some(error);
            tokenformer_core::Error::Tensor {
                name,
                reason,
                expected: shape.into(),
            }
        })
    });
    let model = match failed {
        Some(error) => return Err(error),
        None => built?,
    };
    let tokens: Vec<u32> = (0..t as u32).collect();
    let mut g = Graph::inference(device);
    let h = match is_last {
        true => model.hidden(&mut g, &tokens, 1, None)?,
        false => through(&model, &mut g, &tokens)?,
    };
    Ok(h.to_host(&**device)
        .map_err(tokenformer_core::Error::from)?)
}

/// Hidden states after the only block of `model`, before any final norm; [`Model::hidden`] would apply the norm.
fn through<'m>(model: &'m Model, g: &mut Graph<'m>, tokens: &[u32]) -> Result<Tensor> {
    // The embedding comes first in the order of parameters, and every configuration has one.
    let embedding = model.each_param().next().expect("a model has an embedding");
    let h = g
        .embed(embedding, tokens, 1)
        .map_err(tokenformer_core::Error::from)?;
    Ok(model.block(g, 0, h)?)
}

//! The network block by block, for models larger than memory: what [`Model::infer`] computes, while no more than one
//! block is in memory.

use std::ops::Range;
use std::sync::Arc;

use tokenformer_core::config::{FinalNorm, Positions};
use tokenformer_core::device::{AttentionShape, RotaryTable};
use tokenformer_core::{Device, Graph, Model, ModelConfig, SiteKind};

use crate::{Error, Result};

/// Reads rows of an array by its name in a model directory.
pub(crate) type Rows<'a> = dyn FnMut(&str, Range<usize>) -> Result<Vec<f32>> + 'a;

/// Logits `[V]` after the last of `tokens`, which are at most as many as the context.
pub(crate) fn last_logits(
    device: &Arc<dyn Device>,
    config: &ModelConfig,
    tokens: &[u32],
    rows: &mut Rows<'_>,
) -> Result<Vec<f32>> {
    let mut h = Vec::with_capacity(tokens.len() * config.width);
    for &token in tokens {
        let token = token as usize;
        h.extend(rows("embedding", token..token + 1)?);
    }
    for block in 0..config.layers() {
        h = run_block(device, config, block, &h, rows)?;
    }
    let last = h.split_off(h.len().saturating_sub(config.width));

    // A row of the head at a time would be many reads, all of them the largest array of the model.
    const HEAD_ROWS: usize = 4096;
    let factor = f64::from(config.logit_factor());
    let mut logits = Vec::with_capacity(config.vocab);
    for from in (0..config.vocab).step_by(HEAD_ROWS) {
        let part = rows("embedding", from..config.vocab.min(from + HEAD_ROWS))?;
        logits.extend(part.chunks_exact(config.width).map(|row| {
            let products = row.iter().zip(&last).map(|(&e, &x)| f64::from(e) * f64::from(x));
            (factor * products.sum::<f64>()) as f32
        }));
    }
    Ok(logits)
}

/// Hidden states `[T, D]` after a block, after the final norm too if it is the last one.
///
/// A model of this block alone, whose embedding is the hidden states, so that token `t` stands for row `t`.
fn run_block(
    device: &Arc<dyn Device>,
    config: &ModelConfig,
    block: usize,
    h: &[f32],
    rows: &mut Rows<'_>,
) -> Result<Vec<f32>> {
    let t = h.len() / config.width;
    let is_last = block + 1 == config.layers();
    let mut alone = config.clone();
    alone.vocab = t;
    alone.blocks = config.blocks.get(block).cloned().into_iter().collect();
    if !is_last {
        alone.final_norm = FinalNorm::Plain;
    }
    let mut failed = None;
    let built = Model::build(device, &alone, &mut |name, shape| {
        if name == "embedding" {
            return Ok(h.to_vec());
        }
        let name = match name.strip_prefix("blocks.0.") {
            Some(rest) => format!("blocks.{block}.{rest}"),
            None => name.to_string(),
        };
        rows(&name, 0..shape.first().copied().unwrap_or(0)).map_err(|error| {
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
        false => through(&model, config, &mut g, &tokens)?,
    };
    Ok(h.to_host(&**device).map_err(tokenformer_core::Error::from)?)
}

/// Hidden states after the only block of `model`, before any final norm; [`Model::hidden`] goes on to it.
fn through<'m>(
    model: &'m Model,
    config: &ModelConfig,
    g: &mut Graph<'m>,
    tokens: &[u32],
) -> Result<tokenformer_core::graph::Tensor> {
    let (Some(block), Some(embedding)) = (model.blocks().first(), model.params().first().copied()) else {
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

//! Appending hidden units to the MLPs of a plain Transformer, whose width stays as it is.
//!
//! New units form a separate part: `y = MLP(x) + gelu(x·U'ᵀ)·D'ᵀ` with random `U'` of the scale of the old one and `D'`
//! zero. So they add nothing at first, to the bit, and are trained like new tokens: with their own warm-up, learning
//! rate and gradient clipping.

use super::map::GrowthMap;
use super::origin::Origin;
use super::tokens::added;
use super::{Amount, Birth, Growth};
use crate::config::{LayerConfig, MlpPart, ParamTraining, SiteKind};
use crate::error::{Result, config_error};
use crate::model::site_name;
use crate::path::{ParamPath, ParamRole, Place};

/// Adds to `map` the new hidden units of every MLP. Refuses an amount for a linear layer, which has nothing to append to.
pub(super) fn append(map: &mut GrowthMap, growth: &Growth, birth: Birth) -> Result<()> {
    for b in 0..map.target.layers() {
        for kind in SiteKind::ALL {
            let amount = growth.amount(b, kind);
            let (now, first, bias) = match map.target.blocks[b].layer(kind) {
                LayerConfig::Pattention(_) => {
                    check_family(growth, b, kind)?;
                    continue;
                }
                LayerConfig::Linear { .. } if amount == Amount::default() => continue,
                LayerConfig::Linear { .. } => return Err(linear(kind)),
                layer @ LayerConfig::Mlp { hidden, bias, .. } => (layer.hidden(), *hidden, *bias),
            };
            if let Some(added) = added(now, amount, kind)? {
                check_tokens(growth, b, kind)?;
                part(map, growth, birth, (b, kind), [first, added], bias);
            }
        }
    }
    Ok(())
}

fn part(
    map: &mut GrowthMap,
    growth: &Growth,
    birth: Birth,
    (block, kind): (usize, SiteKind),
    [first, added]: [usize; 2],
    bias: bool,
) {
    let LayerConfig::Mlp { parts, .. } = map.target.blocks[block].layer_mut(kind) else {
        return;
    };
    let id = parts.last().map_or(0, |part| part.id) + 1;
    let older: Vec<u32> = parts.iter().map(|part| part.id).collect();
    parts.push(MlpPart {
        id,
        hidden: added,
        stage: birth.stage,
        born_step: birth.step,
    });
    let place = |id, name| match id {
        0 => Place::Linear { block, kind, name },
        id => Place::Part {
            block,
            kind,
            id,
            name,
        },
    };
    let up = |id| ParamPath::new(place(id, "up"), ParamRole::Weight);
    let down = ParamPath::new(place(id, "down"), ParamRole::Weight);
    let base = map.training.base;
    let how = |lr_scale| ParamTraining {
        trainable: true,
        lr_scale,
        old_lr: 1.0,
        generation: birth.stage,
        warmup: growth.warmup(),
    };
    let of = std::iter::once(0).chain(older);
    let of = of.map(|id| up(id).to_string()).collect();
    let width = map.target.width;
    map.add(
        &up(id),
        Origin::Matched { of },
        how(base.factor(&up(id), width)),
    );
    if bias {
        let path = ParamPath::new(place(id, "up"), ParamRole::Bias);
        map.add(&path, Origin::Zero, how(1.0));
    }
    let rate = growth.rate.of_added(first, added) * base.factor(&down, first);
    map.add(&down, Origin::Zero, how(rate));
}

fn linear(kind: SiteKind) -> crate::Error {
    let help = "a plain Transformer grows by ffn (hidden units of its MLPs), layers or width";
    let field = format!("growth of {}", kind.name());
    config_error(field, "a Pattention site or an MLP", "a linear layer", help)
}

/// Returns an error for tokens of an MLP.
fn check_tokens(growth: &Growth, b: usize, kind: SiteKind) -> Result<()> {
    match growth.method {
        Some(method) if method != super::Method::Ffn => Err(config_error(
            format!("growth of {}: method", site_name(b, kind)),
            "ffn, or none: the layer is an MLP",
            method,
            "tokens are appended to Pattention sites",
        )),
        _ => Ok(()),
    }
}

/// Returns an error for hidden units of a site.
fn check_family(growth: &Growth, b: usize, kind: SiteKind) -> Result<()> {
    if growth.method != Some(super::Method::Ffn) || growth.amount(b, kind) == Amount::default() {
        return Ok(());
    }
    Err(config_error(
        format!("growth of {}: method", site_name(b, kind)),
        "segment, zero-key, random-key-zero-value or random: the layer is a Pattention site",
        "ffn",
        "hidden units are appended to MLPs",
    ))
}

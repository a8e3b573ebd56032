//! New blocks, in either family of models.

use super::map::{GrowthMap, Promise};
use super::origin::Origin;
use super::{At, Birth, Growth, NewBlocks};
use crate::build::block_paths;
use crate::config::{
    BlockConfig, LayerConfig, MAX_LAYERS, ModelConfig, ParamTraining, SiteConfig, SiteKind,
    TrainingSettings, in_block,
};
use crate::error::{Result, config_error};
use crate::model::site_name;
use crate::path::{ParamPath, ParamRole, Place};
use std::collections::BTreeMap;

/// A block that is added.
#[derive(Clone, Copy)]
struct New {
    /// Present blocks before it.
    after: usize,
    /// The present block that it is a copy of, or has the sizes of.
    of: usize,
}

/// Adds to `map` the new blocks.
pub(super) fn insert(map: &mut GrowthMap, growth: &Growth, birth: Birth) -> Result<()> {
    let old = map.target.layers();
    let room = MAX_LAYERS.saturating_sub(old);
    if growth.layers > room {
        let expected = format!("at most {room} more");
        let help = "is this the number you meant?";
        let field = "growth of layers";
        return Err(config_error(field, expected, growth.layers, help));
    }
    if growth.layers == 0 {
        return Ok(());
    }
    let start = growth.block_start();
    let new = places(growth, old)?;
    // Numbers of the old blocks among all, and of the new ones.
    let before = |b: usize| new.iter().filter(|n| n.after <= b).count();
    let number = |b: usize| b + before(b);
    let sources = Sources {
        target: map.target.clone(),
        origins: map.origins.clone(),
        training: map.training.clone(),
    };
    move_old(map, old, number);
    for (i, at) in new.iter().enumerate() {
        let b = at.after + i;
        let source = &sources.target.blocks[at.of];
        let config = match start {
            NewBlocks::Zero | NewBlocks::Fresh => fresh(source, birth),
            NewBlocks::Copy | NewBlocks::Interpose | NewBlocks::Last => {
                copy_taus(&mut map.training, &sources.training, [b, at.of]);
                reborn(source, birth)
            }
        };
        map.target.blocks.insert(b, config);
        add_arrays(map, growth, birth, start, &sources, [b, at.of]);
    }
    if start != NewBlocks::Zero {
        map.promise = Promise::Nothing;
    }
    Ok(())
}

/// Returns an error for settings of blocks where none is added.
pub(super) fn check_effect(growth: &Growth) -> Result<()> {
    let settings = [
        ("blocks", growth.blocks != NewBlocks::default()),
        ("at", growth.at.is_some()),
    ];
    match settings.into_iter().find(|(_, given)| *given) {
        Some((field, _)) if growth.layers == 0 => Err(config_error(
            format!("growth: {field}"),
            "nothing, where no block is added",
            "a value",
            "leave it out, or add blocks (--layers)",
        )),
        _ => Ok(()),
    }
}

/// The positions of the new blocks and the blocks that they resemble, first to last.
fn places(growth: &Growth, old: usize) -> Result<Vec<New>> {
    let (start, count) = (growth.block_start(), growth.layers);
    let at = growth.place();
    if let At::After(blocks) = at
        && blocks > old
    {
        let expected = format!("at most the {old} blocks that there are");
        let help = "at counts the present blocks before the new ones";
        return Err(config_error("growth: at", expected, at, help));
    }
    let place = |j: usize| match at {
        At::Start => 0,
        // The middle of the j-th of `count` equal parts, rounded up.
        At::Even => ((2 * j + 1) * old).div_ceil(2 * count),
        At::Middle => old.div_ceil(2),
        At::End => old,
        At::After(blocks) => blocks,
    };
    let like = |j: usize, after: usize| match start {
        NewBlocks::Copy => j % old,
        NewBlocks::Zero | NewBlocks::Fresh | NewBlocks::Interpose | NewBlocks::Last => {
            after.saturating_sub(1)
        }
    };
    let new = |j| {
        let after = place(j);
        let of = like(j, after);
        New { after, of }
    };
    Ok((0..count).map(new).collect())
}

/// Gives the old blocks their new numbers, with all their settings.
fn move_old(map: &mut GrowthMap, old: usize, number: impl Fn(usize) -> usize) {
    let paths: Vec<ParamPath> = (0..old).flat_map(|b| block_paths(&map.target, b)).collect();
    let mut origins: BTreeMap<String, Origin> = (map.origins.iter())
        .map(|(name, origin)| (in_block(name, &number), origin.clone()))
        .collect();
    for path in paths {
        let (of, name) = (path.to_string(), in_block(&path.to_string(), &number));
        if of != name {
            origins.entry(name).or_insert(Origin::Kept { of });
        }
    }
    map.origins = origins;
    map.training = map.training.renumbered(number);
}

/// The settings of the present blocks, before the new ones are added.
struct Sources {
    target: ModelConfig,
    origins: BTreeMap<String, Origin>,
    training: TrainingSettings,
}

/// Defines the origin of the arrays of the new block `b`, which is like the present block `of`.
fn add_arrays(
    map: &mut GrowthMap,
    growth: &Growth,
    birth: Birth,
    start: NewBlocks,
    sources: &Sources,
    [b, of]: [usize; 2],
) {
    for path in block_paths(&map.target, b) {
        let source = path.in_block(of).to_string();
        let (origin, lr_scale) = match start {
            NewBlocks::Zero if adds_to_residual(&path) => (Origin::Zero, usual_rate(map, &path)),
            NewBlocks::Zero | NewBlocks::Fresh => (Origin::Fresh, usual_rate(map, &path)),
            NewBlocks::Copy | NewBlocks::Interpose | NewBlocks::Last => {
                // Arrays that the same growth adds to the source are also added to the copy.
                let known = sources.origins.get(&source).cloned();
                let how = sources.training.params.get(&source);
                let scale = how.map_or(1.0, |how| how.lr_scale);
                (known.unwrap_or(Origin::Copy { of: source }), scale)
            }
        };
        let how = ParamTraining {
            trainable: true,
            lr_scale,
            old_lr: 1.0,
            generation: birth.stage,
            warmup: growth.warmup(),
        };
        map.add(&path, origin, how);
    }
}

/// Lets each `τ` of the new block `b` move as that of the present block `of` does, whose copy it is.
fn copy_taus(training: &mut TrainingSettings, sources: &TrainingSettings, [b, of]: [usize; 2]) {
    for kind in SiteKind::ALL {
        let (name, source) = (site_name(b, kind), site_name(of, kind));
        if let Some(anneal) = sources.anneals.get(&source) {
            training.anneals.insert(name.clone(), anneal.clone());
        }
        if let Some(tracked) = sources.tracked.get(&source) {
            training.tracked.insert(name, tracked.clone());
        }
    }
}

/// Factor of the learning rate of an array of a fresh block.
fn usual_rate(map: &GrowthMap, path: &ParamPath) -> f32 {
    let layer = path.block().zip(path.kind());
    let hidden = layer.map_or(0, |(b, kind)| map.target.blocks[b].layer(kind).hidden());
    let fan_in = match (path.role, path.place) {
        (ParamRole::Values, _) | (_, Place::Linear { name: "down", .. }) => hidden,
        _ => map.target.width,
    };
    map.training.base.factor(path, fan_in)
}

/// The last arrays of a branch: if they are zero, the branch adds nothing.
fn adds_to_residual(path: &ParamPath) -> bool {
    let last = match path.role {
        ParamRole::Values => true,
        ParamRole::Weight => !matches!(path.place, Place::Linear { name: "up", .. }),
        _ => false,
    };
    last && path.kind().is_some_and(SiteKind::writes_residual)
}

/// A block like `source`, with all tokens of a site in one fresh segment, and all hidden units of an MLP in one part.
fn fresh(source: &BlockConfig, birth: Birth) -> BlockConfig {
    let mut block = source.clone();
    block.stage = birth.stage;
    for kind in SiteKind::ALL {
        let layer = block.layer_mut(kind);
        let all = layer.hidden();
        match layer {
            LayerConfig::Pattention(site) => {
                let Birth { stage, step, .. } = birth;
                *site = SiteConfig {
                    eps: site.eps,
                    ..SiteConfig::fresh(all, site.theta, site.norm, stage, step)
                };
            }
            LayerConfig::Mlp { hidden, parts, .. } => {
                *hidden = all;
                parts.clear();
            }
            LayerConfig::Linear { .. } => {}
        }
    }
    block
}

/// A copy of `source`, of which everything is born now.
fn reborn(source: &BlockConfig, birth: Birth) -> BlockConfig {
    let mut block = source.clone();
    block.stage = birth.stage;
    for kind in SiteKind::ALL {
        match block.layer_mut(kind) {
            LayerConfig::Pattention(site) => {
                for segment in &mut site.segments {
                    (segment.stage, segment.born_step) = (birth.stage, birth.step);
                }
            }
            LayerConfig::Mlp { parts, .. } => {
                for part in parts {
                    (part.stage, part.born_step) = (birth.stage, birth.step);
                }
            }
            LayerConfig::Linear { .. } => {}
        }
    }
    block
}

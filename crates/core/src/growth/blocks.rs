//! Appending blocks behind the last, to either family of models.

use super::map::{GrowthMap, Origin, Promise};
use super::{Birth, Growth, NewBlocks};
use crate::build::block_paths;
use crate::config::{BlockConfig, LayerConfig, MAX_LAYERS, ParamTraining, SiteConfig, SiteKind};
use crate::error::{Result, config_error};
use crate::param::{ParamPath, ParamRole, Place};

/// Adds to `map` the new blocks.
pub(super) fn append(map: &mut GrowthMap, growth: &Growth, birth: Birth) -> Result<()> {
    let old = map.target.layers();
    let room = MAX_LAYERS.saturating_sub(old);
    if growth.layers > room {
        let expected = format!("at most {room} more");
        let help = "is this the number you meant?";
        let field = "growth of layers";
        return Err(config_error(field, expected, growth.layers, help));
    }
    for b in old..old + growth.layers {
        let config = match growth.blocks {
            NewBlocks::Zero => fresh(&map.target.blocks[old - 1], birth),
            NewBlocks::Copy => {
                map.promise = Promise::Nothing;
                map.target.blocks[b % old].clone()
            }
        };
        map.target.blocks.push(config);
        for path in block_paths(&map.target, b) {
            let origin = match growth.blocks {
                NewBlocks::Zero if adds_to_residual(&path) => Origin::Zero,
                NewBlocks::Zero => Origin::Fresh,
                NewBlocks::Copy => Origin::Copy {
                    of: path.in_block(b % old).to_string(),
                },
            };
            let how = ParamTraining {
                generation: birth.stage,
                warmup: growth.warmup(),
                ..ParamTraining::default()
            };
            map.training.params.insert(path.to_string(), how);
            map.origins.insert(path.to_string(), origin);
        }
    }
    Ok(())
}

/// Arrays that stand last in a branch: where they are zero, the branch adds nothing.
fn adds_to_residual(path: &ParamPath) -> bool {
    let last = match path.role {
        ParamRole::Values => true,
        ParamRole::Weight => !matches!(path.place, Place::Linear { name: "up", .. }),
        _ => false,
    };
    last && path.kind().is_some_and(SiteKind::writes_residual)
}

/// A block like `last`, with all tokens of a site in one fresh segment.
fn fresh(last: &BlockConfig, birth: Birth) -> BlockConfig {
    let mut block = last.clone();
    for kind in SiteKind::ALL {
        if let LayerConfig::Pattention(site) = block.layer_mut(kind) {
            let Birth { stage, step, .. } = birth;
            *site = SiteConfig {
                eps: site.eps,
                ..SiteConfig::fresh(site.tokens(), site.theta, site.norm, stage, step)
            };
        }
    }
    block
}

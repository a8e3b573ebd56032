//! Widening a plain Transformer: heads are added, and keep their channels; MLPs keep their ratio to the width.
//!
//! With `m` copies of the residual stream side by side, `x' = [x, …, x]`, a LayerNorm gives copies of what it gave. A matrix
//! whose blocks in a row add up to the old one gives copies as well, so heads and hidden units are copied, and the whole
//! network is; a tied head adds up `m` copies, for which the final norm compensates.

use super::map::{GrowthMap, Promise};
use super::origin::{Origin, Split};
use super::{Amount, Birth, Growth, Method, Rate};
use crate::build::all_paths;
use crate::config::{
    HeadKind, ImageInput, LayerConfig, MAX_SIZE, ModelConfig, NormKind, ParamTraining, Positions,
    SiteKind,
};
use crate::error::{Result, config_error};
use crate::init;
use crate::model::site_name;
use crate::path::{ParamPath, ParamRole, Place};

/// What rounding in single precision may move logits by, as a share of their root mean square.
const ROUNDING: f64 = 1e-5;
/// Noise of copies relative to the weights, 10 dB below them.
const CLONE_NOISE: f64 = 0.316;
/// Factor of shrunk weights.
const SHRINK: f64 = 0.4;

/// Turns `map` into that of a wider network.
pub(super) fn widen(
    map: &mut GrowthMap,
    growth: &Growth,
    method: Method,
    birth: Birth,
) -> Result<()> {
    let old = map.target.clone();
    let Some(width) = new_width(&old, growth.width)? else {
        return Ok(());
    };
    map.target = target(&old, width)?;
    for block in &mut map.target.blocks {
        block.stage = birth.stage;
    }
    let copies = copies(&old, width, method)?;
    let final_factor = match copies {
        Some(_) => final_factor(&old, &map.target)?,
        None => 1.0,
    };
    let ratio = old.width as f32 / width as f32;
    for path in all_paths(&map.target) {
        let name = path.to_string();
        // No array stays, so none is held back as an old one any longer.
        let mut how = ParamTraining {
            trainable: true,
            old_lr: 1.0,
            warmup: growth.warmup(),
            ..map.training_of(&name)
        };
        if path.role == ParamRole::Weight && !of_patches(&path) && growth.rate == Rate::Slots {
            how.lr_scale *= ratio;
        }
        let origin = match method {
            Method::ShrinkPad | Method::Corner => corner(&old, &path, growth, method, ratio),
            _ => copied(&path, growth, method, final_factor),
        };
        map.add(&path, origin, how);
    }
    map.promise = match copies {
        Some(_) => Promise::Within(ROUNDING),
        None => Promise::Nothing,
    };
    Ok(())
}

/// The new width; `None` if it is the old one.
fn new_width(old: &ModelConfig, amount: Amount) -> Result<Option<usize>> {
    let width = match amount {
        Amount::Add(more) => old.width.checked_add(more),
        Amount::To(width) => Some(width),
    };
    let (channels, refused) = (old.channels(), |expected: String, help: &str| {
        Err(config_error("growth: width", expected, amount, help))
    });
    match width {
        Some(width) if width == old.width => Ok(None),
        Some(width) if width > old.width && width <= MAX_SIZE => {
            if !width.is_multiple_of(channels) {
                let help = "heads keep their channels, and new ones are added";
                return refused(
                    format!("a multiple of the {channels} channels of a head"),
                    help,
                );
            }
            Ok(Some(width))
        }
        _ => {
            let expected = format!("from the present width {} to {MAX_SIZE}", old.width);
            refused(expected, "growing cannot make a network narrower")
        }
    }
}

/// Copies of the old network side by side; `None` for a method that makes none.
fn copies(old: &ModelConfig, width: usize, method: Method) -> Result<Option<usize>> {
    if old.positions == Positions::SinCos2d && matches!(method, Method::Clone | Method::Lemon) {
        let expected = "learned or none, with a method that copies the network";
        let help = "the fixed table of a wider network is no copy of the old one: corner and shrink-pad allow it";
        return Err(config_error(
            "growth: positions",
            expected,
            "sincos2d",
            help,
        ));
    }
    let (fits, expected) = match method {
        Method::Clone => (
            width.is_multiple_of(old.width),
            format!("a multiple of the width {}", old.width),
        ),
        Method::Lemon => (
            width == 2 * old.width,
            format!("twice the width, {}", 2 * old.width),
        ),
        _ => return Ok(None),
    };
    if !fits {
        let help = format!("the method {method} puts whole copies side by side");
        return Err(config_error("growth: width", expected, width, help));
    }
    Ok(Some(width / old.width))
}

/// The configuration at another width.
fn target(old: &ModelConfig, width: usize) -> Result<ModelConfig> {
    let mut target = old.clone();
    target.heads = width / old.channels();
    target.width = width;
    for (b, block) in target.blocks.iter_mut().enumerate() {
        for kind in SiteKind::ALL {
            let name = site_name(b, kind);
            match block.layer_mut(kind) {
                LayerConfig::Linear { .. } => {}
                LayerConfig::Mlp { hidden, parts, .. } => {
                    *hidden = scaled(*hidden, old.width, width, &name)?;
                    for part in parts {
                        part.hidden = scaled(part.hidden, old.width, width, &name)?;
                    }
                }
                LayerConfig::Pattention(_) => {
                    let help = "a TokenFormer keeps its width: it grows by tokens and layers";
                    let field = format!("growth of {name}: width");
                    return Err(config_error(
                        field,
                        "a plain Transformer",
                        "a Pattention site",
                        help,
                    ));
                }
            }
        }
    }
    target.validate()?;
    Ok(target)
}

fn scaled(hidden: usize, old: usize, new: usize, name: &str) -> Result<usize> {
    let scaled = hidden as u128 * new as u128;
    match scaled.is_multiple_of(old as u128) {
        true => Ok((scaled / old as u128) as usize),
        false => Err(config_error(
            format!("growth of {name}: width"),
            format!("a width at which {hidden} x width / {old} is a whole number of hidden units"),
            new,
            "MLPs keep their ratio to the width",
        )),
    }
}

/// Factor of the final norm that keeps the logits of copies.
fn final_factor(old: &ModelConfig, new: &ModelConfig) -> Result<f64> {
    let copies = match old.head {
        HeadKind::Tied => (new.width / old.width) as f64,
        // The columns of an untied head are split like those of other matrices.
        HeadKind::Untied => 1.0,
    };
    let factor = f64::from(old.logit_factor()) / (f64::from(new.logit_factor()) * copies);
    if old.final_norm == NormKind::Plain && factor != 1.0 {
        let expected = "affine, with a method that copies the network";
        let help = "the gain of the final norm makes up for the copies that the head adds up";
        return Err(config_error("growth: final_norm", expected, "plain", help));
    }
    Ok(factor)
}

/// What an array of copies starts from.
fn copied(path: &ParamPath, growth: &Growth, method: Method, final_factor: f64) -> Origin {
    let of = path.to_string();
    match path.role {
        // All copies see the same pixels.
        ParamRole::Weight if of_patches(path) => Origin::Repeat { of, factor: 1.0 },
        ParamRole::Weight | ParamRole::Head => {
            let rule = match method {
                Method::Lemon => Split::Uneven,
                _ => Split::Noisy(growth.noise.unwrap_or(CLONE_NOISE)),
            };
            Origin::Split { of, rule }
        }
        _ => {
            let is_final = matches!(path.place, Place::Norm { block: None, .. });
            let factor = if is_final { final_factor } else { 1.0 };
            Origin::Repeat { of, factor }
        }
    }
}

/// What an array with the old one in its corner starts from.
fn corner(
    old: &ModelConfig,
    path: &ParamPath,
    growth: &Growth,
    method: Method,
    ratio: f32,
) -> Origin {
    let of = path.to_string();
    let is_vector = matches!(path.role, ParamRole::Gain | ParamRole::Bias);
    if method == Method::Corner || is_vector {
        return Origin::Corner {
            of,
            shrink: 1.0,
            noise: None,
        };
    }
    // Noise as that of a fresh matrix, whose variance falls with the fan-in; tables have none.
    let size = init::std(old, path, &old_shape(old, path));
    let by_width = match path.role {
        ParamRole::Weight if !of_patches(path) => f64::from(ratio).sqrt(),
        _ => 1.0,
    };
    Origin::Corner {
        of,
        shrink: growth.shrink.unwrap_or(SHRINK),
        noise: Some(growth.noise.unwrap_or(1.0) * size * by_width),
    }
}

/// The shape that a matrix has, as far as its fresh size depends on it.
fn old_shape(old: &ModelConfig, path: &ParamPath) -> [usize; 2] {
    let fan_in = match path.place {
        Place::Image("patches") => old.input.image().map_or(1, ImageInput::patch_len),
        Place::Linear {
            block,
            kind,
            name: "down",
        }
        | Place::Part {
            block,
            kind,
            name: "down",
            ..
        } => old.blocks[block].layer(kind).hidden(),
        _ => old.width,
    };
    [1, fan_in]
}

/// Whether an array embeds the patches of an image: its input, the pixels of a patch, does not depend on the width.
fn of_patches(path: &ParamPath) -> bool {
    path.place == Place::Image("patches")
}

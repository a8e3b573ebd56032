//! Keys that have no effect in their recipe: a user who sets one expects an effect.

use super::{ImagesTable, ModelTable, PositionKind, Recipe, Resolved, SampleTable};
use crate::error::{Error, Result};
use tokenformer_core::config::Family;
use toml::{Table, Value};

/// Keys that have no effect, all for the same reason.
struct Idle {
    why: &'static str,
    help: &'static str,
    /// Each with whether its value differs from the default.
    keys: Vec<(&'static str, bool)>,
}

impl Resolved {
    /// Checks that every value which differs from that of the preset, or from the default, has an effect.
    ///
    /// A recipe that a run has written may have values from before they were refused. It must stay usable with the run, and
    /// is not to be checked.
    ///
    /// # Errors
    /// [`Error::Recipe`] for the first that has none.
    pub fn check_effects(&self) -> Result<()> {
        for Idle { why, help, keys } in idle(&self.recipe)? {
            let Some((key, _)) = keys.into_iter().find(|(_, is_set)| *is_set) else {
                continue;
            };
            return Err(Error::Recipe {
                place: match self.origin_of(key) {
                    Some(origin) => format!("{origin}: {key}"),
                    None => key.into(),
                },
                problem: "this key has no effect here".into(),
                expected: format!("nothing: {why}"),
                got: value(&self.recipe, key),
                help: help.into(),
            });
        }
        Ok(())
    }
}

/// All keys that have no effect in a recipe.
fn idle(recipe: &Recipe) -> Result<Vec<Idle>> {
    let (model, base) = (&recipe.model, &recipe.lr_base);
    let preset = ModelTable::from_preset(&model.preset)?;
    let of_family = match model.family {
        Family::Tokenformer => Idle {
            why: "only plain Transformers have linear layers and MLPs",
            help: "model.slots sets the sizes of a TokenFormer, and qkv, proj and ffn of [lr_base] its rates",
            keys: vec![
                ("model.mlp_hidden", model.mlp_hidden != preset.mlp_hidden),
                ("model.bias", model.bias != preset.bias),
                ("lr_base.width", base.width > 0),
                ("lr_base.mlp_hidden", base.mlp_hidden > 0),
            ],
        },
        Family::Gpt => Idle {
            why: "a plain Transformer has no parameter tokens",
            help: "model.mlp_hidden sets the width of its MLPs, and width and mlp_hidden of [lr_base] its rates",
            keys: vec![
                ("model.norm", model.norm != preset.norm),
                ("model.theta", model.theta != preset.theta),
                ("lr_base.qkv", base.qkv > 0),
                ("lr_base.proj", base.proj > 0),
                ("lr_base.ffn", base.ffn > 0),
            ],
        },
    };
    let of_input = match model.input.is_tokens() {
        true => {
            let (images, usual) = (&recipe.images, ImagesTable::default());
            Idle {
                why: "the model reads text",
                help: "leave it out, or choose a model of pictures, such as vit-mnist",
                keys: vec![
                    ("images.crop_share", images.crop_share != usual.crop_share),
                    ("images.filter", images.filter != usual.filter),
                    ("images.resize", images.resize != usual.resize),
                    ("images.workers", images.workers != usual.workers),
                    ("images.augment", images.augment != usual.augment),
                    ("eval.images", recipe.eval.images > 0),
                ],
            }
        }
        false => {
            let (sample, usual) = (&recipe.sample, SampleTable::default());
            let tokens = Recipe::default().eval.tokens;
            Idle {
                why: "the model reads pictures, and writes no text",
                help: "leave it out; eval.images bounds an evaluation",
                keys: vec![
                    ("sample.every", sample.every != usual.every),
                    ("sample.prompt", sample.prompt != usual.prompt),
                    // No samples is what such a run has anyway.
                    (
                        "sample.tokens",
                        sample.tokens != usual.tokens && sample.tokens > 0,
                    ),
                    (
                        "sample.temperature",
                        sample.temperature != usual.temperature,
                    ),
                    ("sample.top_p", sample.top_p != usual.top_p),
                    ("eval.tokens", recipe.eval.tokens != tokens),
                ],
            }
        }
    };
    let is_rotary = model.positions == PositionKind::Rotary;
    let of_positions = Idle {
        why: "the positions are not rotary",
        help: "set model.positions = \"rotary\", or leave it out",
        keys: vec![
            (
                "model.rotary_fraction",
                !is_rotary && model.rotary_fraction != preset.rotary_fraction,
            ),
            (
                "model.rotary_base",
                !is_rotary && model.rotary_base != preset.rotary_base,
            ),
        ],
    };
    Ok(vec![of_family, of_input, of_positions])
}

/// The value of a key, as a recipe has it.
fn value(recipe: &Recipe, key: &str) -> String {
    // A recipe was read from TOML, so it can be written as such.
    let table = Table::try_from(recipe).expect("a recipe is plain data with string keys");
    let mut parts = key.split('.');
    let first = parts.next().and_then(|part| table.get(part));
    let found = parts.try_fold(first, |at, part| Some(at?.get(part)));
    found.flatten().map(Value::to_string).unwrap_or_default()
}

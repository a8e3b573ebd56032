//! Keys that have no effect in their recipe: a user who sets one expects an effect.

use super::{
    EmaTable, ImagesTable, ModelTable, PlannerTable, PositionKind, Recipe, Resolved, SampleTable,
};
use crate::error::{Error, Result};
use crate::schedule::{Schedule, Shape};
use tokenformer_core::config::Family;
use toml::{Table, Value};

/// Keys that have no effect, all for the same reason.
struct Idle {
    why: &'static str,
    help: &'static str,
    /// What their names begin with.
    table: String,
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
        for Idle {
            why,
            help,
            table,
            keys,
        } in idle(&self.recipe)?
        {
            let Some((key, _)) = keys.into_iter().find(|(_, is_set)| *is_set) else {
                continue;
            };
            let key = &format!("{table}{key}");
            return Err(Error::Recipe {
                place: match self.origin_of(key) {
                    Some(origin) => format!("{origin}: {key}"),
                    None => key.clone(),
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
            table: String::new(),
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
            table: String::new(),
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
                table: String::new(),
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
                table: String::new(),
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
        table: String::new(),
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
    let (ema, planner) = (&recipe.ema, &recipe.planner);
    let of_average = Idle {
        why: "there is no average of the weights",
        help: "set ema.decay, for example 0.99, or leave it out",
        table: String::new(),
        keys: vec![(
            "ema.warmup",
            ema.decay == 0.0 && ema.warmup != EmaTable::default().warmup,
        )],
    };
    let (plans, usual) = (!planner.grow.is_empty(), PlannerTable::default());
    let of_planner = Idle {
        why: "no growth is left to the planner",
        help: "add a [[planner.grow]] table, or leave it out",
        table: String::new(),
        keys: vec![
            (
                "planner.evidence",
                !plans && planner.evidence != usual.evidence,
            ),
            (
                "planner.confidence",
                !plans && planner.confidence != usual.confidence,
            ),
        ],
    };
    let mut all = vec![of_family, of_input, of_positions, of_average, of_planner];
    all.extend(of_schedule("schedule.", &recipe.schedule));
    for (i, event) in recipe.grow.iter().enumerate() {
        let own = event.schedule.as_ref();
        all.extend(
            own.into_iter()
                .flat_map(|own| of_schedule(&format!("grow[{i}].schedule."), own)),
        );
    }
    Ok(all)
}

/// The keys of a schedule that its shape does not use.
fn of_schedule(table: &str, schedule: &Schedule) -> [Idle; 3] {
    let usual = Schedule::default();
    let decays = schedule.shape == Shape::Wsd;
    let other_share = schedule.decay_share != usual.decay_share;
    let idle = |why, help, keys| Idle {
        why,
        help,
        table: table.into(),
        keys,
    };
    [
        idle(
            "only the shape \"wsd\" has a decay of its own length and shape",
            "set shape = \"wsd\" there, or leave it out",
            vec![
                ("decay_share", !decays && other_share),
                (
                    "decay_steps",
                    !decays && schedule.decay_steps != usual.decay_steps,
                ),
                ("decay", !decays && schedule.decay != usual.decay),
            ],
        ),
        idle(
            "decay_steps says how long the decay is",
            "leave one of the two out",
            vec![(
                "decay_share",
                decays && schedule.decay_steps > 0 && other_share,
            )],
        ),
        idle(
            "the learning rate stays the highest",
            "set shape = \"cosine\" or \"wsd\" there, or leave it out",
            vec![(
                "min_ratio",
                schedule.shape == Shape::Constant && schedule.min_ratio != usual.min_ratio,
            )],
        ),
    ]
}

/// The value of a key such as `grow[0].schedule.decay`, as a recipe has it.
fn value(recipe: &Recipe, key: &str) -> String {
    // A recipe was read from TOML, so it can be written as such.
    let table = Table::try_from(recipe).expect("a recipe is plain data with string keys");
    let whole = Value::Table(table);
    let mut parts = key.split(['.', '[']);
    let found = parts.try_fold(&whole, |at, part| match part.strip_suffix(']') {
        Some(index) => at.get(index.parse::<usize>().ok()?),
        None => at.get(part),
    });
    found.map(Value::to_string).unwrap_or_default()
}

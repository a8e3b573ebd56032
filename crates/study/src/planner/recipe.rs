//! Sizes of a recipe's model, and the recipe of a schedule.

use super::search::{Schedule, Size};
use tokenformer_core::config::{BaseSizes, Family, Slots};
use tokenformer_core::growth::{Amount, Growth, Method};
use tokenformer_train::recipe::{GrowEvent, ModelTable, PlannerTable, Recipe};
use tokenformer_train::schedule::Shape;
use tokenformer_train::{Error, Result};

/// Parameter tokens are added in groups that fill vector registers.
const GROUP: usize = 16;
/// Share of the steps in which the learning rate falls at the end.
const DECAY_SHARE: f64 = 0.2;

/// The sizes that a recipe's model can grow to, in proportion over all sites.
#[derive(Clone, Debug)]
pub struct Sizes {
    model: ModelTable,
    vocab: usize,
    max_params: u64,
}

impl Sizes {
    /// Sizes of at most `max_params` learnable numbers.
    ///
    /// # Errors
    /// If the model is impossible, has no parameter tokens, or is larger than `max_params`.
    pub fn new(model: &ModelTable, vocab: usize, max_params: Option<u64>) -> Result<Self> {
        if model.family != Family::Tokenformer {
            return Err(impossible(
                "model.family",
                "a TokenFormer, which grows by parameter tokens",
                "a plain Transformer".into(),
                "`config presets` lists TokenFormers",
            ));
        }
        if !model.input.is_tokens() {
            return Err(impossible(
                "model.input",
                "a language model",
                "a model of images".into(),
                "`config presets` lists language models",
            ));
        }
        let sizes = Self {
            model: model.clone(),
            vocab,
            max_params: max_params.unwrap_or(u64::MAX),
        };
        let base = model.build(vocab)?.params();
        match base <= sizes.max_params {
            true => Ok(sizes),
            false => Err(impossible(
                "--max-params",
                &format!("at least the {base} of the recipe's model"),
                sizes.max_params.to_string(),
                "begin with a smaller preset, or allow more parameters",
            )),
        }
    }

    fn slots(&self, factor: f64) -> Slots {
        let Slots { qkv, proj, ffn } = self.model.slots;
        let [qkv, proj, ffn] = [qkv, proj, ffn].map(|tokens| {
            let added = (factor - 1.0) * tokens as f64;
            tokens + (added / GROUP as f64).round() as usize * GROUP
        });
        Slots { qkv, proj, ffn }
    }

    /// The size of `factor` times the base's parameter tokens; `None` if it is too large.
    pub fn of(&self, factor: f64) -> Option<Size> {
        let model = ModelTable {
            slots: self.slots(factor),
            ..self.model.clone()
        };
        let config = model.build(self.vocab).ok()?;
        let size = Size {
            factor,
            params: config.params(),
            effective: config.train_flops_per_token(config.context) / 6.0,
        };
        (size.params <= self.max_params).then_some(size)
    }

    /// `recipe` with the steps, growths and decay of a schedule. A schedule from scratch at a larger size begins with it, and
    /// takes its learning rates from the recipe's size, at which they were found.
    pub fn recipe(&self, recipe: &Recipe, schedule: &Schedule) -> Recipe {
        let mut planned = recipe.clone();
        let per_step = self.tokens_per_step(recipe);
        let steps = |tokens: f64| ((tokens / per_step).round() as u64).max(1);
        planned.grow.clear();
        planned.planner = PlannerTable::default();
        let (mut seen, mut done) = (0.0, 0);
        for (number, (size, tokens)) in schedule.legs.iter().enumerate() {
            let slots = self.slots(size.factor);
            match number {
                0 => {
                    let base = recipe.model.slots;
                    if slots != base && recipe.lr_base == BaseSizes::default() {
                        planned.lr_base = BaseSizes {
                            qkv: base.qkv,
                            proj: base.proj,
                            ffn: base.ffn,
                            ..BaseSizes::default()
                        };
                    }
                    planned.model.slots = slots;
                }
                _ => planned.grow.push(GrowEvent {
                    at_step: done,
                    growth: Growth {
                        method: Some(Method::Segment),
                        qkv: Amount::To(slots.qkv),
                        proj: Amount::To(slots.proj),
                        ffn: Amount::To(slots.ffn),
                        ..Growth::default()
                    },
                    ..GrowEvent::default()
                }),
            }
            seen += tokens;
            // Every stage has at least one update.
            done = steps(seen).max(done + 1);
        }
        planned.train.steps = done;
        planned.schedule.shape = Shape::Wsd;
        planned.schedule.decay_share = DECAY_SHARE;
        planned.schedule.decay_steps = 0;
        planned
    }

    /// Tokens of an update.
    pub fn tokens_per_step(&self, recipe: &Recipe) -> f64 {
        let windows = recipe.train.batch as f64 * recipe.train.accumulate as f64;
        windows * self.model.context as f64
    }
}

fn impossible(place: &str, expected: &str, got: String, help: &str) -> Error {
    Error::Recipe {
        place: place.into(),
        problem: "no growth can be planned".into(),
        expected: expected.into(),
        got,
        help: help.into(),
    }
}

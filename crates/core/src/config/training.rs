//! What only training needs to know of a model, beside its configuration: stored with a run's state.

use crate::error::{Result, config_error};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A site's `τ` moving between two values over training steps, geometrically.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anneal {
    /// `τ` at `start_step`.
    pub from: f64,
    /// `τ` from `start_step + steps` on.
    pub to: f64,
    /// Training step at which it begins to move.
    pub start_step: u64,
    /// Steps it takes.
    pub steps: u64,
}

impl Anneal {
    /// `τ` at a training step.
    pub fn at(&self, step: u64) -> f64 {
        let done = step.saturating_sub(self.start_step);
        if done >= self.steps {
            return self.to;
        }
        let share = done as f64 / self.steps as f64;
        self.from * (self.to / self.from).powf(share)
    }
}

/// How an array is trained. The default is what every array of a fresh model has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParamTraining {
    /// Whether training changes it.
    pub trainable: bool,
    /// Factor of the learning rate.
    pub lr_scale: f32,
    /// Growths before its birth. The gradients of each generation are clipped by a norm of their own, so that those of
    /// new arrays, which are large at first, do not shrink the updates of old ones.
    pub generation: u32,
    /// Updates of its own over which its learning rate rises linearly from 0, for arrays that are younger than the
    /// run: see `docs/growth.md`.
    pub warmup: u64,
}

impl Default for ParamTraining {
    fn default() -> Self {
        Self {
            trainable: true,
            lr_scale: 1.0,
            generation: 0,
            warmup: 0,
        }
    }
}

/// What differs from a fresh model's training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingSettings {
    /// By name of the array, where it differs from the default.
    pub params: BTreeMap<String, ParamTraining>,
    /// `τ`s that are moving, by name of the site (`blocks.0.ffn`).
    pub anneals: BTreeMap<String, Anneal>,
}

impl TrainingSettings {
    /// Whether nothing differs.
    pub fn is_default(&self) -> bool {
        self.params.is_empty() && self.anneals.is_empty()
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        for (name, param) in &self.params {
            if !(param.lr_scale.is_finite() && param.lr_scale >= 0.0) {
                let field = format!("{name}: lr_scale");
                let help = "1 is the usual factor of the learning rate";
                return Err(config_error(
                    field,
                    "a number from 0 on",
                    param.lr_scale,
                    help,
                ));
            }
        }
        for (name, anneal) in &self.anneals {
            for (part, tau) in [("from", anneal.from), ("to", anneal.to)] {
                if !(tau.is_finite() && tau > 0.0) {
                    let field = format!("{name}: anneal.{part}");
                    let help = "a fresh site has the root of its tokens";
                    return Err(config_error(field, "a positive number", tau, help));
                }
            }
        }
        Ok(())
    }
}

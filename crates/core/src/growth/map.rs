//! A growth as a map from a network to a larger one: the initial value of each of its arrays.

use super::numbers::Numbers;
use super::origin::Origin;
use super::{Birth, Growth, Probe};
use crate::build::{Builder, all_paths};
use crate::config::{ModelConfig, ParamTraining, TrainingSettings};
use crate::error::Result;
use crate::model::Model;
use crate::path::ParamPath;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a growth guarantees about the function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Promise {
    /// Every logit keeps its bits.
    Exact,
    /// The logits change only by rounding: the rms of their differences, divided by their own rms, is at most this.
    Within(f64),
    /// Nothing; the report says how much the logits changed.
    Nothing,
}

/// A growth: the larger network, and where its numbers come from.
#[derive(Clone, Debug)]
pub struct GrowthMap {
    /// The configuration of the grown network.
    pub target: ModelConfig,
    /// What arrays start from, by the names that they have in the grown network. An array without an entry is the one
    /// that has its name in the present network: it stays where it is, with its moments.
    pub origins: BTreeMap<String, Origin>,
    /// What training needs to know of the grown network.
    pub training: TrainingSettings,
    /// The guarantee.
    pub promise: Promise,
}

impl GrowthMap {
    /// The map that changes nothing.
    pub(super) fn identity(config: &ModelConfig, training: &TrainingSettings) -> Self {
        Self {
            target: config.clone(),
            origins: BTreeMap::new(),
            training: training.clone(),
            promise: Promise::Exact,
        }
    }

    /// Sets the origin of a new array, and how it is trained.
    pub(super) fn add(&mut self, path: &ParamPath, origin: Origin, how: ParamTraining) {
        let name = path.to_string();
        self.training.params.insert(name.clone(), how);
        self.origins.insert(name, origin);
    }

    /// How an array is trained.
    pub(super) fn training_of(&self, name: &str) -> ParamTraining {
        self.training.params.get(name).copied().unwrap_or_default()
    }

    /// Freezes or slows the old arrays, as `growth` requests.
    pub(super) fn hold_back(&mut self, growth: &Growth) {
        for path in all_paths(&self.target) {
            let name = path.to_string();
            let stays = matches!(self.origins.get(&name), None | Some(Origin::Kept { .. }));
            if stays && (growth.freeze_old || growth.old_lr != 1.0) {
                let how = self.training.params.entry(name).or_default();
                how.trainable &= !growth.freeze_old;
                how.old_lr *= growth.old_lr;
            }
        }
    }

    /// Carries out the growth, with random numbers from the seed of `birth`. `probe` are inputs on which scores are
    /// measured, where an array starts from their size. Returns the floating-point operations of that.
    ///
    /// # Errors
    /// If the target is impossible (the model is then unchanged), or memory is short (it must then be thrown away).
    pub fn apply(&self, model: &mut Model, birth: Birth, probe: Probe<'_>) -> Result<u64> {
        self.target.validate()?;
        self.training.validate()?;
        let device = Arc::clone(model.device());
        let numbers = Numbers::read(&self.origins, &self.target, model, birth, probe)?;
        let (mut old, next_id) = model.take_params();
        let mut kept = HashMap::new();
        for (name, origin) in &self.origins {
            if let Origin::Kept { of } = origin
                && let Some(param) = old.remove(of)
            {
                kept.insert(name.clone(), param);
            }
        }
        let new: BTreeSet<&String> = self.origins.keys().collect();
        kept.extend(old.into_iter().filter(|(name, _)| !new.contains(name)));
        let mut weights = |path: &ParamPath, shape: &[usize]| {
            let origin = self.origins.get(&path.to_string());
            numbers.of(origin.unwrap_or(&Origin::Fresh), path, shape)
        };
        let builder = Builder {
            device: &device,
            next_id,
            weights: &mut weights,
            kept,
            pack: None,
        };
        let grown = Model::assemble(&self.target, builder)?;
        let flops = numbers.flops;
        *model = grown;
        model.set_training(&self.training);
        device.trim();
        Ok(flops)
    }
}

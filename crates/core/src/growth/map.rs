//! A growth as a map from a network to a larger one: what each new array starts from.

use crate::build::Builder;
use crate::config::{ModelConfig, TrainingSettings};
use crate::error::Result;
use crate::init;
use crate::model::Model;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a new array starts from. Its moments start from zero in any case, and its updates are counted from its birth.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// Zeros.
    Zero,
    /// Fresh numbers, as in a fresh model of the new configuration.
    Fresh,
    /// The numbers of an array of the same shape that exists already.
    Copy {
        /// Its name.
        of: String,
    },
}

/// What a growth promises of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Every logit keeps its bits.
    Exact,
    /// Nothing; the report tells how far the logits moved.
    Nothing,
}

/// A growth: the larger network, and where its numbers come from.
#[derive(Clone, Debug)]
pub struct GrowthMap {
    /// The configuration of the grown network. Arrays that it shares with the present one, by name, are kept where they
    /// are, with their moments.
    pub target: ModelConfig,
    /// What every other array starts from, by name.
    pub origins: BTreeMap<String, Origin>,
    /// What training needs to know of the grown network.
    pub training: TrainingSettings,
    /// What is promised.
    pub promise: Promise,
}

impl GrowthMap {
    /// The map that changes nothing.
    pub(super) fn identity(model: &Model) -> Self {
        Self {
            target: model.config(),
            origins: BTreeMap::new(),
            training: model.training_settings(),
            promise: Promise::Exact,
        }
    }

    /// Carries the growth out. Fresh numbers are drawn with `seed`.
    ///
    /// # Errors
    /// If the target is impossible (the model is then unchanged), or memory is short (it must then be thrown away).
    pub fn apply(&self, model: &mut Model, seed: u64) -> Result<()> {
        self.target.validate()?;
        self.training.validate()?;
        let device = Arc::clone(model.device());
        let mut copies = BTreeMap::new();
        for param in model.each_param() {
            let name = param.name();
            let copied = |origin: &Origin| matches!(origin, Origin::Copy { of } if of == name);
            if self.origins.values().any(copied) {
                let mut host = vec![0.0; param.len()];
                device.read(param.value(), &mut host)?;
                copies.insert(name.to_string(), host);
            }
        }
        let (kept, next_id) = model.take_params();
        let mut weights = |path: &crate::param::ParamPath, shape: &[usize]| {
            let len = shape.iter().product();
            match self.origins.get(&path.to_string()) {
                Some(Origin::Zero) => init::constant_array(len, 0.0),
                Some(Origin::Copy { of }) => Ok(copies.get(of).cloned().unwrap_or_default()),
                Some(Origin::Fresh) | None => init::fresh(&self.target, seed, path, shape),
            }
        };
        let builder = Builder {
            device: &device,
            next_id,
            weights: &mut weights,
            kept,
            pack: None,
        };
        *model = Model::assemble(&self.target, builder)?;
        model.set_training(&self.training);
        device.trim();
        Ok(())
    }
}

//! Computes the networks after growths without training them.

use std::collections::BTreeMap;
use std::sync::Arc;
use tokenformer_core::config::TrainingSettings;
use tokenformer_core::growth::Birth;
use tokenformer_core::{Device, Model, ModelConfig};
use tokenformer_train::Result;
use tokenformer_train::recipe::{GrowEvent, ModelTable};

/// A network, and what of it learns.
#[derive(Debug)]
pub struct Shape {
    /// The network.
    pub config: Arc<ModelConfig>,
    training: TrainingSettings,
    /// Operations of a token that are not done, because what they are for is frozen.
    spared: f64,
}

impl Shape {
    /// Floating-point operations of training on one token at context length `t`; what is frozen has no gradients.
    pub fn train_flops_per_token(&self, t: usize) -> f64 {
        self.config.train_flops_per_token(t) - self.spared
    }
}

/// Networks by initial model and growths, each computed once.
pub struct Shapes {
    device: Arc<dyn Device>,
    known: BTreeMap<String, Arc<Shape>>,
}

impl Shapes {
    /// An empty table. Models without numbers are made on `device`.
    pub fn new(device: &Arc<dyn Device>) -> Self {
        Self {
            device: Arc::clone(device),
            known: BTreeMap::new(),
        }
    }

    /// The network after `growths`, applied in order to the initial model.
    ///
    /// # Errors
    /// If the model or a growth is impossible.
    pub fn of(&mut self, model: &ModelTable, growths: &[GrowEvent]) -> Result<Arc<Shape>> {
        let name = format!("{model:?} {growths:?}");
        if let Some(known) = self.known.get(&name) {
            return Ok(Arc::clone(known));
        }
        let (config, training) = match growths.split_last() {
            None => (model.build(model.vocab)?, TrainingSettings::default()),
            Some((last, before)) => {
                let before = self.of(model, before)?;
                let birth = Birth {
                    stage: growths.len() as u32,
                    step: last.at_step,
                    seed: 0,
                };
                let map = (last.growth).map_of(&before.config, &before.training, birth)?;
                (map.target, map.training)
            }
        };
        let shape = Arc::new(Shape {
            spared: self.spared(&config, &training)?,
            config: Arc::new(config),
            training,
        });
        self.known.insert(name, Arc::clone(&shape));
        Ok(shape)
    }

    /// Operations of a token that a model of this network does not do, because something is frozen.
    fn spared(&self, config: &ModelConfig, training: &TrainingSettings) -> Result<f64> {
        if training.params.values().all(|how| how.trainable) {
            return Ok(0.0);
        }
        let mut zeros = |_: &_, shape: &[usize]| Ok(vec![0.0; shape.iter().product()]);
        let mut model = Model::build(&self.device, config, &mut zeros)?;
        model.set_training(training);
        // It does not depend on the length of the context.
        let context = config.context;
        Ok(config.train_flops_per_token(context) - model.train_flops_per_token(context))
    }
}

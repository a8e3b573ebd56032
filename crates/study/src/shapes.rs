//! Computes the networks after growths without training them.

use std::collections::BTreeMap;
use std::sync::Arc;
use tokenformer_core::growth::{Birth, config_after};
use tokenformer_core::{Device, Model, ModelConfig};
use tokenformer_train::Result;
use tokenformer_train::recipe::{GrowEvent, ModelTable};

/// Networks by initial model and growths, each computed once.
pub struct Shapes {
    device: Arc<dyn Device>,
    known: BTreeMap<String, Arc<ModelConfig>>,
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
    pub fn of(&mut self, model: &ModelTable, growths: &[GrowEvent]) -> Result<Arc<ModelConfig>> {
        let name = format!("{model:?} {growths:?}");
        if let Some(known) = self.known.get(&name) {
            return Ok(Arc::clone(known));
        }
        let config = match growths.split_last() {
            None => model.build(model.vocab)?,
            Some((last, before)) => {
                let before = self.of(model, before)?;
                let mut zeros = |_: &_, shape: &[usize]| Ok(vec![0.0; shape.iter().product()]);
                let model = Model::build(&self.device, &before, &mut zeros)?;
                let birth = Birth {
                    stage: growths.len() as u32,
                    step: last.at_step,
                    seed: 0,
                };
                config_after(&model, &last.growth, birth)?
            }
        };
        let config = Arc::new(config);
        self.known.insert(name, Arc::clone(&config));
        Ok(config)
    }
}

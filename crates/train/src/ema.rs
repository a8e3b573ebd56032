//! An exponential moving average of the weights.
//!
//! The average is a separate model: it is evaluated, saved and grown by the same code.

use crate::error::Result;
use crate::files;
use crate::recipe::EmaTable;
use std::path::Path;
use std::sync::Arc;
use tokenformer_core::Model;
use tokenformer_core::config::TrainingSettings;
use tokenformer_core::growth::{Birth, Growth, GrowthReport, Origin};

/// The average of a model's weights.
pub struct Ema {
    settings: EmaTable,
    model: Model,
}

impl Ema {
    /// An average that begins with the weights of `model`; `None` if the settings ask for none.
    ///
    /// # Errors
    /// If memory is short, or the device fails.
    pub fn new(settings: EmaTable, model: &Model) -> Result<Option<Self>> {
        if settings.decay == 0.0 {
            return Ok(None);
        }
        let mut average = Model::build(model.device(), &model.config(), &mut |_, shape| {
            Ok(vec![0.0; shape.iter().product()])
        })?;
        // Both models list their arrays in the order of files.
        for (average, now) in average.each_param_mut().zip(model.each_param()) {
            model.device().copy(now.value(), average.value_mut())?;
        }
        Ok(Some(Self {
            settings,
            model: average,
        }))
    }

    /// The average in the checkpoint at `dir`, or where it has none, one that begins with its weights in `model`.
    ///
    /// # Errors
    /// As [`Ema::new`], and if the file is damaged.
    pub fn load(settings: EmaTable, dir: &Path, model: &Model) -> Result<Option<Self>> {
        let mut ema = Self::new(settings, model)?;
        if let Some(ema) = &mut ema
            && dir.join(files::EMA).exists()
        {
            ema.restore(dir, model)?;
        }
        Ok(ema)
    }

    /// Brings the average back to what the checkpoint at `dir` says, whose weights `model` has.
    ///
    /// # Errors
    /// If the file is missing or damaged, or the device fails.
    pub(crate) fn restore(&mut self, dir: &Path, model: &Model) -> Result<()> {
        files::restore_weights(&dir.join(files::EMA), &mut self.model)?;
        self.model.follow_taus(model);
        Ok(())
    }

    /// The model that has the average as its weights.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Takes in the weights of `model` after update `t` (1 is the first).
    ///
    /// # Errors
    /// If the device fails.
    pub fn update(&mut self, model: &Model, t: u64) -> Result<()> {
        let device = Arc::clone(model.device());
        let weight = (1.0 - self.settings.decay_at(t)) as f32;
        for (average, now) in self.model.each_param_mut().zip(model.each_param()) {
            device.lerp(weight, now.value(), average.value_mut())?;
        }
        self.model.follow_taus(model);
        Ok(())
    }

    /// Grows the average as `grown` has grown from its old configuration by `growth`. Arrays that start from chance are
    /// the same in both; those that start from old arrays start from the average of these.
    ///
    /// # Errors
    /// As those of the growth itself.
    pub fn grow(
        &mut self,
        grown: &Model,
        growth: &Growth,
        birth: Birth,
        grow: impl FnOnce(&mut Model) -> Result<GrowthReport>,
    ) -> Result<()> {
        let origins = growth.map(&self.model, birth)?.origins;
        grow(&mut self.model)?;
        // Nothing trains the average. A `τ` that moves does so in the trained model, and is taken from there: the rule itself
        // would bring back, at a later growth, what `τ` was at this one.
        self.model.set_training(&TrainingSettings::default());
        let device = Arc::clone(grown.device());
        for (average, now) in self.model.each_param_mut().zip(grown.each_param()) {
            // How large these numbers are depends on the old ones, and the two models differ in them.
            let by_size =
                |origin: &Origin| matches!(origin, Origin::Matched { .. } | Origin::Scores { .. });
            if origins.get(now.name()).is_some_and(by_size) {
                device.copy(now.value(), average.value_mut())?;
            }
        }
        self.model.follow_taus(grown);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::EmaTable;

    #[test]
    fn the_first_updates_keep_less() {
        let settings = EmaTable {
            decay: 0.99,
            warmup: 10,
        };
        assert_eq!(settings.decay_at(1), 2.0 / 11.0);
        assert_eq!(settings.decay_at(90), 0.91);
        assert_eq!(settings.decay_at(10_000), 0.99);
        for warmup in [0, 1] {
            let settings = EmaTable { warmup, ..settings };
            assert_eq!(settings.decay_at(1), 0.99);
        }
    }
}

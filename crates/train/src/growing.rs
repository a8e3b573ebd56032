//! Growth of a model in training, with everything that grows with it.

use crate::ema::Ema;
use crate::error::Result;
use crate::files::{PastGrowth, TrainState};
use crate::recipe::GrowEvent;
use tokenformer_core::Model;
use tokenformer_core::growth::{Birth, Growth, GrowthReport};
use tokenformer_core::optim::AdamW;

/// A model in training between two updates.
pub struct Growing<'a> {
    /// The model.
    pub model: &'a mut Model,
    /// The average of its weights, if there is one.
    pub ema: Option<&'a mut Ema>,
    /// The optimizer.
    pub optimizer: &'a mut AdamW,
    /// Where the training stands.
    pub state: &'a mut TrainState,
}

impl Growing<'_> {
    /// Grows all of it by `growth`, which `event` of a recipe asked for, if one did. `grow` grows the model, and its average
    /// in the same way.
    ///
    /// # Errors
    /// As those of the growth itself, and if memory is short.
    pub fn grow(
        self,
        growth: &Growth,
        event: Option<GrowEvent>,
        grow: impl Fn(&mut Model, Birth) -> Result<GrowthReport>,
    ) -> Result<GrowthReport> {
        let Self {
            model,
            ema,
            optimizer,
            state,
        } = self;
        let birth = Birth {
            stage: state.stage + 1,
            step: state.step,
            seed: state.seed,
        };
        let report = grow(model, birth)?;
        if let Some(ema) = ema {
            ema.grow(model, growth, birth, |average| grow(average, birth))?;
        }
        optimizer.extend(model)?;
        if growth.resets_moments() {
            optimizer.reset(model)?;
        }
        // A growth by nothing begins no stage.
        if report.params_after > report.params_before {
            state.stage += 1;
        }
        state.flops += report.probe_flops as f64;
        state.growths.push(PastGrowth {
            event,
            report: report.clone(),
        });
        Ok(report)
    }
}

//! Changes of the model between two updates; at present these are growths, at steps of the recipe or when they pay.

use crate::error::Result;
use crate::growing::Growing;
use crate::planned::{adds, ensure_memory, growth_due};
use crate::ranks;
use crate::recipe::GrowEvent;
use crate::trainer::Trainer;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokenformer_core::Gradients;

impl Trainer<'_> {
    /// Does what the recipe plans for this step and what has not happened so far. Breaks if `stop` was set during that
    /// time; the run then resumes from the checkpoint before.
    pub(crate) fn events(&mut self, stop: &AtomicBool) -> Result<ControlFlow<()>> {
        let due = match growth_due(&self.recipe, &self.state).cloned() {
            None => self.growth_that_pays()?,
            due => due,
        };
        let Some(event) = due else {
            return Ok(ControlFlow::Continue(()));
        };
        let more = adds(&self.model, &event)?;
        if more == 0 {
            let step = self.state.step;
            let text = format!("the growth at step {step} adds nothing");
            self.records.note(step, text)?;
            return Ok(ControlFlow::Continue(()));
        }
        ensure_memory(&self.model, &self.recipe, &event, more, &*self.collective)?;
        if self.control(&event, stop)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.grow(&event)?;
        Ok(match self.evaluate(stop)? {
            Some(_) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        })
    }

    fn grow(&mut self, event: &GrowEvent) -> Result<()> {
        let task = &self.task;
        let growing = Growing {
            model: &mut self.model,
            ema: self.ema.as_mut(),
            optimizer: &mut self.optimizer,
            state: &mut self.state,
        };
        let report = growing.grow(
            &event.growth,
            Some(event.without_control()),
            |model, birth| task.grow(model, &event.growth, birth),
        )?;
        let device = Arc::clone(self.model.device());
        self.gradients = Gradients::zeros(&device, self.model.params())?;
        self.reducer = self.new_reducer();
        ranks::ensure_same_weights(&*self.collective, &self.model)?;
        self.records.grow(&report, self.state.tokens)
    }

    /// Whether the stage ends here: with the run, or before a growth that adds something or cannot be done.
    pub(crate) fn stage_ends(&self) -> bool {
        let grows = |event| !matches!(adds(&self.model, event), Ok(0));
        self.state.step == self.recipe.train.steps
            || growth_due(&self.recipe, &self.state).is_some_and(grows)
    }
}

//! Trains for a while without a growth, for comparison with the run that grows.

use crate::error::Result;
use crate::files;
use crate::recipe::GrowEvent;
use crate::trainer::Trainer;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

impl Trainer<'_> {
    /// Records the losses of the next updates without the growth, if `event` requests it, and then undoes these
    /// updates. Breaks if `stop` was set during that time; the run then resumes from the checkpoint before.
    pub(crate) fn control(
        &mut self,
        event: &GrowEvent,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>> {
        let step = self.state.step;
        // After the next growth the run would differ in more than this growth.
        let next = self.recipe.grow.iter().map(|g| g.at_step);
        let end = (next.filter(|&at| at > step).min()).unwrap_or(self.recipe.train.steps);
        let updates = event.control.min(end.saturating_sub(step));
        if updates == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        self.save()?;
        // Until rank 0 has written it, the others cannot read it.
        self.barrier()?;
        let text = format!("training on for {updates} updates without the growth, for comparison");
        self.records.note(step, text)?;

        let (state, settings) = (self.state.clone(), self.model.training_settings());
        let (times, waited) = (self.times.pending(), self.waited);
        let trained = self.train_without_growth(updates, stop);
        self.state = state;
        self.times.go_back_to(times);
        self.waited = waited;
        let trained = trained?;
        let saved = self.dir.of_step(step);
        files::restore_arrays(&saved, &mut self.model, &mut self.optimizer)?;
        self.model.set_training(&settings);
        // The last update before this step has set a `tau` that anneals, and the next one sets it again.
        self.model.set_step(step.saturating_sub(1));
        if let Some(ema) = &mut self.ema {
            ema.restore(&saved, &self.model)?;
        }
        Ok(trained)
    }

    fn train_without_growth(&mut self, updates: u64, stop: &AtomicBool) -> Result<ControlFlow<()>> {
        let stage = self.state.stage + 1;
        for _ in 0..updates {
            if self.is_stopped(stop)? {
                return Ok(ControlFlow::Break(()));
            }
            let Some(update) = self.train_step(stop)? else {
                return Ok(ControlFlow::Break(()));
            };
            self.records.control(self.state.step, stage, update.loss)?;
        }
        Ok(ControlFlow::Continue(()))
    }
}

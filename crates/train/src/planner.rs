//! Growths of `[planner]`, which happen once they pay.
//!
//! After an evaluation in a part of the run where the learning rate is constant, a [`GrowthPlanner`] is asked whether the next
//! growth pays now. What it is told is in the records, the state and the folder of the run, so a run that was killed decides as it
//! would have.

use crate::error::{Error, Result};
use crate::planned::planned_now;
use crate::ranks;
use crate::recipe::GrowEvent;
use crate::trainer::Trainer;
use tokenformer_core::growth::{Birth, config_after};
use tokenformer_report::Record;

/// A moment at which a growth may happen.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// What the run has recorded so far.
    pub records: &'a [Record],
    /// Tokens seen.
    pub tokens: u64,
    /// Floating-point operations of training on a token, now and after the growth.
    pub flops_per_token: [f64; 2],
}

/// Decides when a growth pays.
pub trait GrowthPlanner {
    /// Probability that a growth at this moment lowers the loss more, for the same cost, than to train on without it; `None` if
    /// nothing can be said so far.
    ///
    /// # Errors
    /// If it cannot be computed; the run then ends.
    fn pays(&mut self, moment: &Moment<'_>) -> Result<Option<f64>>;
}

impl<'a> Trainer<'a> {
    /// The same trainer, whose growths of `[planner]` happen when `planner` says so.
    #[must_use]
    pub fn planned_by(mut self, planner: Box<dyn GrowthPlanner + 'a>) -> Self {
        self.planner = Some(planner);
        self
    }

    /// Whether growths of `[planner]` are left, for which this rank decides.
    pub fn awaits_planner(&self) -> bool {
        self.dir.writes() && planned_now(&self.recipe, &self.state).is_some()
    }

    /// Returns an error if growths are left whose moments are not searched, or the law would not see how the run began.
    pub(crate) fn check_planner(&mut self) -> Result<()> {
        if !self.awaits_planner() {
            return Ok(());
        }
        let refused = |problem: &str, expected: &str, got: &str| {
            Err(Error::Recipe {
                place: "planner.grow".into(),
                problem: problem.into(),
                expected: expected.into(),
                got: got.into(),
                help: "give the steps of the growths in [[grow]] tables".into(),
            })
        };
        if self.planner.is_none() {
            let problem = "nobody decides when these growths pay";
            return refused(
                problem,
                "a run of the verb `train`",
                "one without a planner",
            );
        }
        let is_first = |record: &Record| matches!(record, Record::Eval(eval) if eval.step == 0);
        if self.state.step > 0 && !self.records.so_far()?.iter().any(is_first) {
            let problem = "the records of the run's beginning are not here, and the law needs them";
            return refused(
                problem,
                "a run in its own folder",
                "one that goes on from another",
            );
        }
        Ok(())
    }

    /// The next growth of `[planner]` if it pays now, which all ranks find together; it is part of the recipe from here on.
    pub(crate) fn growth_that_pays(&mut self) -> Result<Option<GrowEvent>> {
        let step = self.state.step;
        let is_moment = step > 0
            && step.is_multiple_of(self.recipe.eval.every.max(1))
            && step < self.recipe.train.steps
            && (self.recipe.schedule).is_flat(step + 1, self.recipe.train.steps);
        let Some(event) = planned_now(&self.recipe, &self.state).filter(|_| is_moment) else {
            return Ok(None);
        };
        let pays = self.pays(&event)?;
        if self.planner.is_some() {
            let what = format!("step {step}: the next growth of [planner]");
            let text = match pays {
                Some(share) => format!(
                    "{what} pays now with a probability of {:.0} %",
                    100.0 * share
                ),
                None => format!("{what} cannot be judged so far"),
            };
            self.records.note(step, text)?;
        }
        let is_due = pays.is_some_and(|share| share >= self.recipe.planner.confidence);
        if !ranks::any(&*self.collective, is_due)? {
            return Ok(None);
        }
        // As before any growth, the stage before it can be gone back to.
        self.save()?;
        self.recipe.grow.push(event.clone());
        self.recipe.grow.sort_by_key(|event| event.at_step);
        Ok(Some(event))
    }

    /// Asks the planner, on the rank that has the records.
    fn pays(&mut self, event: &GrowEvent) -> Result<Option<f64>> {
        let Some(planner) = self.planner.as_mut().filter(|_| self.dir.writes()) else {
            return Ok(None);
        };
        let birth = Birth {
            stage: self.state.stage + 1,
            step: self.state.step,
            seed: self.recipe.seed,
        };
        let context = self.model.config().context;
        let after = config_after(&self.model, &event.growth, birth)?;
        let flops_per_token = [
            self.model.config().train_flops_per_token(context),
            after.train_flops_per_token(context),
        ];
        let records = self.records.so_far()?;
        planner.pays(&Moment {
            records: &records,
            tokens: self.state.tokens,
            flops_per_token,
        })
    }
}

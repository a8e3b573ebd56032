//! Decay branches: they start at any checkpoint of a run where the learning rate is constant, and continue the run with
//! a decay of the rate.
//!
//! A branch is an ordinary recipe. It keeps the settings of the run, drops later growths, ends a given number of steps
//! after the checkpoint, and decays the learning rate over these steps. Weights, moments and the position in the data
//! continue, so a branch has the same bytes as a run that was planned with this end from the beginning.

use crate::error::{Error, Result};
use crate::files::TrainState;
use crate::planned;
use crate::recipe::{PlannerTable, Recipe};
use crate::schedule::{DecayShape, Schedule, Shape};

/// A decay branch to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Branch {
    /// Steps of the decay.
    pub steps: u64,
    /// Shape of the decay; that of the trunk's schedule if not given.
    pub shape: Option<DecayShape>,
    /// Lowest learning rate over the highest; that of the trunk's schedule if not given.
    pub min_ratio: Option<f64>,
}

impl Branch {
    /// The recipe of the branch that starts from the run of `trunk` at `state`.
    ///
    /// # Errors
    /// [`Error::Recipe`] if the learning rate is not constant there, because it warms up or decays.
    pub fn recipe(&self, trunk: &Recipe, state: &TrainState) -> Result<Recipe> {
        let refused = |place: &str, problem: &str, expected: String, got: String, help: &str| {
            Err(Error::Recipe {
                place: place.into(),
                problem: problem.into(),
                expected,
                got,
                help: help.into(),
            })
        };
        if self.steps == 0 {
            let help = "for example a tenth to a fifth of the steps before it";
            let expected = "at least 1 step".into();
            return refused("branch", "a decay of no steps", expected, "0".into(), help);
        }
        // The schedule of the last update before the branch goes on. One that a growth begins here is dropped with it.
        let course = trunk.course_of(state.step);
        if !course.is_flat_after(state.step) {
            let expected = "a checkpoint where the learning rate is flat: shape = \"wsd\" before its decay, or \"constant\"";
            let got = format!(
                "step {} of {}, {:?} from step {} on, {} steps of warm-up",
                state.step,
                course.end,
                course.schedule.shape,
                course.start,
                course.schedule.warmup_steps
            );
            let help = "branch off at an earlier checkpoint of the flat part";
            return refused(
                "branch",
                "the learning rate is not flat here",
                expected.into(),
                got,
                help,
            );
        }
        let mut branch = trunk.clone();
        // Those that added nothing stay: their schedules began all the same.
        branch.grow.retain(|event| event.at_step < state.step);
        (branch.planner.grow).truncate(planned::planned_so_far(state));
        // What has no effect on the branch is not in its recipe.
        if branch.planner.grow.is_empty() {
            branch.planner = PlannerTable::default();
        }
        let own = (branch.grow.iter_mut().rev()).find_map(|event| event.schedule.as_mut());
        let schedule = own.unwrap_or(&mut branch.schedule);
        schedule.shape = Shape::Wsd;
        schedule.decay_steps = self.steps;
        schedule.decay_share = Schedule::default().decay_share;
        schedule.decay = self.shape.unwrap_or(schedule.decay);
        schedule.min_ratio = self.min_ratio.unwrap_or(schedule.min_ratio);
        branch.train.steps = state.step.saturating_add(self.steps);
        branch.validate()?;
        Ok(branch)
    }
}

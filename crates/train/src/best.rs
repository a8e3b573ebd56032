//! The best checkpoints of a run: one for the weights and one for their average, which is at its best at another step.

use crate::error::Result;
use crate::evaluate::Evaluation;
use crate::files::{Best, TrainState};
use crate::run_dir::RunDir;

/// What was measured on the held-out data at a step.
pub(crate) struct Measured {
    /// With the weights.
    pub trained: Evaluation,
    /// With their average, if the run keeps one.
    pub average: Option<Evaluation>,
}

/// For which of the two a step is the best so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Better {
    trained: bool,
    average: bool,
}

impl Better {
    /// Compares what was measured at the step of `state` with the best so far, and notes there what is better.
    pub fn of(measured: &Measured, state: &mut TrainState) -> Self {
        let step = state.step;
        let improves = |best: &mut Option<Best>, found: &Evaluation| {
            let loss = found.loss;
            let is_better = loss.is_finite() && best.is_none_or(|best| loss < best.loss);
            if is_better {
                *best = Some(Best { step, loss });
            }
            is_better
        };
        Self {
            trained: improves(&mut state.best, &measured.trained),
            average: (measured.average.as_ref())
                .is_some_and(|found| improves(&mut state.best_ema, found)),
        }
    }

    /// Whether the checkpoint of the step has to be saved.
    pub fn any(self) -> bool {
        self.trained || self.average
    }

    /// Marks the checkpoint of `step`.
    pub fn mark(self, dir: &mut RunDir, step: u64) -> Result<()> {
        if self.trained {
            dir.set_best(step)?;
        }
        if self.average {
            dir.set_best_average(step)?;
        }
        Ok(())
    }
}

//! Detects runs whose numbers are no longer finite: when they end, and from which checkpoint they can continue.

use crate::error::{Error, Result};
use crate::finite;
use crate::records::Update;
use crate::trainer::Trainer;

impl Trainer<'_> {
    /// Called after an update that was not skipped: the weights before it gave a finite loss, so older checkpoints need
    /// not be kept for safety.
    pub(crate) fn check_saved(&mut self) -> Result<()> {
        self.sound_step = self.state.step - 1;
        match self.dir.has(self.sound_step) {
            true => self.retain(),
            false => Ok(()),
        }
    }

    /// Ends a run that cannot recover, or that has been skipping updates for too long.
    pub(crate) fn check_skipped(&self, update: Update) -> Result<()> {
        let in_row = self.state.skipped_in_row;
        // Skipped updates leave the weights as they are, so the first one already shows it.
        if in_row == 1 {
            self.check_weights()?;
        }
        if in_row < self.recipe.train.max_skipped {
            return Ok(());
        }
        let problem = format!("{in_row} updates in a row were skipped (train.max_skipped)");
        let got = format!("loss {}, gradient norm {}", update.loss, update.grad_norm);
        Err(self.diverged(problem, got))
    }

    /// Ends a run with a weight that is not finite: no later loss can be.
    pub(crate) fn check_weights(&self) -> Result<()> {
        match finite::not_finite(&self.model)? {
            None => Ok(()),
            Some((name, number)) => {
                let got = format!("{number} in {name}");
                Err(self.diverged("its weights are not finite".into(), got))
            }
        }
    }

    /// The error of a run that ends here, with the checkpoint from which it can continue.
    pub(crate) fn diverged(&self, problem: String, got: String) -> Error {
        let sound = self.dir.newest_up_to(self.sound_step).ok().flatten();
        let newest = self.dir.newest().ok().flatten();
        let go_on = match sound {
            Some((step, path)) if Some(step) == newest => format!(
                "the last checkpoint with a finite loss is {}: the same command with a changed recipe goes on from it",
                path.display()
            ),
            Some((_, path)) => format!(
                "the last checkpoint with a finite loss is {0}: go on from it with --resume {0} and another --out",
                path.display()
            ),
            None => "there is no checkpoint with a finite loss: begin anew".into(),
        };
        Error::Diverged {
            path: self.dir.path().into(),
            step: self.state.step,
            problem,
            got,
            help: format!(
                "try a lower schedule.lr, more schedule.warmup_steps or a lower optimizer.clip; {go_on}"
            ),
        }
    }
}

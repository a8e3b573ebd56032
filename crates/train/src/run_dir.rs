//! The directory of a run: its checkpoints, which of them a run starts from, and which are kept.

mod differences;
mod start;

pub(crate) use start::{Start, start};

use crate::error::Result;
use crate::files::{self, KIND_CHECKPOINT, Snapshot};
use std::path::{Path, PathBuf};
use tokenformer_store::{CheckpointWriter, Warning};

/// The recipe in a run directory.
pub(crate) const CONFIG_TOML: &str = "config.toml";

/// Where a run starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// From the newest good checkpoint of the run directory, if there is one.
    #[default]
    Auto,
    /// From scratch; the run directory must not hold a run.
    Never,
    /// From the checkpoint (or run) at this path, into a run directory without one.
    From(PathBuf),
}

/// A run directory, locked for this process.
pub(crate) struct RunDir {
    path: PathBuf,
    checkpoints: CheckpointWriter,
    /// Step of the checkpoint that holds the state as it was after that step.
    saved: Option<u64>,
}

impl RunDir {
    /// Makes the directory if needed, and locks it.
    pub fn open(path: &Path, warn: &mut dyn FnMut(Warning)) -> Result<Self> {
        Ok(Self {
            path: path.into(),
            checkpoints: CheckpointWriter::open(path, warn)?,
            saved: None,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the checkpoint of `step` is or would be.
    pub fn of_step(&self, step: u64) -> PathBuf {
        self.checkpoints.dir_for(step)
    }

    /// Whether the checkpoint of `step` is there and whole.
    pub fn has(&self, step: u64) -> bool {
        self.saved == Some(step)
    }

    /// Saves a checkpoint of this step, unless there is one. All records must be on the disk before.
    pub fn save(&mut self, now: &Snapshot<'_>) -> Result<()> {
        if !self.has(now.state.step) {
            self.write(now)?;
        }
        Ok(())
    }

    fn write(&mut self, now: &Snapshot<'_>) -> Result<()> {
        let step = now.state.step;
        self.checkpoints
            .save(step, KIND_CHECKPOINT, |to| files::write_checkpoint(to, now))?;
        self.saved = Some(step);
        Ok(())
    }

    /// Calls the checkpoint of a step the best.
    pub fn set_best(&mut self, step: u64) -> Result<()> {
        Ok(self.checkpoints.set_best(step)?)
    }

    /// Deletes checkpoints, but never the best, the `keep` newest, and the newest up to `sound_step`: a later one may
    /// turn out to have diverged.
    pub fn retain(&mut self, keep: usize, sound_step: u64) -> Result<()> {
        let sound = self.newest_up_to(sound_step)?.map(|(step, _)| step);
        self.checkpoints.retain(keep, sound.as_slice())?;
        Ok(())
    }

    /// The newest checkpoint of `step` or before.
    pub fn newest_up_to(&self, step: u64) -> Result<Option<(u64, PathBuf)>> {
        let listed = self.checkpoints.list()?;
        Ok(listed.into_iter().rfind(|(s, _)| *s <= step))
    }

    /// The step of the newest checkpoint.
    pub fn newest(&self) -> Result<Option<u64>> {
        Ok(self.checkpoints.list()?.last().map(|(step, _)| *step))
    }

    /// Brings the checkpoints to what they are right after the one that the run goes on from: a kill may have come
    /// between it and the pointers, and a run that branches off starts with its own.
    fn settle(&mut self, now: &Snapshot<'_>, keep: usize) -> Result<()> {
        let state = now.state;
        if self.checkpoints.latest().ok().flatten() != Some(state.step) {
            self.write(now)?;
        }
        if let Some(best) = state.best
            && self.checkpoints.dir_for(best.step).exists()
        {
            self.set_best(best.step)?;
        }
        self.retain(keep, state.sound_step())?;
        // What is still to be evaluated is saved once more when it has been.
        self.saved = (!state.unevaluated).then_some(state.step);
        Ok(())
    }
}

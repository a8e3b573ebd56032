//! The directory of a run: its checkpoints, which of them a run starts from, and which are kept.

mod differences;
mod start;

pub(crate) use start::{Start, ensure_memory, start};

use crate::error::Result;
use crate::files::{self, Best, KIND_CHECKPOINT, Snapshot};
use crate::ranks;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use tokenformer_store::{CheckpointWriter, Checkpoints, Warning};

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
    /// As [`Resume::From`], but on other training data with the same tokenizer or classes, read from their beginning.
    OnOtherData(PathBuf),
}

/// A run directory, locked for this process.
pub(crate) struct RunDir {
    path: PathBuf,
    checkpoints: Access,
    /// Step of the checkpoint that holds the state as it was after that step.
    saved: Option<u64>,
}

/// How this process uses the checkpoints: rank 0 writes them, the others read.
enum Access {
    Writer(CheckpointWriter),
    Reader(Checkpoints),
}

impl Deref for Access {
    type Target = Checkpoints;

    fn deref(&self) -> &Checkpoints {
        match self {
            Self::Writer(writer) => writer,
            Self::Reader(reader) => reader,
        }
    }
}

impl RunDir {
    /// Makes the directory if needed, and locks it.
    pub fn open(path: &Path, warn: &mut dyn FnMut(Warning)) -> Result<Self> {
        Ok(Self {
            path: path.into(),
            checkpoints: Access::Writer(CheckpointWriter::open(path, warn)?),
            saved: None,
        })
    }

    /// A directory that another process has opened and writes.
    pub fn of_another(path: &Path) -> Self {
        Self {
            path: path.into(),
            checkpoints: Access::Reader(Checkpoints::open(path)),
            saved: None,
        }
    }

    /// Whether this process writes.
    pub fn writes(&self) -> bool {
        matches!(self.checkpoints, Access::Writer(_))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is a checkpoint of the run.
    fn owns(&self, checkpoint: &Path) -> bool {
        let folder = |path: &Path| path.parent().map(|folder| folder.canonicalize().ok());
        folder(checkpoint) == folder(&self.checkpoints.dir_for(0))
    }

    /// The path of the checkpoint of `step`, which need not exist.
    pub fn of_step(&self, step: u64) -> PathBuf {
        self.checkpoints.dir_for(step)
    }

    /// Whether the checkpoint of `step` exists and is complete.
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
        match &mut self.checkpoints {
            Access::Writer(writer) => {
                writer.save(step, KIND_CHECKPOINT, |to| files::write_checkpoint(to, now))?;
            }
            Access::Reader(_) => files::send_checkpoint(now)?,
        }
        self.saved = Some(step);
        Ok(())
    }

    /// Marks the checkpoint of a step as the best.
    pub fn set_best(&mut self, step: u64) -> Result<()> {
        match &mut self.checkpoints {
            Access::Writer(writer) => Ok(writer.set_best(step)?),
            Access::Reader(_) => Ok(()),
        }
    }

    /// Marks the checkpoint of a step as that with the best average.
    pub fn set_best_average(&mut self, step: u64) -> Result<()> {
        match &mut self.checkpoints {
            Access::Writer(writer) => Ok(writer.set_best_average(step)?),
            Access::Reader(_) => Ok(()),
        }
    }

    /// Deletes checkpoints, but never the best, that with the best average, the `keep` newest, and the newest up to
    /// `sound_step`: a later one may turn out to have diverged.
    pub fn retain(&mut self, keep: usize, sound_step: u64) -> Result<()> {
        if self.writes() {
            let sound = self.newest_up_to(sound_step)?.map(|(step, _)| step);
            if let Access::Writer(writer) = &mut self.checkpoints {
                writer.retain(keep, sound.as_slice())?;
            }
        }
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

    /// Restores the checkpoints to their state right after the one from which the run continues: a kill may have come
    /// before the pointers were written, a branch starts with its own checkpoint, and an average of the weights may begin here.
    fn settle(&mut self, now: &Snapshot<'_>, keep: usize) -> Result<()> {
        let state = now.state;
        let is_here = || self.checkpoints.latest().ok().flatten() == Some(state.step);
        let lacks_average =
            || now.ema.is_some() && !self.of_step(state.step).join(files::EMA).exists();
        let is_missing = self.writes() && (!is_here() || lacks_average());
        if ranks::any(now.ranks, is_missing)? {
            self.write(now)?;
        }
        let is_here = |best: &Best| self.checkpoints.dir_for(best.step).exists();
        let [best, best_ema] = [state.best, state.best_ema].map(|best| best.filter(is_here));
        if let Some(best) = best {
            self.set_best(best.step)?;
        }
        if let Some(best) = best_ema {
            self.set_best_average(best.step)?;
        }
        self.retain(keep, state.sound_step())?;
        // A checkpoint that still has to be evaluated is saved again after the evaluation.
        self.saved = (!state.unevaluated).then_some(state.step);
        Ok(())
    }
}

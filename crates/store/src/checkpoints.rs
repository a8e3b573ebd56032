//! The checkpoints of a run directory (`checkpoints/step-00000500/` and so on), with the pointer files `latest`,
//! `best` and `best-ema` next to them.
//!
//! [`Checkpoints`] only reads, so it is safe to use while a training is running. [`CheckpointWriter`] holds the run's
//! lock.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::atomic_file::{read_small, write_atomic};
use crate::durable::{ASIDE, TEMPORARY, create_dir_all, discard, exists, remove, sibling};
use crate::manifest::{Manifest, Verified, entry_names, verify};
use crate::publish::{DirWriter, Replace, recover};
use crate::{Error, Result, RunLock, Warning};

/// The folder of checkpoints in a run directory.
pub(crate) const FOLDER: &str = "checkpoints";
const LATEST: &str = "latest";
const BEST: &str = "best";
const BEST_AVERAGE: &str = "best-ema";

/// The checkpoints of a run, for reading.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    run_dir: PathBuf,
}

impl Checkpoints {
    /// Opens a run directory for reading. It need not exist, and nothing in it is changed.
    pub fn open(run_dir: &Path) -> Checkpoints {
        Checkpoints {
            run_dir: run_dir.to_path_buf(),
        }
    }

    /// The run directory.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// The path of the checkpoint of a step, which need not exist.
    ///
    /// ```
    /// # use tokenformer_store::Checkpoints;
    /// let dir = Checkpoints::open("runs/a".as_ref()).dir_for(500);
    /// assert_eq!(dir, std::path::Path::new("runs/a/checkpoints/step-00000500"));
    /// ```
    pub fn dir_for(&self, step: u64) -> PathBuf {
        self.folder().join(step_name(step))
    }

    /// All checkpoints, including broken ones, sorted by step.
    ///
    /// # Errors
    /// [`Error::Io`]. A missing folder is an empty list.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        Ok(self
            .steps_with_prefix("")?
            .into_iter()
            .map(|step| (step, self.dir_for(step)))
            .collect())
    }

    /// The newest checkpoint whose files all match their hashes; broken ones are reported and skipped.
    ///
    /// `None` when there are no checkpoints. If a process died while it was replacing a checkpoint, the old version is
    /// taken from its temporary name.
    ///
    /// # Errors
    /// [`Error::NoGoodCheckpoint`] when there are some and all are broken; [`Error::Io`].
    pub fn latest_good(&self, warn: &mut dyn FnMut(Warning)) -> Result<Option<(u64, Verified)>> {
        let mut steps = self.steps_with_prefix("")?;
        steps.extend(self.steps_with_prefix(ASIDE)?);
        let mut newest_reason = None;
        for &step in steps.iter().rev() {
            let path = self.dir_for(step);
            match verify_or_aside(&path, warn) {
                Ok(verified) => return Ok(Some((step, verified))),
                Err(reason) => {
                    newest_reason.get_or_insert_with(|| {
                        reason.to_string().lines().take(1).collect::<String>()
                    });
                    warn(Warning::Skipped { path, reason });
                }
            }
        }
        match newest_reason {
            None => Ok(None),
            Some(newest) => Err(Error::NoGoodCheckpoint {
                dir: self.folder(),
                count: steps.len(),
                newest,
            }),
        }
    }

    /// The step that was saved last, according to the pointer `latest`.
    ///
    /// If the process was killed between writing a checkpoint and its pointer, the pointer is one checkpoint behind. To
    /// resume a run, use [`latest_good`](Self::latest_good).
    ///
    /// # Errors
    /// [`Error::Pointer`], [`Error::Io`].
    pub fn latest(&self) -> Result<Option<u64>> {
        self.pointer(LATEST)
    }

    /// The best step so far, according to the pointer `best`.
    ///
    /// # Errors
    /// [`Error::Pointer`], [`Error::Io`].
    pub fn best(&self) -> Result<Option<u64>> {
        self.pointer(BEST)
    }

    /// The step whose average of the weights is the best so far, according to the pointer `best-ema`.
    ///
    /// # Errors
    /// [`Error::Pointer`], [`Error::Io`].
    pub fn best_average(&self) -> Result<Option<u64>> {
        self.pointer(BEST_AVERAGE)
    }

    fn folder(&self) -> PathBuf {
        self.run_dir.join(FOLDER)
    }

    fn steps_with_prefix(&self, prefix: &str) -> Result<BTreeSet<u64>> {
        let folder = self.folder();
        if !exists(&folder)? {
            return Ok(BTreeSet::new());
        }
        let names = entry_names(&folder)?;
        let steps = names
            .iter()
            .filter(|name| folder.join(name).is_dir())
            .filter_map(|name| name.strip_prefix(prefix).and_then(parse_step));
        Ok(steps.collect())
    }

    fn pointer(&self, name: &str) -> Result<Option<u64>> {
        const MAX_POINTER_BYTES: u64 = 256;
        let path = self.run_dir.join(name);
        let bytes = match read_small(&path, MAX_POINTER_BYTES) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            result => result?,
        };
        let got = String::from_utf8_lossy(&bytes);
        match parse_step(got.trim_end()) {
            Some(step) => Ok(Some(step)),
            None => Err(Error::Pointer {
                path,
                got: got.into_owned(),
            }),
        }
    }
}

/// The checkpoints of a run, for the one process that writes them.
#[derive(Debug)]
pub struct CheckpointWriter {
    checkpoints: Checkpoints,
    /// Steps that this process wrote or verified.
    good: BTreeSet<u64>,
    _lock: RunLock,
}

impl Deref for CheckpointWriter {
    type Target = Checkpoints;

    fn deref(&self) -> &Checkpoints {
        &self.checkpoints
    }
}

impl CheckpointWriter {
    /// Creates the run directory if needed, takes its lock, and cleans up what a killed process wrote, replaced or
    /// deleted only in part.
    ///
    /// # Errors
    /// [`Error::RunLocked`] when another process has the lock; [`Error::Io`].
    pub fn open(run_dir: &Path, warn: &mut dyn FnMut(Warning)) -> Result<CheckpointWriter> {
        let lock = RunLock::acquire(run_dir, warn)?;
        let checkpoints = Checkpoints::open(run_dir);
        let folder = checkpoints.folder();
        create_dir_all(&folder)?;
        for name in entry_names(&folder)? {
            if name.starts_with(TEMPORARY) {
                remove(&folder.join(name))?;
            }
        }
        for step in checkpoints.steps_with_prefix(ASIDE)? {
            let path = checkpoints.dir_for(step);
            let used = verify_or_aside(&path, warn);
            if used.is_ok() {
                recover(&path, Replace::Anything)?;
            }
        }
        Ok(CheckpointWriter {
            checkpoints,
            good: BTreeSet::new(),
            _lock: lock,
        })
    }

    /// Writes the checkpoint of a step: `fill` writes its files, then the folder gets its name in one step, and
    /// `latest` points to it.
    ///
    /// A checkpoint of the same step is replaced. If `fill` or anything else fails, nothing changes.
    ///
    /// # Errors
    /// The errors of [`DirWriter`], and what `fill` returns.
    pub fn save<E: From<Error>>(
        &mut self,
        step: u64,
        kind: &str,
        fill: impl FnOnce(&mut DirWriter) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let dir = self.dir_for(step);
        let mut writer = DirWriter::begin_in_place_of(&dir, kind, Replace::Anything)?;
        fill(&mut writer)?;
        writer.commit()?;
        self.good.insert(step);
        self.point(LATEST, step)?;
        Ok(dir)
    }

    /// Points `best` to the checkpoint of a step.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::ManifestMissing`] when there is no such checkpoint.
    pub fn set_best(&mut self, step: u64) -> Result<()> {
        self.point(BEST, step)
    }

    /// Points `best-ema` to the checkpoint of a step.
    ///
    /// # Errors
    /// As [`set_best`](Self::set_best).
    pub fn set_best_average(&mut self, step: u64) -> Result<()> {
        self.point(BEST_AVERAGE, step)
    }

    /// Deletes checkpoints and returns their steps. The newest good one, the best, that with the best average, the
    /// `keep_last` newest and the `protected` ones are kept.
    ///
    /// If the process is killed in between, each checkpoint is either complete or gone.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Pointer`].
    pub fn retain(&mut self, keep_last: usize, protected: &[u64]) -> Result<Vec<u64>> {
        let listed = self.list()?;
        let mut kept: BTreeSet<u64> = protected.iter().copied().collect();
        kept.extend(self.best()?.into_iter().chain(self.best_average()?));
        kept.extend(listed.iter().rev().take(keep_last).map(|&(step, _)| step));
        if listed.iter().all(|(step, _)| kept.contains(step)) {
            return Ok(Vec::new());
        }
        let newest_good = listed
            .iter()
            .rev()
            .find(|(step, dir)| self.good.contains(step) || verify(dir).is_ok())
            .map(|&(step, _)| step);
        let Some(newest_good) = newest_good else {
            // Nothing here can be loaded; the damaged files may still help the user.
            return Ok(Vec::new());
        };
        self.good.insert(newest_good);
        kept.insert(newest_good);

        let mut deleted = Vec::new();
        for (step, dir) in listed {
            if !kept.contains(&step) {
                discard(&dir)?;
                self.good.remove(&step);
                deleted.push(step);
            }
        }
        Ok(deleted)
    }

    fn point(&self, name: &str, step: u64) -> Result<()> {
        Manifest::read(&self.dir_for(step))?;
        write_atomic(
            &self.run_dir.join(name),
            format!("{}\n", step_name(step)).as_bytes(),
        )
    }
}

/// Verifies a directory, or else its old version if the process died before the replacement was complete.
pub(crate) fn verify_or_aside(dir: &Path, warn: &mut dyn FnMut(Warning)) -> Result<Verified> {
    verify(dir).or_else(
        |error| match sibling(dir, ASIDE).and_then(|aside| verify(&aside)) {
            Ok(verified) => {
                warn(Warning::Recovered {
                    path: dir.to_path_buf(),
                });
                Ok(verified)
            }
            // Of the two errors, this is about the name that the user knows.
            Err(_) => Err(error),
        },
    )
}

fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step in a checkpoint's name, if the name is exactly what [`step_name`] writes.
pub(crate) fn parse_step(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

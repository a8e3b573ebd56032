//! Finds the directory to load for a path that the user typed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoints::{Checkpoints, FOLDER, parse_step, verify_or_aside};
use crate::durable::{ASIDE, exists, sibling};
use crate::manifest::{MANIFEST_NAME, Manifest, Verified, verify};
use crate::{Error, Result, Warning};

const WEIGHTS: &str = "model.safetensors";

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest that is complete.
    Latest,
    /// The best so far; if none is marked as best, the newest that is complete.
    Best,
    /// The one with the best average of the weights so far; if none is marked as that, as [`Which::Best`].
    BestAverage,
}

/// A directory to load.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The directory.
    pub dir: PathBuf,
    /// The step, if it is a run's checkpoint.
    pub step: Option<u64>,
    /// Its manifest, against which every file was just verified; `None` for a plain directory with `model.safetensors`,
    /// which has no manifest.
    pub manifest: Option<Manifest>,
}

/// Finds the directory that `path` refers to. A run directory leads to one of its checkpoints. A checkpoint or a
/// published directory is verified and returned; so is a plain directory with `model.safetensors`, without
/// verification.
///
/// Nothing is written, so a run that is still training can be read.
///
/// # Errors
/// [`Error::NoModel`] with help when there is nothing to load; [`Error::Damaged`], [`Error::ManifestMissing`],
/// [`Error::NoGoodCheckpoint`] and others when the directory is damaged.
pub fn resolve(path: &Path, which: Which, warn: &mut dyn FnMut(Warning)) -> Result<Resolved> {
    let no_model = |got: &str, help: &str| {
        Err(Error::NoModel {
            path: path.to_path_buf(),
            got: got.to_string(),
            help: help.to_string(),
        })
    };
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let step = parse_step(&name);

    if !exists(path)? {
        return match verify_or_aside(path, warn) {
            Ok(verified) => Ok(published(verified, step)),
            Err(_) => no_model("no such file or folder", "check the path"),
        };
    }
    if !fs::metadata(path)
        .map_err(Error::io("look at it", path))?
        .is_dir()
    {
        return no_model("a file", "give the folder that holds it");
    }
    if name.starts_with(crate::durable::TEMPORARY) {
        return no_model(
            "a folder that was not written to its end",
            "use a checkpoint beside it",
        );
    }
    let was_published = exists(&path.join(MANIFEST_NAME))? || step.is_some() || has_aside(path)?;
    if was_published {
        return Ok(published(verify_or_aside(path, warn)?, step));
    }
    if exists(&path.join(FOLDER))? {
        return of_run(path, which, warn);
    }
    if path.join(WEIGHTS).is_file() {
        return Ok(Resolved {
            dir: path.to_path_buf(),
            step: None,
            manifest: None,
        });
    }
    no_model(
        "a folder with none of these",
        "check the path, or train a model there first",
    )
}

fn of_run(run_dir: &Path, which: Which, warn: &mut dyn FnMut(Warning)) -> Result<Resolved> {
    let checkpoints = Checkpoints::open(run_dir);
    let marked = match which {
        Which::Latest => None,
        Which::Best => checkpoints.best()?,
        // Runs of earlier versions have marked no average.
        Which::BestAverage => match checkpoints.best_average()? {
            None => checkpoints.best()?,
            step => step,
        },
    };
    if let Some(step) = marked {
        return Ok(published(
            verify_or_aside(&checkpoints.dir_for(step), warn)?,
            Some(step),
        ));
    }
    match checkpoints.latest_good(warn)? {
        Some((step, verified)) => Ok(published(verified, Some(step))),
        None => Err(Error::NoModel {
            path: run_dir.to_path_buf(),
            got: "a run folder without a checkpoint".to_string(),
            help: "wait for the first checkpoint, or train longer".to_string(),
        }),
    }
}

fn published(verified: Verified, step: Option<u64>) -> Resolved {
    Resolved {
        dir: verified.dir,
        step,
        manifest: Some(verified.manifest),
    }
}

/// Whether a complete old version of `dir` lies next to it under its temporary name.
fn has_aside(dir: &Path) -> Result<bool> {
    match dir.file_name() {
        Some(_) => Ok(verify(&sibling(dir, ASIDE)?).is_ok()),
        None => Ok(false),
    }
}

//! Which file of a folder belongs to a task.
//!
//! A file's name begins with one of the task's names and ends with `.jsonl` or `.jsonl.gz`; upper and
//! lower case, `-` and `_` are the same. Or the task's folder has a file of the split. Other splits are
//! never taken.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::task::Task;

impl Task {
    /// How names of its files and folders begin.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::LambadaOpenai => &["lambada_openai", "lambada_test", "lambada"],
            Self::Hellaswag => &["hellaswag"],
            Self::Piqa => &["piqa"],
            Self::ArcEasy => &["arc_easy"],
            Self::ArcChallenge => &["arc_challenge"],
            Self::Winogrande => &["winogrande_xl", "winogrande"],
        }
    }

    /// Words for the split that is evaluated, and for the others.
    fn splits(self) -> (&'static [&'static str], &'static [&'static str]) {
        const VALIDATION: &[&str] = &["validation", "valid", "val", "dev"];
        match self {
            Self::LambadaOpenai | Self::ArcEasy | Self::ArcChallenge => {
                (&["test"], &["train", "validation", "valid", "val", "dev"])
            }
            _ => (VALIDATION, &["train", "test"]),
        }
    }
}

/// The files of `tasks` in `dir`.
///
/// # Errors
/// If the folder cannot be read, or a task has no file there or several.
pub fn locate_all(dir: &Path, tasks: &[Task]) -> Result<Vec<(Task, PathBuf)>> {
    let found = tasks.iter().map(|&task| Ok((task, locate(dir, task)?)));
    found.collect()
}

/// The file of a task in `dir`.
///
/// # Errors
/// If the folder cannot be read, or has no such file or several.
pub fn locate(dir: &Path, task: Task) -> Result<PathBuf> {
    let entries = sorted(dir)?;
    let mut found: Vec<PathBuf> = Vec::new();
    for path in &entries {
        let name = plain_name(path);
        let Some(rest) = (task.names().iter()).find_map(|n| name.strip_prefix(n)) else {
            continue;
        };
        if path.is_dir() && rest.is_empty() {
            let inside = sorted(path)?.into_iter();
            found.extend(inside.filter(|file| split_of(task, &plain_name(file)) == Some(true)));
        } else if split_of(task, rest).is_some() && path.is_file() {
            found.push(path.clone());
        }
    }
    // A name that says the split is better than one that says none.
    let says_split = |path: &PathBuf| split_of(task, &plain_name(path)) == Some(true);
    if found.iter().any(says_split) {
        found.retain(says_split);
    }
    let shown = |paths: &[PathBuf]| {
        let names: Vec<String> = (paths.iter().take(12))
            .filter_map(|path| path.strip_prefix(dir).ok())
            .map(|path| path.display().to_string())
            .collect();
        match names.is_empty() {
            true => "an empty folder".into(),
            false => names.join(", "),
        }
    };
    match found.as_slice() {
        [] => Err(Error::NoTaskFile {
            dir: dir.to_owned(),
            task: task.name(),
            searched: searched(task),
            got: shown(&entries),
        }),
        [one] => Ok(one.clone()),
        several => Err(Error::SeveralTaskFiles {
            dir: dir.to_owned(),
            task: task.name(),
            got: shown(several),
        }),
    }
}

/// What the name of a JSON Lines file says about its split: the right one, none, or (as `None`) a wrong
/// one; also `None` for other files.
fn split_of(task: Task, name: &str) -> Option<bool> {
    let stem = name
        .strip_suffix(".gz")
        .unwrap_or(name)
        .strip_suffix(".jsonl")?;
    let (right, wrong) = task.splits();
    let has = |words: &[&str]| stem.split(['_', '.']).any(|word| words.contains(&word));
    (!has(wrong)).then(|| has(right))
}

/// A file name in lower case, with `_` for `-`.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.to_lowercase().replace('-', "_")
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(Error::io("read", dir))?;
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|e| Ok(e?.path())).collect();
    let mut paths = paths.map_err(Error::io("read", dir))?;
    paths.sort();
    Ok(paths)
}

fn searched(task: Task) -> String {
    let (splits, _) = task.splits();
    let (name, split) = (task.name(), splits.first().copied().unwrap_or_default());
    let files = task
        .names()
        .iter()
        .map(|name| format!("{name}*.jsonl[.gz]"));
    let files: Vec<String> = files.collect();
    format!("{}, {name}/{split}*.jsonl[.gz]", files.join(", "))
}

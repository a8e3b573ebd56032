//! Finds the file of a folder that belongs to a task.
//!
//! A file's name is one of the task's names, then words that are known to change nothing: the split that is reported,
//! a configuration, a whole set's only part; then `.jsonl` or `.jsonl.gz`. Upper and lower case, `-` and `_` are the
//! same. Or the task's folder has a file of the split. A word that is not known, as of a translation, can mean another
//! data set: such a file is never taken, and neither is another split.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::task::Task;

/// The suffix of a data set that consists of one file: `00000_of_00001`.
const ONLY_PART: &str = "_00000_of_00001";

impl Task {
    /// Names of its files and folders.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::LambadaOpenai => &["lambada_openai", "lambada"],
            Self::Hellaswag => &["hellaswag"],
            Self::Piqa => &["piqa", "physicaliqa_train_dev"],
            Self::ArcEasy => &["arc_easy"],
            Self::ArcChallenge => &["arc_challenge"],
            Self::Winogrande => &["winogrande_xl", "winogrande_1.1", "winogrande"],
        }
    }

    /// Words in names that do not change the data set.
    fn marks(self) -> &'static [&'static str] {
        match self {
            // The text in English, and the copy that `data fetch` gets.
            Self::LambadaOpenai => &["en", "pypi"],
            Self::Winogrande => &["xl"],
            _ => &[],
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

    /// The meaning of the words of a name.
    fn name_of(self, words: &str) -> Name {
        let words = words.strip_suffix(ONLY_PART).unwrap_or(words);
        let words = || words.split(['_', '.']).filter(|word| !word.is_empty());
        let (right, wrong) = self.splits();
        let is_known = |word: &str| right.contains(&word) || self.marks().contains(&word);
        if words().any(|word| wrong.contains(&word)) {
            Name::OtherSplit
        } else if words().all(is_known) {
            let says_split = words().any(|word| right.contains(&word));
            Name::Known { says_split }
        } else {
            Name::Unknown
        }
    }
}

/// The meaning of a file name for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// A name that is known, with a word for the split or without one.
    Known { says_split: bool },
    /// Another split of the task.
    OtherSplit,
    /// Words that are not known.
    Unknown,
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
    let no_file = |got: String| Error::NoTaskFile {
        dir: dir.to_owned(),
        task: task.name(),
        searched: searched(task),
        got,
    };
    let entries = match sorted(dir) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(no_file("no such folder".into()));
        }
        entries => entries?,
    };
    let mut found: Vec<(bool, PathBuf)> = Vec::new();
    for path in &entries {
        let name = plain_name(path);
        if path.is_dir() && task.names().contains(&name.as_str()) {
            for file in sorted(path)? {
                let stem = stem(&plain_name(&file)).map(str::to_owned);
                // In the task's folder the split alone is a name.
                let words = stem.as_deref().map(|s| behind_name(task, s).unwrap_or(s));
                if words.map(|words| task.name_of(words)) == Some(Name::Known { says_split: true })
                {
                    found.push((true, file));
                }
            }
        } else if let Some(words) = stem(&name).and_then(|stem| behind_name(task, stem))
            && let Name::Known { says_split } = task.name_of(words)
            && path.is_file()
        {
            found.push((says_split, path.clone()));
        }
    }
    // A name that says the split is better than one that says none.
    if found.iter().any(|(says_split, _)| *says_split) {
        found.retain(|(says_split, _)| *says_split);
    }
    let found: Vec<PathBuf> = found.into_iter().map(|(_, path)| path).collect();
    match found.as_slice() {
        [] => Err(no_file(shown(dir, &entries))),
        [one] => Ok(one.clone()),
        several => Err(Error::SeveralTaskFiles {
            dir: dir.to_owned(),
            task: task.name(),
            got: shown(dir, several),
        }),
    }
}

/// The name of a JSON Lines file without its extension.
fn stem(name: &str) -> Option<&str> {
    name.strip_suffix(".gz")
        .unwrap_or(name)
        .strip_suffix(".jsonl")
}

/// What follows one of the task's names, at the end of a word.
fn behind_name(task: Task, stem: &str) -> Option<&str> {
    let rest = |name: &&str| stem.strip_prefix(*name);
    let is_end = |rest: &&str| rest.is_empty() || rest.starts_with(['_', '.']);
    task.names().iter().filter_map(rest).find(is_end)
}

/// A file name in lower case, with `_` for `-`.
pub(crate) fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.to_lowercase().replace('-', "_")
}

fn shown(dir: &Path, paths: &[PathBuf]) -> String {
    let names: Vec<String> = (paths.iter().take(12))
        .filter_map(|path| path.strip_prefix(dir).ok())
        .map(|path| path.display().to_string())
        .collect();
    match names.is_empty() {
        true => "an empty folder".into(),
        false => names.join(", "),
    }
}

pub(crate) fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(Error::io("read", dir))?;
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|e| Ok(e?.path())).collect();
    let mut paths = paths.map_err(Error::io("read", dir))?;
    paths.sort();
    Ok(paths)
}

fn searched(task: Task) -> String {
    let (splits, _) = task.splits();
    let split = splits.first().copied().unwrap_or_default();
    let name = task.name();
    format!("{name}_{split}.jsonl, {name}.jsonl, {name}/{split}.jsonl, each also .gz")
}

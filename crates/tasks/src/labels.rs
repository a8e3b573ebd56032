//! Answers in a separate file, as in PIQA: `valid.jsonl` next to `valid-labels.lst`, a number per line.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::locate::{plain_name, sorted};
use crate::rows::{MAX_FILE_BYTES, Row, lines};
use crate::task::Task;

/// Adds the answers from the file next to `path` to rows without answers. `is_whole` says that `rows` are all rows.
///
/// # Errors
/// If there is no such file, it cannot be read, or it has another number of lines.
pub(crate) fn add(task: Task, path: &Path, rows: &mut [Row], is_whole: bool) -> Result<()> {
    let Some(key) = key(task) else {
        return Ok(());
    };
    // Normalised rows have their answer under another key.
    if rows.iter().all(|row| row.has(key) || row.has("gold")) {
        return Ok(());
    }
    let malformed = |location: &Path, problem: String, expected: String, got: String| {
        Err(Error::Malformed {
            location: location.display().to_string(),
            problem: problem.into(),
            expected: expected.into(),
            got: got.into(),
            help: "put the answers that were published with the rows beside them".into(),
        })
    };
    let Some(labels) = beside(path)? else {
        let expected = format!(
            "the key {key:?} in every row, or the file {}",
            name(path).display()
        );
        let problem = format!("rows without the key {key:?}");
        return malformed(path, problem, expected, "neither".into());
    };
    let mut answers = Vec::new();
    let shown = labels.display().to_string();
    let file = File::open(&labels).map_err(Error::io("open", &labels))?;
    lines(file, &shown, MAX_FILE_BYTES, &mut |_, line| {
        answers.push(line.trim().to_owned());
        Ok(answers.len() <= rows.len())
    })?;
    if answers.len() < rows.len() || (is_whole && answers.len() > rows.len()) {
        let got = match answers.len() > rows.len() {
            true => "more".to_owned(),
            false => answers.len().to_string(),
        };
        let expected = format!("{}, one per row of {}", rows.len(), path.display());
        return malformed(&labels, "another number of answers".into(), expected, got);
    }
    for (row, answer) in rows.iter_mut().zip(answers) {
        row.set(key, Value::String(answer));
    }
    Ok(())
}

/// The key of the answer, for tasks that are published with answers apart.
fn key(task: Task) -> Option<&'static str> {
    match task {
        Task::Piqa => Some("label"),
        Task::Winogrande => Some("answer"),
        _ => None,
    }
}

/// `valid-labels.lst` for `valid.jsonl`.
fn name(path: &Path) -> PathBuf {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.strip_suffix(".gz").unwrap_or(&file);
    let stem = stem.strip_suffix(".jsonl").unwrap_or(stem);
    path.with_file_name(format!("{stem}-labels.lst"))
}

/// The file of answers next to `path`, by its name in upper or lower case, with `-` or `_`.
fn beside(path: &Path) -> Result<Option<PathBuf>> {
    let wanted = plain_name(&name(path));
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut files = sorted(folder)?.into_iter();
    Ok(files.find(|file| plain_name(file) == wanted))
}

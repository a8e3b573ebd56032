//! Writing `metrics.jsonl`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::Record;
use super::reader::{excerpt, lines};
use crate::files::write_atomically;
use crate::{Error, Result};

/// The checkpoint from which a run is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Steps done.
    pub step: u64,
    /// Stage of the checkpoint; a growth at the same step begins the next stage.
    pub stage: usize,
    /// Whether evaluation and sample of the step must still be made, because they were interrupted.
    pub unevaluated: bool,
}

impl ResumePoint {
    fn keeps(self, record: &Record) -> bool {
        let again = self.unevaluated
            && record.step() == self.step
            && matches!(record, Record::Eval(_) | Record::Sample(_));
        // Controls are made before their growth, for steps after it, and the growth is not done again once it is saved.
        let is_past = record.step() <= self.step || matches!(record, Record::Control(_));
        is_past && record.stage().is_none_or(|stage| stage <= self.stage) && !again
    }
}

/// Appends records to `metrics.jsonl`; each is written as one complete line.
///
/// ```
/// use tokenformer_report::{MetricsWriter, NoteRecord, Record, ResumePoint, read};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("metrics.jsonl");
/// let note = |step| Record::Note(NoteRecord { step, text: format!("step {step}") });
/// let mut writer = MetricsWriter::open(&path, None)?;
/// writer.write(&note(1))?;
/// writer.write(&note(2))?;
/// drop(writer);
///
/// // Resumed from a checkpoint of step 1: what came later is dropped, to be made again.
/// MetricsWriter::open(&path, Some(ResumePoint { step: 1, stage: 0, unevaluated: false }))?;
/// assert_eq!(read(&path)?, [note(1)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MetricsWriter {
    file: File,
    path: PathBuf,
    damage: Option<Damage>,
}

/// Lines of `metrics.jsonl` that were not records when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The metrics file.
    pub path: PathBuf,
    /// The file with these lines.
    pub aside: PathBuf,
    /// Number of these lines.
    pub count: usize,
    /// The first of them, counted from 1.
    pub first_line: usize,
    /// The parser's error for it, and its start.
    pub first_problem: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = match self.count {
            1 => "a line is no record and is".to_string(),
            n => format!("{n} lines are no records and are"),
        };
        write!(
            f,
            "{}: {lines} kept in {}; reports go on without\n  got:      line {}: {}",
            self.path.display(),
            self.aside.display(),
            self.first_line,
            self.first_problem
        )
    }
}

impl MetricsWriter {
    /// Opens `path` for appending, creating it when it is missing.
    ///
    /// With `resume`, every record of a later step or stage is dropped first (controls of a later stage only), so that a killed and resumed run leaves
    /// the records of an uninterrupted one. For that, all records of a step and stage must be written before its
    /// checkpoint is.
    /// An incomplete last line is always dropped. Any other line that is not a record is moved to the end of
    /// `metrics.jsonl.damaged`, which [`damage`](Self::damage) reports, because a run must not fail because of its log.
    /// Kept lines keep their bytes; the file is replaced atomically.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read or written.
    pub fn open(path: impl AsRef<Path>, resume: Option<ResumePoint>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let old = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(io_error("read the records", &path, source)),
        };
        let mut kept = Vec::with_capacity(old.len());
        let mut bad = Vec::new();
        let mut damage: Option<Damage> = None;
        for line in lines(&old) {
            match line.record {
                Ok(record) if resume.is_none_or(|point| point.keeps(&record)) => {
                    kept.extend_from_slice(line.text);
                    kept.push(b'\n');
                }
                Ok(_) => {}
                Err(problem) => {
                    bad.extend_from_slice(line.text);
                    bad.push(b'\n');
                    let found = damage.get_or_insert_with(|| Damage {
                        path: path.clone(),
                        aside: aside(&path),
                        count: 0,
                        first_line: line.number,
                        first_problem: format!("{problem}: {}", excerpt(line.text)),
                    });
                    found.count += 1;
                }
            }
        }
        if let Some(damage) = &damage {
            keep_aside(&damage.aside, &bad)?;
        }
        if kept != old {
            write_atomically(&path, &kept)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|source| io_error("open the records for appending", &path, source))?;
        Ok(Self { file, path, damage })
    }

    /// Whether nothing is recorded yet.
    ///
    /// # Errors
    /// [`Error::Io`] when the file's size cannot be read.
    pub fn is_empty(&self) -> Result<bool> {
        match self.file.metadata() {
            Ok(about) => Ok(about.len() == 0),
            Err(source) => Err(io_error("read the size of the records", &self.path, source)),
        }
    }

    /// The damage of the file when it was opened, if any.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Appends one record as one line.
    ///
    /// # Errors
    /// [`Error::Io`] when the line cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let mut line =
            serde_json::to_vec(record).map_err(|error| self.write_error(error.into()))?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(|source| self.write_error(source))
    }

    /// Waits until every record is on the disk; call it before a checkpoint that a resume may start from.
    ///
    /// # Errors
    /// [`Error::Io`] when the operating system reports a failed write.
    pub fn sync(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|source| self.write_error(source))
    }

    fn write_error(&self, source: std::io::Error) -> Error {
        io_error("write a record", &self.path, source)
    }
}

/// The path for damaged lines of the file at `path`.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".damaged");
    path.with_file_name(name)
}

/// Appends `lines`, and waits until they are on the disk: their place in the records is overwritten next.
fn keep_aside(path: &Path, lines: &[u8]) -> Result<()> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| {
            file.write_all(lines)?;
            file.sync_data()
        })
        .map_err(|source| io_error("keep damaged records", path, source))
}

fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

//! Writing `metrics.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::Record;
use super::reader::lines;
use crate::files::write_atomically;
use crate::{Error, Result};

/// The checkpoint that a run goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Steps done.
    pub step: u64,
    /// Stage that it was in; a growth at the same step begins a later one.
    pub stage: usize,
}

impl ResumePoint {
    fn keeps(self, record: &Record) -> bool {
        record.step() <= self.step && record.stage().is_none_or(|stage| stage <= self.stage)
    }
}

/// Appends records to `metrics.jsonl`; each is handed to the operating system as one whole line.
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
/// MetricsWriter::open(&path, Some(ResumePoint { step: 1, stage: 0 }))?;
/// assert_eq!(read(&path)?, [note(1)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MetricsWriter {
    file: File,
    path: PathBuf,
}

impl MetricsWriter {
    /// Opens `path` for appending, creating it when it is missing.
    ///
    /// With `resume`, every record of a later step or stage is dropped first, so that a killed and resumed run leaves
    /// the records of an uninterrupted one. For that, all records of a step and stage must be written before its
    /// checkpoint is.
    /// A torn last line is dropped in any case. Kept lines keep their bytes; the file is replaced in one piece.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read or written, [`Error::BadRecord`] when it holds anything but records: it
    /// is then left as it is.
    pub fn open(path: impl AsRef<Path>, resume: Option<ResumePoint>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let old = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(io_error("read the records", &path, source)),
        };
        let mut kept = Vec::with_capacity(old.len());
        for line in lines(&path, &old) {
            let (record, text) = line?;
            if resume.is_none_or(|point| point.keeps(&record)) {
                kept.extend_from_slice(text);
                kept.push(b'\n');
            }
        }
        if kept != old {
            write_atomically(&path, &kept)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|source| io_error("open the records for appending", &path, source))?;
        Ok(Self { file, path })
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

fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

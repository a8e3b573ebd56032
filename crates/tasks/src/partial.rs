//! Finished questions on disk, so that a stopped evaluation goes on where it was.
//!
//! The file has a header line, then one line per finished question: its key and its scores. The key is a
//! hash of everything that determines the scores: the model, the task, the row and its tokens. A line
//! with another key is of no use and does no harm.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::score::{Request, Scored};
use crate::task::Task;

const HEADER: &str = "{\"format\":\"tokenformer-eval-partial\",\"version\":1}\n";
/// Largest file that is read: all six tasks take about 5 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Characters of a key.
const KEY_CHARS: usize = 32;

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    scores: Vec<Scored>,
}

/// The key of a question.
pub(crate) fn key(model: &str, task: Task, row: usize, requests: &[Request]) -> String {
    let mut hash = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(model.as_bytes());
    part(task.name().as_bytes());
    part(&(row as u64).to_le_bytes());
    for request in requests {
        part(&(request.scored as u64).to_le_bytes());
        let tokens: Vec<u8> = request
            .tokens
            .iter()
            .flat_map(|t| t.to_le_bytes())
            .collect();
        part(&tokens);
    }
    hash.finalize().to_hex().chars().take(KEY_CHARS).collect()
}

/// The file of finished questions, open for more.
pub struct Partial {
    path: PathBuf,
    file: File,
    done: HashMap<String, Vec<Scored>>,
}

impl Partial {
    /// Opens the file, or makes it. A last line that was cut short is removed.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        let mut bytes = Vec::new();
        (&mut file)
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        let whole = bytes
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
        let is_ours = bytes.starts_with(HEADER.as_bytes()) || HEADER.as_bytes().starts_with(&bytes);
        if !is_ours || bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::Malformed {
                location: path.display().to_string(),
                problem: "not a file of finished questions".into(),
                expected: format!("the first line {}", HEADER.trim_end()).into(),
                got: "something else".into(),
                help: "choose another path, or remove the file".into(),
            });
        }
        let lines = bytes
            .get(..whole)
            .unwrap_or_default()
            .split(|&b| b == b'\n');
        let done = lines
            .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
            .filter(|line| line.key.len() == KEY_CHARS)
            .map(|line| (line.key, line.scores))
            .collect();
        let mut partial = Self {
            path: path.to_owned(),
            file,
            done,
        };
        partial.truncate(whole as u64)?;
        if whole == 0 {
            partial.write(HEADER.as_bytes())?;
        }
        Ok(partial)
    }

    fn truncate(&mut self, len: u64) -> Result<()> {
        let cut = self.file.set_len(len);
        cut.and_then(|()| self.file.seek(SeekFrom::Start(len)))
            .map(|_| ())
            .map_err(Error::io("write", &self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.map_err(Error::io("write", &self.path))
    }

    /// Finished questions that are known.
    #[cfg(fuzzing)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// The scores of a finished question with `requests` requests.
    pub(crate) fn take(&mut self, key: &str, requests: usize) -> Option<Vec<Scored>> {
        self.done.remove(key).filter(|s| s.len() == requests)
    }

    /// Notes finished questions.
    pub(crate) fn add<'a>(
        &mut self,
        questions: impl Iterator<Item = (&'a str, &'a [Scored])>,
    ) -> Result<()> {
        let mut text = String::new();
        for (key, scores) in questions {
            let line = Line {
                key: key.into(),
                scores: scores.to_vec(),
            };
            // Structs of strings and numbers: writing them to memory cannot fail.
            text += &serde_json::to_string(&line).expect("plain data with string keys serialises");
            text.push('\n');
        }
        self.write(text.as_bytes())
    }
}

//! Finished questions on disk, so that a stopped evaluation can be resumed.
//!
//! The file has a header line with the program that wrote it, then one line per finished question: its key, its scores,
//! and a hash of both. The key is a hash of everything that determines the scores: the model, the settings, the task, the
//! row and its tokens. A line with another key is ignored; so is one whose hash does not match,
//! and a file of another program, which can give other scores, starts over.
//!
//! Anyone who can write this file can change what an evaluation reports. So it is private to the user, it is never
//! opened through a link, and only one evaluation at a time uses it.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::score::{Request, Scored};
use crate::task::Task;

/// How the header of any version begins.
const FORMAT: &str = "{\"format\":\"tokenformer-eval-partial\",";
/// Largest file that is read: all six tasks take about 5 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Characters of a key, and of a line's hash.
const KEY_CHARS: usize = 32;

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    scores: Vec<Scored>,
    hash: String,
}

impl Line {
    fn new(key: String, scores: Vec<Scored>) -> Self {
        let hash = Self::hash(&key, &scores);
        Self { key, scores, hash }
    }

    fn hash(key: &str, scores: &[Scored]) -> String {
        let mut parts = Parts::default();
        parts.add(key.as_bytes());
        for scored in scores {
            parts.add(&scored.loglik.to_bits().to_le_bytes());
            parts.add(&[scored.greedy.map_or(2, u8::from)]);
        }
        parts.finish()
    }

    fn is_whole(&self) -> bool {
        self.key.len() == KEY_CHARS && self.hash == Self::hash(&self.key, &self.scores)
    }
}

/// A hash of parts, each with its length.
#[derive(Default)]
struct Parts(blake3::Hasher);

impl Parts {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        self.0.finalize().to_hex().chars().take(KEY_CHARS).collect()
    }
}

/// The key of a question under `settings`, which are everything else that the scores depend on.
pub(crate) fn key(settings: &[&str], task: Task, row: usize, requests: &[Request]) -> String {
    let mut parts = Parts::default();
    for setting in settings {
        parts.add(setting.as_bytes());
    }
    parts.add(task.name().as_bytes());
    parts.add(&(row as u64).to_le_bytes());
    for request in requests {
        parts.add(&(request.scored as u64).to_le_bytes());
        parts.add(&[u8::from(request.greedy)]);
        let tokens = request.tokens.iter().flat_map(|t| t.to_le_bytes());
        parts.add(&tokens.collect::<Vec<u8>>());
    }
    parts.finish()
}

/// The file of finished questions, open for more.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    file: File,
    header: String,
    /// Questions of the file that were not requested so far.
    done: HashMap<String, Vec<Scored>>,
    problem: Option<Error>,
}

impl Partial {
    /// Opens the file that `program` wrote, or makes it, with the folder it lies in. A last line that was cut short is
    /// removed.
    ///
    /// # Errors
    /// If file or folder are another user's, may be written by others, or are reached through a link; if another evaluation has the
    /// file; if it is something else, or cannot be read or written.
    pub fn open(path: &Path, program: &str) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        private_folder(folder).map_err(Error::io("use", folder))?;
        let mut file = private_file(path).map_err(Error::io("use", path))?;
        let mut bytes = Vec::new();
        (&mut file)
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        let is_ours = bytes.starts_with(FORMAT.as_bytes()) || FORMAT.as_bytes().starts_with(&bytes);
        if !is_ours || bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::Malformed {
                location: path.display().to_string(),
                problem: "not a file of finished questions".into(),
                expected: format!("a file that begins with {FORMAT}").into(),
                got: "something else".into(),
                help: "remove the file".into(),
            });
        }
        let header = header(program);
        let whole = match bytes.starts_with(header.as_bytes()) {
            true => bytes
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |at| at + 1),
            false => 0,
        };
        let lines = bytes.get(..whole).unwrap_or_default();
        let done = (lines.split(|&b| b == b'\n'))
            .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
            .filter(Line::is_whole)
            .map(|line| (line.key, line.scores))
            .collect();
        let mut partial = Self {
            path: path.to_owned(),
            file,
            header,
            done,
            problem: None,
        };
        let kept = partial.keep(whole as u64);
        kept.map_err(Error::io("write", path))?;
        Ok(partial)
    }

    /// Keeps the first `len` bytes and appends after them; if there are none, begins with the header.
    fn keep(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.file.seek(SeekFrom::Start(len))?;
        match len {
            0 => self.file.write_all(self.header.as_bytes()),
            _ => Ok(()),
        }
    }

    /// Finished questions that are known.
    #[cfg(feature = "fuzzing")]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// The scores of a finished question with these requests.
    pub(crate) fn take(&mut self, key: &str, requests: &[Request]) -> Option<Vec<Scored>> {
        let fits = |(scored, request): (&Scored, &Request)| {
            scored.loglik.is_finite() && scored.greedy.is_some() == request.greedy
        };
        let scores = self.done.remove(key)?;
        (scores.len() == requests.len() && scores.iter().zip(requests).all(fits)).then_some(scores)
    }

    /// Saves finished questions. An error ends the saving, not the evaluation; see [`Partial::problem`].
    pub(crate) fn add<'a>(&mut self, questions: impl Iterator<Item = (&'a str, &'a [Scored])>) {
        if self.problem.is_some() {
            return;
        }
        let text: String = questions
            .map(|(key, scores)| line(key.into(), scores.to_vec()))
            .collect();
        let written = self.file.write_all(text.as_bytes());
        self.problem = written.err().map(Error::io("write", &self.path));
    }

    /// Why finished questions are no longer saved.
    pub fn problem(&self) -> Option<&Error> {
        self.problem.as_ref()
    }

    /// Ends a finished evaluation: what it did not use stays for another one, and a file without that is removed.
    ///
    /// # Errors
    /// If the file cannot be written or removed.
    pub fn finish(mut self) -> Result<()> {
        if self.done.is_empty() {
            drop(self.file);
            return fs::remove_file(&self.path).map_err(Error::io("remove", &self.path));
        }
        let done = std::mem::take(&mut self.done).into_iter();
        let mut lines: Vec<String> = done.map(|(key, scores)| line(key, scores)).collect();
        lines.sort_unstable();
        self.keep(0)
            .and_then(|()| self.file.write_all(lines.concat().as_bytes()))
            .map_err(Error::io("write", &self.path))
    }
}

/// The first line of a file that `program` writes.
fn header(program: &str) -> String {
    let program = serde_json::Value::from(program);
    format!("{FORMAT}\"version\":2,\"program\":{program}}}\n")
}

/// The line of a finished question.
fn line(key: String, scores: Vec<Scored>) -> String {
    // A struct of strings and numbers: writing it to memory cannot fail.
    let line = serde_json::to_string(&Line::new(key, scores));
    line.expect("plain data with string keys serialises") + "\n"
}

fn refused(reason: &str) -> io::Error {
    io::Error::other(reason)
}

/// Makes a folder that only the user can write, or checks that it is one.
fn private_folder(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() {
        return Err(refused("it is not a folder"));
    }
    check_owner(&found, folder)
}

/// Opens a file that only the user can read and write, or makes it, and keeps other evaluations out.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let mut new = options.clone();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut new, 0o600);
    // An existing file or link with this name is not followed.
    let file = match new.create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let named = fs::symlink_metadata(path)?;
            if !named.is_file() {
                return Err(refused("it is not a plain file"));
            }
            let file = options.open(path)?;
            check_same(&named, &file.metadata()?)?;
            check_owner(&named, path.parent().unwrap_or(Path::new(".")))?;
            file
        }
        opened => opened?,
    };
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => refused("another evaluation has it"),
        fs::TryLockError::Error(error) => error,
    })?;
    Ok(file)
}

/// Returns an error for files that belong to another user or that others may write. The owner of a file made now in
/// `folder` is the user.
#[cfg(unix)]
fn check_owner(found: &Metadata, folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let own = tempfile::tempfile_in(folder)?.metadata()?;
    if found.uid() != own.uid() {
        return Err(refused("it belongs to another user"));
    }
    match found.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(refused("other users may write it")),
    }
}

#[cfg(not(unix))]
fn check_owner(_: &Metadata, _: &Path) -> io::Result<()> {
    Ok(())
}

/// Refuses an opened file that is not the one that the name stood for, or has other names.
#[cfg(unix)]
fn check_same(named: &Metadata, opened: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let is_same = (named.dev(), named.ino()) == (opened.dev(), opened.ino());
    match is_same && opened.nlink() == 1 {
        true => Ok(()),
        false => Err(refused("it is a link")),
    }
}

#[cfg(not(unix))]
fn check_same(_: &Metadata, _: &Metadata) -> io::Result<()> {
    Ok(())
}

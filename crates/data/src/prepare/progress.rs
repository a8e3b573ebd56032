//! The saved progress of an unfinished dataset, from which a later call resumes.
//!
//! The folder holds the partial token files and a note that says how far they are complete. The note is replaced
//! atomically, and only after everything that it describes is on the disk.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::out::Folder;
use crate::error::{Error, Result};
use crate::file_names;
use crate::tokenizer::Losses;
use crate::tokens::{Point, TokenFileWriter, create_beside, publish};

/// Size limit of a note.
const MAX_NOTE_BYTES: u64 = 1 << 16;

/// The progress of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    /// A hash of the documents, the split and the tokenizer.
    key: String,
    documents: u64,
    train: Point,
    valid: Point,
    losses: Losses,
}

const VERSION: u32 = 2;

/// The token files of an unfinished dataset.
pub(super) struct Unfinished {
    /// Training and validation.
    pub(super) writers: [TokenFileWriter; 2],
    /// Documents that are in the files already.
    pub(super) documents: u64,
    /// Characters that the tokens so far do not represent.
    pub(super) losses: Losses,
    note_path: PathBuf,
    key: String,
}

impl Unfinished {
    /// Resumes the dataset with this `key`, or starts over.
    pub(super) fn open(folder: &Folder, key: String, vocab_size: usize) -> Result<Self> {
        let note_path = folder.path().join(file_names::NOTE);
        let names = [
            [file_names::TRAIN, file_names::PARTIAL_TRAIN],
            [file_names::VALID, file_names::PARTIAL_VALID],
        ];
        let paths = names.map(|names| names.map(|name| folder.path().join(name)));
        let [train, valid] = &paths;
        if let Some(note) = read(&note_path).filter(|note| note.key == key) {
            let resume = |[path, partial]: &[PathBuf; 2], point| {
                TokenFileWriter::resume(path, vocab_size, partial, point)
            };
            if let (Some(train), Some(valid)) =
                (resume(train, note.train)?, resume(valid, note.valid)?)
            {
                return Ok(Self {
                    writers: [train, valid],
                    documents: note.documents,
                    losses: note.losses,
                    note_path,
                    key,
                });
            }
        }
        remove(&note_path)?;
        let create =
            |[path, partial]: &[PathBuf; 2]| TokenFileWriter::create_at(path, vocab_size, partial);
        Ok(Self {
            writers: [create(train)?, create(valid)?],
            documents: 0,
            losses: Losses::default(),
            note_path,
            key,
        })
    }

    /// Saves that the first `documents` documents are in the files.
    pub(super) fn save(&mut self, documents: u64) -> Result<()> {
        let [train, valid] = &mut self.writers;
        let note = Note {
            version: VERSION,
            key: self.key.clone(),
            documents,
            train: train.point()?,
            valid: valid.point()?,
            losses: self.losses,
        };
        let error = || Error::io("write", &self.note_path);
        let folder = self.note_path.parent().unwrap_or(Path::new("."));
        let mut file = create_beside(folder).map_err(error())?;
        let json = serde_json::to_vec(&note).map_err(|e| error()(e.into()))?;
        file.write_all(&json)
            .and_then(|()| file.as_file().sync_all())
            .map_err(error())?;
        publish(file, &self.note_path)
    }

    /// Deletes the note, since there is nothing to resume any more, and returns the files to complete.
    pub(super) fn finish(self) -> Result<[TokenFileWriter; 2]> {
        remove(&self.note_path)?;
        Ok(self.writers)
    }

    /// Deletes the note after a failure. Its error is ignored, because the failure itself matters more.
    pub(super) fn give_up(self) {
        let _ = remove(&self.note_path);
    }
}

/// Reads the note; `None` if it is missing or unusable.
fn read(path: &Path) -> Option<Note> {
    let found = fs::metadata(path).ok()?;
    let bytes =
        (found.is_file() && found.len() <= MAX_NOTE_BYTES).then(|| fs::read(path).ok())??;
    let note: Note = serde_json::from_slice(&bytes).ok()?;
    (note.version == VERSION).then_some(note)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

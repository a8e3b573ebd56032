//! Writes a token file next to its target and then renames it.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempPath};
use tokenformer_base::files;

use super::header::{HEADER_BYTES, Header};
use crate::error::{Error, Result};

/// Writes documents to a new token file. The file gets its name only in [`Written::publish`]; a dropped writer removes
/// its file.
pub struct TokenFileWriter {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    doc_starts: Vec<u64>,
    token_count: u64,
    text_bytes: u64,
    /// Whether a document has begun, of which `open_bytes` of text were written.
    is_open: bool,
    open_bytes: u64,
    vocab_size: u32,
    width: u32,
    /// The file for the starts of documents while the token file is unfinished, and the number of starts in it; only
    /// for files that may be resumed.
    starts: Option<(NamedTempFile, usize)>,
}

/// The progress of a token file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Point {
    tokens: u64,
    documents: u64,
    text_bytes: u64,
}

/// A complete token file that was not renamed to its final name so far.
pub struct Written {
    path: PathBuf,
    file: NamedTempFile,
    header: Header,
    hash: [u8; 32],
}

impl TokenFileWriter {
    /// Starts a file that will be renamed to `path`; its folder must exist.
    ///
    /// # Errors
    /// The folder cannot be written to; the vocabulary is 0 or above 32 bits.
    pub fn create(path: &Path, vocab_size: usize) -> Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file = create_beside(folder).map_err(Error::io("write", path))?;
        let mut writer = Self::new(path, vocab_size, file, None)?;
        writer.put(&[0; HEADER_BYTES])?;
        Ok(writer)
    }

    /// Starts a file that will be renamed to `path` and is called `partial` until then. If the program is killed,
    /// [`resume`](Self::resume) continues at the last [`point`](Self::point).
    pub(crate) fn create_at(path: &Path, vocab_size: usize, partial: &Path) -> Result<Self> {
        let create = |path: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            named(&options, path)
        };
        let file = create(partial)?;
        let starts = create(&starts_path(partial))?;
        let mut writer = Self::new(path, vocab_size, file, Some((starts, 0)))?;
        writer.put(&[0; HEADER_BYTES])?;
        Ok(writer)
    }

    /// Continues the file that an earlier process left at `partial`; `None` if it is shorter than `point` says or is
    /// not such a file.
    pub(crate) fn resume(
        path: &Path,
        vocab_size: usize,
        partial: &Path,
        point: Point,
    ) -> Result<Option<Self>> {
        let starts_path = starts_path(partial);
        if !partial.is_file() || !starts_path.is_file() {
            return Ok(None);
        }
        let mut options = File::options();
        options.read(true).write(true);
        let (file, starts) = (named(&options, partial)?, named(&options, &starts_path)?);
        let mut writer = Self::new(path, vocab_size, file, Some((starts, 0)))?;
        match writer.go_on_from(point) {
            Ok(true) => Ok(Some(writer)),
            Ok(false) => Ok(None),
            Err(error) => Err(Error::io("read", partial)(error)),
        }
    }

    /// Reads the existing file up to `point` and truncates the rest.
    fn go_on_from(&mut self, point: Point) -> std::io::Result<bool> {
        let Some((starts, count)) = &mut self.starts else {
            return Ok(false);
        };
        let token_bytes = point.tokens.saturating_mul(u64::from(self.width));
        let start_bytes = point.documents.saturating_mul(8);
        let end = token_bytes.saturating_add(HEADER_BYTES as u64);
        let file = self.file.get_mut().as_file_mut();
        if file.metadata()?.len() < end || starts.as_file().metadata()?.len() < start_bytes {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        starts
            .as_file_mut()
            .take(start_bytes)
            .read_to_end(&mut bytes)?;
        let (numbers, _) = bytes.as_chunks();
        self.doc_starts = numbers
            .iter()
            .map(|&start| u64::from_le_bytes(start))
            .collect();
        let is_sound = self.doc_starts.is_sorted_by(|a, b| a < b)
            && self.doc_starts.first().is_none_or(|&first| first == 0)
            && self
                .doc_starts
                .last()
                .is_none_or(|&last| last < point.tokens)
            && self.doc_starts.is_empty() == (point.tokens == 0);
        if !is_sound {
            return Ok(false);
        }
        starts.as_file().set_len(start_bytes)?;
        *count = self.doc_starts.len();
        file.set_len(end)?;
        file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
        self.hasher.update_reader(&mut *file)?;
        self.token_count = point.tokens;
        self.text_bytes = point.text_bytes;
        Ok(true)
    }

    /// Syncs everything written so far and returns the progress. Call it between two documents.
    pub(crate) fn point(&mut self) -> Result<Point> {
        let written = self.file.flush().and_then(|()| {
            self.file.get_ref().as_file().sync_data()?;
            let Some((starts, count)) = &mut self.starts else {
                return Ok(());
            };
            let new = self.doc_starts.iter().skip(*count);
            let bytes: Vec<u8> = new.flat_map(|start| start.to_le_bytes()).collect();
            starts.write_all(&bytes)?;
            starts.as_file().sync_data()?;
            *count = self.doc_starts.len();
            Ok(())
        });
        written.map_err(Error::io("write", &self.path))?;
        Ok(Point {
            tokens: self.token_count,
            documents: self.doc_starts.len() as u64,
            text_bytes: self.text_bytes,
        })
    }

    fn new(
        path: &Path,
        vocab_size: usize,
        file: NamedTempFile,
        starts: Option<(NamedTempFile, usize)>,
    ) -> Result<Self> {
        let vocab_size = u32::try_from(vocab_size)
            .ok()
            .filter(|&size| size > 0)
            .ok_or_else(|| Error::Option {
                option: "vocabulary size",
                expected: "1 to 4294967295",
                got: vocab_size.to_string(),
            })?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 20, file),
            hasher: blake3::Hasher::new(),
            buffer: Vec::new(),
            doc_starts: Vec::new(),
            token_count: 0,
            text_bytes: 0,
            is_open: false,
            open_bytes: 0,
            vocab_size,
            width: if vocab_size <= 1 << 16 { 2 } else { 4 },
            starts,
        })
    }

    /// Appends one document: its ids, including the end-of-document token, and the number of bytes of UTF-8 text that
    /// they came from. A document without ids is skipped.
    ///
    /// # Errors
    /// An id is outside the vocabulary, or the file cannot be written.
    pub fn push_document(&mut self, tokens: &[u32], text_bytes: u64) -> Result<()> {
        self.append(tokens, text_bytes)?;
        self.end_document(None)
    }

    /// Appends a part of a document that is too large for memory. The document continues until
    /// [`end_document`](Self::end_document).
    ///
    /// # Errors
    /// An id is outside the vocabulary, or the file cannot be written.
    pub fn append(&mut self, tokens: &[u32], text_bytes: u64) -> Result<()> {
        if let Some(&token) = tokens.iter().find(|&&token| token >= self.vocab_size) {
            return Err(Error::TokenRange {
                path: self.path.clone(),
                token,
                vocab_size: self.vocab_size,
            });
        }
        self.open_bytes += text_bytes;
        if tokens.is_empty() {
            return Ok(());
        }
        if !self.is_open {
            self.doc_starts.push(self.token_count);
            self.is_open = true;
        }
        self.token_count += tokens.len() as u64;
        for tokens in tokens.chunks(1 << 16) {
            self.buffer.clear();
            for token in tokens {
                let bytes = token.to_le_bytes();
                self.buffer.extend_from_slice(&bytes[..self.width as usize]);
            }
            self.hasher.update(&self.buffer);
            let buffer = std::mem::take(&mut self.buffer);
            self.put(&buffer)?;
            self.buffer = buffer;
        }
        Ok(())
    }

    /// Ends a document; appends this token unless the document is empty.
    ///
    /// # Errors
    /// An id is outside the vocabulary, or the file cannot be written.
    pub fn end_document(&mut self, eod: Option<u32>) -> Result<()> {
        if self.is_open {
            if let Some(eod) = eod {
                self.append(&[eod], 0)?;
            }
            self.text_bytes += self.open_bytes;
        }
        self.is_open = false;
        self.open_bytes = 0;
        Ok(())
    }

    /// Number of tokens so far.
    pub fn token_count(&self) -> u64 {
        self.token_count
    }

    /// Completes and syncs the file.
    ///
    /// # Errors
    /// The file cannot be written. A file without tokens cannot be read back; the caller checks
    /// [`token_count`](Self::token_count).
    pub fn finish(mut self) -> Result<Written> {
        self.end_document(None)?;
        let token_bytes = self.token_count * u64::from(self.width);
        let padding = (token_bytes.next_multiple_of(8) - token_bytes) as usize;
        let mut tail = vec![0; padding];
        tail.extend(self.doc_starts.iter().flat_map(|start| start.to_le_bytes()));
        self.hasher.update(&tail);
        self.put(&tail)?;
        let header = Header {
            width: self.width,
            vocab_size: self.vocab_size,
            token_count: self.token_count,
            doc_count: self.doc_starts.len() as u64,
            text_bytes: self.text_bytes,
            body_hash: *self.hasher.finalize().as_bytes(),
        };
        let (bytes, hash) = header.to_bytes();
        let io = || Error::io("write", &self.path);
        let mut file = self.file.into_inner().map_err(|e| io()(e.into_error()))?;
        file.rewind().map_err(io())?;
        file.write_all(&bytes).map_err(io())?;
        file.as_file().sync_all().map_err(io())?;
        Ok(Written {
            path: self.path,
            file,
            header,
            hash,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(Error::io("write", &self.path))
    }
}

impl Written {
    /// Renames the file to its final name; an existing file is replaced.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn publish(self) -> Result<()> {
        publish(self.file, &self.path)
    }

    /// Number of tokens in the file.
    pub fn token_count(&self) -> u64 {
        self.header.token_count
    }

    /// Number of documents in the file.
    pub fn doc_count(&self) -> u64 {
        self.header.doc_count
    }

    /// Bytes of UTF-8 text that the tokens came from.
    pub fn text_bytes(&self) -> u64 {
        self.header.text_bytes
    }

    /// The hash of the whole file, in hexadecimal.
    pub fn hash(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_hex().to_string()
    }
}

/// The path of the file with the starts of the documents of an unfinished file.
fn starts_path(partial: &Path) -> PathBuf {
    partial.with_extension("starts")
}

/// Opens a file that is removed when it is dropped before it is renamed.
fn named(options: &std::fs::OpenOptions, path: &Path) -> Result<NamedTempFile> {
    let file = options.open(path).map_err(Error::io("write", path))?;
    let path = TempPath::try_from_path(path).map_err(Error::io("write", path))?;
    Ok(NamedTempFile::from_parts(file, path))
}

/// Prefix of the names of unfinished files.
pub(crate) const PARTIAL_PREFIX: &str = ".partial-";

/// A new hidden file in `folder`.
pub(crate) fn create_beside(folder: &Path) -> std::io::Result<NamedTempFile> {
    files::stage(folder, PARTIAL_PREFIX)
}

/// Renames a finished file and syncs its folder, so that the new name survives a power cut.
pub(crate) fn publish(file: NamedTempFile, path: &Path) -> Result<()> {
    files::publish(file, path).map_err(Error::io("write", path))
}

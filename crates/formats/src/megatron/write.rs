//! The writer.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{MAGIC, TokenType, VERSION, files};
use crate::{Error, Result, file};

/// A writer of token data, with one sequence per document.
///
/// Both files get their names in [`finish`](Self::finish); without it they are removed.
pub struct MegatronWriter {
    bin_path: PathBuf,
    index_path: PathBuf,
    staged: NamedTempFile,
    bin: BufWriter<File>,
    vocab_size: u64,
    token: TokenType,
    /// Tokens of each sequence.
    lengths: Vec<i32>,
}

impl MegatronWriter {
    /// Begins `PREFIX.bin` and `PREFIX.idx` for token ids below `vocab_size`, with the token type that Megatron's tools
    /// choose for that size.
    ///
    /// # Errors
    /// [`Error::Argument`] for a vocabulary beyond 2³¹, [`Error::Io`].
    pub fn create(prefix: &Path, vocab_size: u64) -> Result<MegatronWriter> {
        const MAX_VOCAB: u64 = 1 << 31;
        if vocab_size > MAX_VOCAB {
            return Err(Error::Argument {
                name: "vocab_size",
                expected: format!("at most {MAX_VOCAB}"),
                got: vocab_size.to_string(),
            });
        }
        let [bin_path, index_path] = files(prefix);
        let staged = file::stage(&bin_path)?;
        let handle = staged
            .as_file()
            .try_clone()
            .map_err(Error::io("write it", &bin_path))?;
        Ok(MegatronWriter {
            bin_path,
            index_path,
            staged,
            bin: BufWriter::new(handle),
            vocab_size,
            token: TokenType::for_vocab(vocab_size),
            lengths: Vec::new(),
        })
    }

    /// Adds a document. `tokens` includes its end-of-document token, if it has one.
    ///
    /// # Errors
    /// [`Error::TokenRange`], [`Error::Unwritable`] for an empty document or one of 2³¹ tokens, [`Error::Io`].
    pub fn add_document(&mut self, tokens: &[u32]) -> Result<()> {
        let length = i32::try_from(tokens.len())
            .ok()
            .filter(|&length| length > 0)
            .ok_or_else(|| Error::Unwritable {
                path: self.bin_path.clone(),
                what: "a document has no tokens, or too many",
                expected: format!("from 1 to {} tokens", i32::MAX),
                got: tokens.len().to_string(),
            })?;
        if let Some((position, &token)) = tokens
            .iter()
            .enumerate()
            .find(|&(_, &token)| u64::from(token) >= self.vocab_size)
        {
            return Err(Error::TokenRange {
                path: self.bin_path.clone(),
                sequence: self.lengths.len(),
                position_tokens: position as u64,
                token: token.into(),
                vocab_size: self.vocab_size,
            });
        }
        let written = tokens.iter().try_for_each(|token| {
            let bytes = token.to_le_bytes();
            // Every id below the vocabulary's size fits the type chosen for it; the low bytes come first.
            self.bin
                .write_all(bytes.get(..self.token.size_bytes()).unwrap_or(&bytes))
        });
        written.map_err(Error::io("write it", &self.bin_path))?;
        self.lengths.push(length);
        Ok(())
    }

    /// Writes the index, syncs both files and renames them to their final names.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<()> {
        self.bin
            .flush()
            .map_err(Error::io("write it", &self.bin_path))?;
        let index = file::stage(&self.index_path)?;
        let written = self.write_index(&mut BufWriter::new(index.as_file()));
        written.map_err(Error::io("write it", &self.index_path))?;
        file::publish(self.staged, &self.bin_path)?;
        file::publish(index, &self.index_path)
    }

    fn write_index(&self, to: &mut impl Write) -> std::io::Result<()> {
        let sequences = self.lengths.len() as u64;
        to.write_all(MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        to.write_all(&[self.token.code()])?;
        to.write_all(&sequences.to_le_bytes())?;
        to.write_all(&(sequences + 1).to_le_bytes())?;
        for length in &self.lengths {
            to.write_all(&length.to_le_bytes())?;
        }
        let mut pointer = 0i64;
        for &length in &self.lengths {
            to.write_all(&pointer.to_le_bytes())?;
            pointer += i64::from(length) * self.token.size_bytes() as i64;
        }
        for document in 0..=sequences {
            to.write_all(&document.to_le_bytes())?;
        }
        to.flush()
    }
}

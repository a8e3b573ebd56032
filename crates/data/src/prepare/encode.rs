//! The last pass, from documents to token files.

use rayon::prelude::*;

use super::out::Folder;
use super::progress::Unfinished;
use super::source::Opened;
use super::split::Split;
use super::{Progress, Stage};
use crate::corpus::{CorpusStats, Document};
use crate::error::{Error, Result};
use crate::tokenizer::{Losses, Tokenizer};
use crate::tokens::Written;

/// Text encoded at a time, in parallel.
const BATCH_BYTES: usize = 8 << 20;

/// The inputs of the last pass.
pub(super) struct Encode<'a> {
    pub(super) documents: &'a Opened<'a>,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) split: &'a Split,
    /// The counts of the first pass.
    pub(super) stats: &'a CorpusStats,
    pub(super) save_every_bytes: u64,
}

impl Encode<'_> {
    /// Encodes every document into its split. Returns the training and the validation file, complete but not renamed,
    /// and the characters that the tokens do not represent.
    pub(super) fn run(
        &self,
        out: &Folder,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<([Written; 2], Losses)> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.split.digest().as_bytes());
        hasher.update(self.tokenizer.fingerprint().as_bytes());
        let key = hasher.finalize().to_hex().to_string();
        let mut encoder = Encoder {
            tokenizer: self.tokenizer,
            split: self.split,
            files: Unfinished::open(out, key, self.tokenizer.vocab_size())?,
            batch: Vec::new(),
            batch_bytes: 0,
            most_bytes: BATCH_BYTES
                .min(usize::try_from(self.save_every_bytes).unwrap_or(usize::MAX)),
            next_index: 0,
            save_every_bytes: self.save_every_bytes,
            unsaved_bytes: 0,
        };
        match self.read(&mut encoder, progress) {
            Ok(()) => {
                let losses = encoder.files.losses;
                let [train, valid] = encoder.files.finish()?;
                Ok(([train.finish()?, valid.finish()?], losses))
            }
            Err(error) => {
                encoder.files.give_up();
                Err(error)
            }
        }
    }

    fn read(&self, encoder: &mut Encoder<'_>, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let mut done = 0;
        let again = self.documents.visit(&mut |document| {
            done += document.text.len() as u64;
            let is_new = encoder.next_index >= encoder.files.documents;
            match is_new {
                true => encoder.add(document.into_owned())?,
                false => encoder.next_index += 1,
            }
            progress(Progress {
                stage: if is_new { Stage::Encode } else { Stage::Skip },
                done,
                total: Some(self.split.text_bytes()),
            });
            Ok(())
        })?;
        if again != *self.stats {
            return Err(Error::InputChanged {
                expected_documents: self.stats.documents,
                expected_bytes: self.stats.text_bytes,
                got_documents: again.documents,
                got_bytes: again.text_bytes,
            });
        }
        encoder.flush()?;
        let tokens = encoder.files.writers.each_ref();
        self.split
            .check_sizes(tokens.map(|writer| writer.token_count()))
    }
}

struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    split: &'a Split,
    files: Unfinished,
    batch: Vec<(u64, Document)>,
    batch_bytes: usize,
    /// Size limit of a batch in bytes.
    most_bytes: usize,
    next_index: u64,
    save_every_bytes: u64,
    /// Bytes of text written since the last saved progress.
    unsaved_bytes: u64,
}

impl Encoder<'_> {
    fn add(&mut self, document: Document) -> Result<()> {
        let index = self.next_index;
        self.next_index += 1;
        if document.text.len() >= BATCH_BYTES {
            self.flush()?;
            self.encode_large(index, &document)?;
            return self.save_if_due();
        }
        self.batch_bytes += document.text.len();
        self.batch.push((index, document));
        if self.batch_bytes >= self.most_bytes {
            self.flush()?;
            self.save_if_due()?;
        }
        Ok(())
    }

    /// Saves the progress if enough text was written; called when every document so far is in the files.
    fn save_if_due(&mut self) -> Result<()> {
        if self.unsaved_bytes < self.save_every_bytes {
            return Ok(());
        }
        self.unsaved_bytes = 0;
        self.files.save(self.next_index)
    }

    fn flush(&mut self) -> Result<()> {
        let encode = |(index, document): &(u64, Document)| {
            let [train, valid] = self.split.parts(*index, &document.text);
            let encode = |text| Ok((self.encode(text, document)?, text.len() as u64));
            Ok([encode(train)?, encode(valid)?])
        };
        let encoded = self.batch.par_iter().map(encode);
        for parts in encoded.collect::<Result<Vec<_>>>()? {
            for (writer, ((tokens, losses), text_bytes)) in self.files.writers.iter_mut().zip(parts)
            {
                writer.append(&tokens, text_bytes)?;
                writer.end_document(self.tokenizer.eod())?;
                self.files.losses += losses;
            }
        }
        self.unsaved_bytes += self.batch_bytes as u64;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    /// Encodes in parts, since the ids of a text take several times its memory.
    fn encode_large(&mut self, index: u64, document: &Document) -> Result<()> {
        let parts = self.split.parts(index, &document.text);
        for (split, text) in parts.into_iter().enumerate() {
            for part in self.tokenizer.parts(text, BATCH_BYTES) {
                let (tokens, losses) = self.encode(part, document)?;
                self.files.losses += losses;
                self.files.writers[split].append(&tokens, part.len() as u64)?;
            }
            self.files.writers[split].end_document(self.tokenizer.eod())?;
        }
        self.unsaved_bytes += document.text.len() as u64;
        Ok(())
    }

    fn encode(&self, text: &str, document: &Document) -> Result<(Vec<u32>, Losses)> {
        self.tokenizer
            .encode_counted(text)
            .map_err(|error| error.in_document(&document.source))
    }
}

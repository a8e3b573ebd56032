//! The last pass: documents to token files.

use rayon::prelude::*;

use super::out::Folder;
use super::source::Opened;
use super::split::Split;
use super::{Progress, Stage, file_names};
use crate::corpus::{CorpusStats, Document};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::tokens::{TokenFileWriter, Written};

/// Text encoded at a time, in parallel.
const BATCH_BYTES: usize = 8 << 20;

/// Encodes every document into its split. Returns the training and the validation file, complete
/// but without their names yet.
pub(super) fn encode(
    documents: &Opened,
    tokenizer: &Tokenizer,
    split: &Split,
    out: &Folder,
    stats: &CorpusStats,
    progress: &mut dyn FnMut(Progress),
) -> Result<[Written; 2]> {
    let writer = |name| TokenFileWriter::create(&out.path().join(name), tokenizer.vocab_size());
    let mut encoder = Encoder {
        tokenizer,
        split,
        writers: [writer(file_names::TRAIN)?, writer(file_names::VALID)?],
        batch: Vec::new(),
        batch_bytes: 0,
        next_index: 0,
    };
    let mut done = 0;
    let again = documents.visit(&mut |document| {
        done += document.text.len() as u64;
        encoder.add(document.into_owned())?;
        progress(Progress {
            stage: Stage::Encode,
            done,
            total: Some(split.text_bytes()),
        });
        Ok(())
    })?;
    if again != *stats {
        return Err(Error::InputChanged {
            expected_documents: stats.documents,
            expected_bytes: stats.text_bytes,
            got_documents: again.documents,
            got_bytes: again.text_bytes,
        });
    }
    encoder.flush()?;
    let [train, valid] = encoder.writers;
    for (writer, name) in [(&train, "training"), (&valid, "validation")] {
        if writer.token_count() == 0 {
            return Err(Error::EmptySplit {
                split: name,
                documents: split.documents(),
                text_bytes: split.text_bytes(),
            });
        }
    }
    Ok([train.finish()?, valid.finish()?])
}

struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    split: &'a Split,
    writers: [TokenFileWriter; 2],
    batch: Vec<(u64, Document)>,
    batch_bytes: usize,
    next_index: u64,
}

impl Encoder<'_> {
    fn add(&mut self, document: Document) -> Result<()> {
        let index = self.next_index;
        self.next_index += 1;
        if document.text.len() >= BATCH_BYTES {
            self.flush()?;
            return self.encode_large(index, &document);
        }
        self.batch_bytes += document.text.len();
        self.batch.push((index, document));
        if self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let encode = |(index, document): &(u64, Document)| {
            let [train, valid] = self.split.parts(*index, &document.text);
            let encode = |text| Ok((self.encode(text, document)?, text.len() as u64));
            Ok([encode(train)?, encode(valid)?])
        };
        let encoded = self.batch.par_iter().map(encode);
        for parts in encoded.collect::<Result<Vec<_>>>()? {
            for (writer, (tokens, text_bytes)) in self.writers.iter_mut().zip(parts) {
                writer.append(&tokens, text_bytes)?;
                writer.end_document(self.tokenizer.eod())?;
            }
        }
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    /// Part by part, since the ids of a text take several times its memory.
    fn encode_large(&mut self, index: u64, document: &Document) -> Result<()> {
        let parts = self.split.parts(index, &document.text);
        for (split, text) in parts.into_iter().enumerate() {
            for part in self.tokenizer.parts(text, BATCH_BYTES) {
                let tokens = self.encode(part, document)?;
                self.writers[split].append(&tokens, part.len() as u64)?;
            }
            self.writers[split].end_document(self.tokenizer.eod())?;
        }
        Ok(())
    }

    fn encode(&self, text: &str, document: &Document) -> Result<Vec<u32>> {
        self.tokenizer
            .encode(text)
            .map_err(|error| error.in_document(&document.source))
    }
}

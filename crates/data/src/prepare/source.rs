//! The source of the documents of a dataset.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::corpus::{Corpus, CorpusOptions, CorpusStats, Document};
use crate::error::{Error, Result};

/// Files to read, or documents in memory.
#[derive(Debug, Clone)]
pub enum DocumentSource {
    /// Files and folders.
    Paths(CorpusOptions),
    /// Documents in memory.
    Memory {
        /// A description for the summary.
        label: String,
        /// The documents; empty ones are skipped.
        documents: Vec<Document>,
    },
}

/// A source that can be read several times.
pub(super) enum Opened<'a> {
    Paths(Corpus),
    Memory {
        label: &'a str,
        documents: &'a [Document],
    },
}

impl<'a> Opened<'a> {
    /// Opens the source; files at `not_text` are skipped inside folders.
    pub(super) fn new(source: &'a DocumentSource, not_text: Vec<PathBuf>) -> Result<Self> {
        match source {
            DocumentSource::Paths(options) => {
                let mut options = options.clone();
                options.left_out.extend(not_text);
                Corpus::open(options).map(Self::Paths)
            }
            DocumentSource::Memory { label, documents } => {
                if documents.iter().all(|document| document.text.is_empty()) {
                    return Err(Error::NoText {
                        location: label.clone(),
                        expected: "at least one document with text",
                        got: format!("{} documents, all of them empty", documents.len()),
                    });
                }
                Ok(Self::Memory { label, documents })
            }
        }
    }

    /// Calls `visitor` with every document that has text, in the same order each time.
    pub(super) fn visit(
        &self,
        visitor: &mut dyn FnMut(Cow<Document>) -> Result<()>,
    ) -> Result<CorpusStats> {
        match self {
            Self::Paths(corpus) => corpus.visit(|document| visitor(Cow::Owned(document))),
            Self::Memory { documents, .. } => {
                let mut stats = CorpusStats::default();
                for document in *documents {
                    if document.text.is_empty() {
                        stats.skipped_empty_documents += 1;
                        continue;
                    }
                    stats.documents += 1;
                    stats.text_bytes += document.text.len() as u64;
                    visitor(Cow::Borrowed(document))?;
                }
                Ok(stats)
            }
        }
    }

    /// The inputs as the summary names them.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Paths(corpus) => {
                let inputs = corpus.options().inputs.iter();
                inputs.map(|path| path.display().to_string()).collect()
            }
            Self::Memory { label, .. } => vec![(*label).to_owned()],
        }
    }
}

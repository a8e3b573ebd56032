//! `dataset.json`: the sources and the content of a dataset.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::corpus::CorpusStats;
use crate::tokenizer::Tokenizer;
use crate::tokens::Written;

pub(crate) const SUMMARY_VERSION: u32 = 1;

/// The description of a dataset; `Display` is for people, `serde` for programs and for `dataset.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Version of this structure, 1.
    pub version: u32,
    /// The inputs as they were given.
    pub inputs: Vec<String>,
    /// What was read and what was skipped.
    pub read: CorpusStats,
    /// The seed of the split.
    pub seed: u64,
    /// The wanted share of validation.
    pub valid_fraction: f64,
    /// The tokenizer.
    pub tokenizer: TokenizerSummary,
    /// The training split.
    pub train: SplitSummary,
    /// The validation split.
    pub valid: SplitSummary,
    /// Notes for the reader, in sentences.
    pub notes: Vec<String>,
}

/// The tokenizer of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSummary {
    /// `bytes` or `bpe-4096`.
    pub name: String,
    /// BLAKE3 of `tokenizer.json`.
    pub fingerprint: String,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// The end-of-document token.
    pub eod: Option<u32>,
}

impl TokenizerSummary {
    pub(super) fn new(tokenizer: &Tokenizer) -> Self {
        Self {
            name: tokenizer.name(),
            fingerprint: tokenizer.fingerprint(),
            vocab_size: tokenizer.vocab_size(),
            eod: tokenizer.eod(),
        }
    }
}

/// One split of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSummary {
    /// Documents.
    pub documents: u64,
    /// Bytes of UTF-8 text.
    pub text_bytes: u64,
    /// Tokens, including end-of-document tokens.
    pub tokens: u64,
    /// The hash of the token file.
    pub hash: String,
}

impl SplitSummary {
    pub(super) fn new(written: &Written) -> Self {
        Self {
            documents: written.doc_count(),
            text_bytes: written.text_bytes(),
            tokens: written.token_count(),
            hash: written.hash(),
        }
    }

    /// Bytes of text per token.
    pub fn bytes_per_token(&self) -> f64 {
        self.text_bytes as f64 / self.tokens as f64
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokenizer = &self.tokenizer;
        let read = &self.read;
        writeln!(f, "inputs      {}", self.inputs.join(", "))?;
        writeln!(
            f,
            "tokenizer   {} ({} tokens, fingerprint {:.16})",
            tokenizer.name, tokenizer.vocab_size, tokenizer.fingerprint,
        )?;
        writeln!(f, "seed        {}", self.seed)?;
        writeln!(
            f,
            "{:<11} {:>12} {:>16} {:>16} {:>12}",
            "split", "documents", "bytes", "tokens", "bytes/token"
        )?;
        for (name, split) in [("train", &self.train), ("valid", &self.valid)] {
            writeln!(
                f,
                "{name:<11} {:>12} {:>16} {:>16} {:>12.3}",
                split.documents,
                split.text_bytes,
                split.tokens,
                split.bytes_per_token(),
            )?;
        }
        let skipped = [
            (read.skipped_binary_files, "binary files"),
            (read.skipped_empty_files, "empty files"),
            (read.skipped_not_lines, "files that are not JSON Lines"),
            (read.skipped_links, "links that lead nowhere or around"),
            (read.skipped_empty_documents, "empty documents"),
        ];
        for (count, what) in skipped.into_iter().filter(|&(count, _)| count > 0) {
            writeln!(f, "skipped     {count} {what}")?;
        }
        for (format, count) in &read.skipped_formats {
            writeln!(f, "skipped     {count} files that are {format}")?;
        }
        for note in &self.notes {
            writeln!(f, "note        {note}")?;
        }
        Ok(())
    }
}

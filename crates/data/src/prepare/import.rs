//! Makes datasets from documents that are already tokenized.

use std::path::PathBuf;

use super::out::Folder;
use super::split::{Choice, Cut, Survey, TRAIN, VALID};
use super::summary::{SUMMARY_VERSION, SplitSummary, Summary, TokenizerSummary};
use super::{check_fraction, notes};
use crate::corpus::CorpusStats;
use crate::error::{Error, Result};
use crate::file_names;
use crate::tokenizer::Tokenizer;
use crate::tokens::TokenFileWriter;

/// What to import and where to write it.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// A description of the documents for the summary.
    pub label: String,
    /// The tokenizer that made the tokens.
    pub tokenizer: Tokenizer,
    /// The dataset folder to make.
    pub out: PathBuf,
    /// Seed that decides which documents go to validation.
    pub seed: u64,
    /// Share of the bytes of text kept for validation, between 0 and 1.
    pub valid_fraction: f64,
    /// Whether to replace an existing dataset in `out`.
    pub force: bool,
}

/// Splits tokenized documents as [`prepare`](super::prepare) splits texts, and writes the dataset folder.
///
/// `read` replaces the content of its buffer by the tokens of a document. It is called twice for each of `count`
/// documents, in order. Every document must end with the tokenizer's end-of-document token, which is added if it is
/// missing. The text size of a document is the number of bytes that its tokens decode to. `progress` is called with
/// (documents read, documents to read in both passes).
///
/// # Errors
/// Options out of range, a folder in use, a token outside the vocabulary, too few tokens for two splits, file system
/// errors, and errors of `read`.
pub fn import<E: From<Error>>(
    options: &ImportOptions,
    count: u64,
    mut read: impl FnMut(u64, &mut Vec<u32>) -> Result<(), E>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Summary, E> {
    check_fraction(options.valid_fraction)?;
    let (tokenizer, fraction) = (&options.tokenizer, options.valid_fraction);
    let out = Folder::claim(&options.out, options.force)?;
    let mut tokens = Vec::new();
    let mut bytes = Vec::new();

    let mut survey = Survey::new(options.seed, fraction);
    for document in 0..count {
        read(document, &mut tokens)?;
        without_end(&mut tokens, tokenizer.eod());
        if !tokens.is_empty() {
            let text_bytes = tokenizer.decode(&tokens).len() as u64;
            survey.add_document(bytes_of(&tokens, &mut bytes), text_bytes, || {
                let at = cut(tokens.len(), fraction)?;
                let train_bytes = tokenizer.decode(&tokens[..at]).len() as u64;
                Some(Cut { at, train_bytes })
            });
        }
        progress(document + 1, 2 * count);
    }
    let split = survey.finish()?;

    let writer = |name| TokenFileWriter::create(&out.path().join(name), tokenizer.vocab_size());
    let mut writers = [writer(file_names::TRAIN)?, writer(file_names::VALID)?];
    let mut stats = CorpusStats {
        files: 1,
        ..CorpusStats::default()
    };
    let mut added_ends = 0;
    for document in 0..count {
        read(document, &mut tokens)?;
        let had_end = without_end(&mut tokens, tokenizer.eod());
        progress(count + document + 1, 2 * count);
        if tokens.is_empty() {
            stats.skipped_empty_documents += 1;
            continue;
        }
        added_ends += u64::from(!had_end && tokenizer.eod().is_some());
        let (train, valid): (&[u32], &[u32]) =
            match split.choose(stats.documents, bytes_of(&tokens, &mut bytes)) {
                Choice::Whole(VALID) => (&[], &tokens),
                Choice::Whole(_) => (&tokens, &[]),
                Choice::Cut(at) => tokens.split_at_checked(at).unwrap_or((&tokens, &[])),
            };
        stats.documents += 1;
        for (writer, part) in writers.iter_mut().zip([train, valid]) {
            let text_bytes = tokenizer.decode(part).len() as u64;
            stats.text_bytes += text_bytes;
            writer.append(part, text_bytes)?;
            writer.end_document(tokenizer.eod())?;
        }
    }
    split.check_sizes(writers.each_ref().map(|writer| writer.token_count()))?;
    let [train, valid] = writers;
    let written = [train.finish()?, valid.finish()?];

    let mut notes = vec!["The tokens were imported as they are.".to_owned()];
    notes.extend(notes::of_split(&split, fraction));
    if added_ends > 0 {
        notes.push(format!(
            "{added_ends} documents had no end-of-document token and got one."
        ));
    }
    let summary = Summary {
        version: SUMMARY_VERSION,
        inputs: vec![options.label.clone()],
        read: stats,
        seed: options.seed,
        valid_fraction: fraction,
        tokenizer: TokenizerSummary::new(tokenizer),
        train: SplitSummary::new(&written[TRAIN]),
        valid: SplitSummary::new(&written[VALID]),
        notes,
    };
    out.publish(written, tokenizer, &summary)?;
    Ok(summary)
}

/// Removes the end-of-document token; returns whether it was there.
fn without_end(tokens: &mut Vec<u32>, eod: Option<u32>) -> bool {
    let has_end = eod.is_some() && tokens.last().copied() == eod;
    if has_end {
        tokens.pop();
    }
    has_end
}

fn bytes_of<'a>(tokens: &[u32], bytes: &'a mut Vec<u8>) -> &'a [u8] {
    bytes.clear();
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    bytes
}

/// The token at which a single document is cut; `None` if it has only one token.
fn cut(tokens: usize, valid_fraction: f64) -> Option<usize> {
    let wanted = (tokens as f64 * (1.0 - valid_fraction)) as usize;
    (tokens > 1).then(|| wanted.clamp(1, tokens - 1))
}

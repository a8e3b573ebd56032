//! Makes a dataset folder from documents.
//!
//! The documents are read two or three times. The first pass counts them and fixes the split; a BPE that has to be
//! trained reads a sample of the training split; the last pass writes the tokens. Memory is bounded by one document and
//! the tokens of about 8 MB of text (of the whole document, for encodings that cannot be applied in parts).

mod encode;
mod import;
mod notes;
mod out;
mod progress;
mod source;
mod split;
mod summary;

use std::path::PathBuf;

use crate::corpus::CorpusStats;
use crate::error::{Error, Result};
use crate::tokenizer::{EOD_NAMES, Tokenizer, TokenizerSpec, Trainer};
use source::Opened;
use split::{Split, Survey, TRAIN, VALID};

pub use import::{ImportOptions, import};
pub use source::DocumentSource;
pub(crate) use summary::SUMMARY_VERSION;
pub use summary::{SplitSummary, Summary, TokenizerSummary};

/// Training text from which a BPE is learned. More text changes few merges and takes long.
const BPE_SAMPLE_BYTES: u64 = 64 << 20;

/// What to prepare and where to write it.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// The documents.
    pub source: DocumentSource,
    /// The tokenizer; default bytes.
    pub tokenizer: TokenizerSpec,
    /// The dataset folder to make.
    pub out: PathBuf,
    /// Seed that decides which documents go to validation, and which sample a BPE learns from; default 0.
    pub seed: u64,
    /// Share of the bytes of text kept for validation, between 0 and 1; default 0.05.
    pub valid_fraction: f64,
    /// Whether to replace an existing dataset in `out`; default false.
    pub force: bool,
    /// Bytes of text between two saves of the progress; default 64 MiB.
    pub save_every_bytes: u64,
}

/// Default number of bytes between two saves of the progress: about a second of work.
const SAVE_EVERY_BYTES: u64 = 64 << 20;

impl PrepareOptions {
    /// The defaults for these documents and this folder.
    pub fn new(source: DocumentSource, out: PathBuf) -> Self {
        Self {
            source,
            tokenizer: TokenizerSpec::Bytes,
            out,
            seed: 0,
            valid_fraction: 0.05,
            force: false,
            save_every_bytes: SAVE_EVERY_BYTES,
        }
    }
}

/// Which pass is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The first pass, which counts the documents; in bytes of text, the total is unknown.
    Survey,
    /// Reading the sample a BPE learns from and counting its words; in bytes of text.
    Sample,
    /// Learning the BPE; in merges.
    TrainTokenizer,
    /// Skipping documents whose tokens an earlier, killed call wrote; in bytes of text.
    Skip,
    /// Writing the tokens; in bytes of text.
    Encode,
}

/// The progress of [`prepare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The pass.
    pub stage: Stage,
    /// Bytes or merges done.
    pub done: u64,
    /// Bytes or merges in total, if known.
    pub total: Option<u64>,
}

/// Reads the documents, splits them, makes or loads the tokenizer and writes the dataset folder.
///
/// Each document goes to one split as a whole, chosen by a hash of the seed and the text. Validation gets the wanted
/// share of the bytes as nearly as whole documents allow. The order of the documents does not matter, and equal
/// documents go to the same split. With two or more documents each split has at least one. A single document is cut
/// instead, at a line end if there is one near the wanted share. The summary has a note if a share is far from the wanted one, and one for characters that the
/// tokens do not represent.
///
/// `out` and a tokenizer file are skipped inside the folders that are read.
///
/// The four files are renamed to their final names at the very end, `dataset.json` last. If the program is killed
/// before, the same call resumes where it was, and the dataset has the same bytes as without the interruption.
///
/// # Errors
/// Options out of range, a folder in use, everything [`Corpus`](crate::Corpus) and
/// [`Tokenizer`] report, too little text for two splits, file system errors.
pub fn prepare(options: &PrepareOptions, mut progress: impl FnMut(Progress)) -> Result<Summary> {
    check_fraction(options.valid_fraction)?;
    let ready = Tokenizer::from_spec(&options.tokenizer)?;
    let mut not_text = vec![options.out.clone()];
    if let TokenizerSpec::File(path) = &options.tokenizer {
        not_text.push(path.clone());
    }
    let documents = Opened::new(&options.source, not_text)?;
    let out = out::Folder::claim(&options.out, options.force)?;

    let (split, read) = survey(options, &documents, &mut progress)?;
    let tokenizer = match (ready, &options.tokenizer) {
        (None, TokenizerSpec::TrainBpe { vocab_size }) => {
            let trainer = Training {
                vocab_size: *vocab_size,
                split: &split,
            };
            trainer.run(&documents, &mut progress)?
        }
        (ready, _) => ready.unwrap_or_else(Tokenizer::bytes),
    };
    let encode = encode::Encode {
        documents: &documents,
        tokenizer: &tokenizer,
        split: &split,
        stats: &read.stats,
        save_every_bytes: options.save_every_bytes,
    };
    let (written, losses) = encode.run(&out, &mut progress)?;
    let notes = notes::Known {
        options,
        documents: &documents,
        read: &read,
        split: &split,
        tokenizer: &tokenizer,
        losses,
    };
    let summary = Summary {
        version: SUMMARY_VERSION,
        inputs: documents.names(),
        notes: notes.all(),
        read: read.stats,
        seed: options.seed,
        valid_fraction: options.valid_fraction,
        tokenizer: TokenizerSummary::new(&tokenizer),
        train: SplitSummary::new(&written[TRAIN]),
        valid: SplitSummary::new(&written[VALID]),
    };
    out.publish(written, &tokenizer, &summary)?;
    Ok(summary)
}

fn check_fraction(fraction: f64) -> Result<()> {
    if fraction > 0.0 && fraction < 1.0 {
        return Ok(());
    }
    Err(Error::Option {
        option: "--valid-fraction",
        expected: "more than 0 and less than 1",
        got: fraction.to_string(),
    })
}

/// The result of the first pass.
struct Read {
    stats: CorpusStats,
    /// How often each of [`EOD_NAMES`] occurs in the texts.
    spelled_ends: [u64; EOD_NAMES.len()],
}

fn survey(
    options: &PrepareOptions,
    documents: &Opened,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Split, Read)> {
    let finders = EOD_NAMES.map(memchr::memmem::Finder::new);
    let mut spelled_ends = [0; EOD_NAMES.len()];
    let mut survey = Survey::new(options.seed, options.valid_fraction);
    let stats = documents.visit(&mut |document| {
        survey.add(&document.text);
        for (count, finder) in spelled_ends.iter_mut().zip(&finders) {
            *count += finder.find_iter(document.text.as_bytes()).count() as u64;
        }
        progress(Progress {
            stage: Stage::Survey,
            done: survey.text_bytes(),
            total: None,
        });
        Ok(())
    })?;
    let read = Read {
        stats,
        spelled_ends,
    };
    Ok((survey.finish()?, read))
}

struct Training<'a> {
    vocab_size: usize,
    split: &'a Split,
}

impl Training<'_> {
    fn run(&self, documents: &Opened, progress: &mut dyn FnMut(Progress)) -> Result<Tokenizer> {
        let mut sample = self.split.sample(BPE_SAMPLE_BYTES);
        let mut trainer = Trainer::new(self.vocab_size)?;
        let mut index = 0;
        let mut done = 0;
        documents.visit(&mut |document| {
            let [train, _] = self.split.parts(index, &document.text);
            sample.take(train, |text| trainer.add(text.to_owned()));
            index += 1;
            done += document.text.len() as u64;
            progress(Progress {
                stage: Stage::Sample,
                done,
                total: Some(self.split.text_bytes()),
            });
            Ok(())
        })?;
        trainer.finish(&mut |done, total| {
            progress(Progress {
                stage: Stage::TrainTokenizer,
                done,
                total: Some(total),
            });
        })
    }
}

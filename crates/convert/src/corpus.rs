//! Conversion of datasets from and to the token data of Megatron-LM and GPT-NeoX.

use std::path::{Path, PathBuf};

use tokenformer_data::{Dataset, ImportOptions, Summary, TokenFile, Tokenizer, TokenizerSpec};
pub use tokenformer_formats::megatron::files;
use tokenformer_formats::megatron::{MegatronData, MegatronWriter};

use crate::{Error, Result};

/// What to import and where to write it.
#[derive(Clone, Debug)]
pub struct ImportCorpus {
    /// Prefix of the `.bin` and `.idx` files, or the path of either.
    pub prefix: PathBuf,
    /// The tokenizer that made the tokens; it cannot be trained here.
    pub tokenizer: TokenizerSpec,
    /// The dataset folder to make.
    pub out: PathBuf,
    /// Share of the text kept for validation.
    pub valid_fraction: f64,
    /// Seed of the split.
    pub seed: u64,
    /// Whether to replace an existing dataset.
    pub force: bool,
}

/// Makes a dataset from token data. `progress` is called with (documents read, documents to read in both passes).
///
/// A document of several sequences becomes one; tokens stay as they are.
///
/// # Errors
/// When the data or the tokenizer is damaged, a token is outside the tokenizer's vocabulary, there are too few tokens
/// for two splits, or the folder cannot be written.
pub fn import(options: &ImportCorpus, progress: impl FnMut(u64, u64)) -> Result<Summary> {
    let tokenizer = known(
        &options.tokenizer,
        "the tokenizer that made the tokens: bytes, gpt2 or a tokenizer.json",
        "tokens have no text to train on; give the file",
    )?;
    let data = MegatronData::open(&options.prefix)?;
    data.check_vocab(tokenizer.vocab_size() as u64)?;
    let import = ImportOptions {
        label: data.path().display().to_string(),
        tokenizer,
        out: options.out.clone(),
        seed: options.seed,
        valid_fraction: options.valid_fraction,
        force: options.force,
    };
    let read = |document: u64, tokens: &mut Vec<u32>| {
        tokens.clear();
        let sequences = usize::try_from(document)
            .ok()
            .and_then(|index| data.document(index));
        for sequence in sequences.into_iter().flatten() {
            let from = tokens.len();
            tokens.resize(from + data.sequence_tokens(sequence).unwrap_or(0), 0);
            let (_, out) = tokens.split_at_mut(from);
            data.read(sequence, 0, out)?;
        }
        Ok::<(), Error>(())
    };
    tokenformer_data::import(&import, data.documents() as u64, read, progress)
}

/// The given tokenizer, which cannot be trained here.
pub(crate) fn known(spec: &TokenizerSpec, expected: &str, help: &'static str) -> Result<Tokenizer> {
    Tokenizer::from_spec(spec)?.ok_or_else(|| Error::NotPublishable {
        place: "--tokenizer".into(),
        expected: expected.into(),
        got: spec.to_string(),
        help,
    })
}

/// Which documents of a dataset are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Training documents.
    Train,
    /// Validation documents.
    Valid,
    /// All documents, training documents first.
    All,
}

/// What was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportedCorpus {
    /// Number of training documents.
    pub train_documents: u64,
    /// Number of validation documents, which follow the training documents.
    pub valid_documents: u64,
    /// Total number of tokens.
    pub tokens: u64,
}

/// Writes the documents of a dataset as `PREFIX.bin` and `PREFIX.idx`, one sequence each, in the order of the dataset;
/// [`files`] gives their paths. `progress` is called with (tokens written, tokens in all).
///
/// # Errors
/// When the dataset is damaged, a document has 2³¹ tokens or more, or the files cannot be written.
pub fn export(
    dataset: &Path,
    prefix: &Path,
    part: Part,
    mut progress: impl FnMut(u64, u64),
) -> Result<ExportedCorpus> {
    let dataset = Dataset::open(dataset)?;
    let files: &[&TokenFile] = match part {
        Part::Train => &[&dataset.train],
        Part::Valid => &[&dataset.valid],
        Part::All => &[&dataset.train, &dataset.valid],
    };
    let total: u64 = files.iter().map(|file| file.len() as u64).sum();
    let mut writer = MegatronWriter::create(prefix, dataset.tokenizer.vocab_size() as u64)?;
    let mut tokens = Vec::new();
    let mut done = 0;
    for file in files {
        for bounds in (0..file.doc_count()).filter_map(|document| file.doc_bounds(document)) {
            tokens.resize(bounds.len(), 0);
            file.read(bounds.start, &mut tokens)?;
            writer.add_document(&tokens)?;
            done += tokens.len() as u64;
            progress(done, total);
        }
    }
    writer.finish()?;
    let documents =
        |wanted: bool, file: &TokenFile| if wanted { file.doc_count() as u64 } else { 0 };
    Ok(ExportedCorpus {
        train_documents: documents(part != Part::Valid, &dataset.train),
        valid_documents: documents(part != Part::Train, &dataset.valid),
        tokens: total,
    })
}

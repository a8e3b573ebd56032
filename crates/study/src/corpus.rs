//! The text of a study.

use crate::profile::Profile;
use crate::text;
use std::path::{Path, PathBuf};
use tokenformer_data::{
    Corpus as Files, CorpusOptions, Dataset, DocumentSource, PrepareOptions, TokenizerSpec,
    WindowSampler,
};
use tokenformer_train::{Error, Result};

/// The description that makes a folder a dataset.
const DATASET: &str = "dataset.json";
/// The tokenizer in it.
const TOKENIZER: &str = "tokenizer.json";
/// Text below which the held-out part is called small, in bytes.
const FEW_HELD_OUT_BYTES: u64 = 1_500_000;
/// Largest share of the text that is held out.
const MAX_HELD_OUT: f64 = 0.2;
/// Bytes of the text that a profile without a corpus makes itself.
const MADE_UP_BYTES: usize = 1_000_000;

/// A dataset, ready to train on.
#[derive(Debug)]
pub struct Corpus {
    /// Its folder.
    pub dir: PathBuf,
    /// Hash of the training text, the held-out text and the tokenizer.
    pub id: String,
    /// The dataset.
    pub dataset: Dataset,
    /// Tokens of an epoch.
    pub epoch_tokens: u64,
}

/// The text of a study, ready or to be prepared.
pub enum Source {
    /// A dataset that is ready.
    Ready(PathBuf),
    /// Text to prepare, and the folder of the dataset.
    Prepare(Box<PrepareOptions>),
}

/// The text that `profile` trains on: a dataset or a folder of text at `given`, or else text that the profile
/// generates. A prepared dataset is stored in `data` and reused if it was made from the same inputs.
///
/// # Errors
/// If the profile needs a corpus and none is given, the text cannot be read, or `data` holds another dataset.
pub fn source(profile: &Profile, given: Option<&Path>, data: &Path) -> Result<Source> {
    if let Some(dir) = given.filter(|dir| dir.join(DATASET).exists()) {
        return Ok(Source::Ready(dir.into()));
    }
    let text = match given {
        Some(folder) => Text::of_folder(folder, data)?,
        None if profile.vocab.is_none() => Text::made_up(&text::FIRST),
        None => {
            return Err(Error::Recipe {
                place: "--corpus".into(),
                problem: format!("the profile {} has no text of its own", profile.name),
                expected: "a folder of text, or a dataset made by `data prepare`".into(),
                got: "nothing".into(),
                help: "tens of megabytes of clean text do; --profile smoke makes its own".into(),
            });
        }
    };
    let tokenizer = match profile.vocab {
        Some(vocab_size) => TokenizerSpec::TrainBpe { vocab_size },
        None => TokenizerSpec::Bytes,
    };
    prepared(profile, text, tokenizer, data)
}

/// The text of another kind that trained models learn: a dataset with the tokenizer of `first`, a folder of text, or else text
/// that a profile without a corpus makes; `None` if there is none. It is stored in `data` as that of [`source`].
///
/// # Errors
/// As [`source`], and if a dataset has another tokenizer.
pub fn second_source(
    profile: &Profile,
    first: (&Corpus, Option<&Path>),
    given: Option<&Path>,
    data: &Path,
) -> Result<Option<Source>> {
    let (corpus, of_first) = first;
    if let Some(dir) = given.filter(|dir| dir.join(DATASET).exists()) {
        let tokenizer = Dataset::open(dir)?.tokenizer;
        let expected = &corpus.dataset.tokenizer;
        if tokenizer.fingerprint() != expected.fingerprint() {
            return Err(Error::Recipe {
                place: "--second".into(),
                problem: "the dataset has another tokenizer than --corpus".into(),
                expected: expected.describe(),
                got: tokenizer.describe(),
                help: "name the folder of its text; the study prepares it".into(),
            });
        }
        return Ok(Some(Source::Ready(dir.into())));
    }
    let text = match (given, of_first) {
        (Some(folder), _) => Text::of_folder(folder, data)?,
        (None, None) => Text::made_up(&text::SECOND),
        (None, Some(_)) => return Ok(None),
    };
    let tokenizer = match profile.vocab {
        None if of_first.is_none() => TokenizerSpec::Bytes,
        _ => TokenizerSpec::File(corpus.dir.join(TOKENIZER)),
    };
    prepared(profile, text, tokenizer, data).map(Some)
}

/// Documents to prepare.
struct Text {
    documents: DocumentSource,
    name: String,
    bytes: u64,
}

impl Text {
    /// All files in `folder`, but for a study in it, whose dataset will be `data`.
    fn of_folder(folder: &Path, data: &Path) -> Result<Self> {
        let mut options = CorpusOptions::new(vec![folder.into()]);
        options.left_out.extend(data.parent().map(Into::into));
        Ok(Self {
            bytes: Files::open(options.clone())?.visit(|_| Ok(()))?.text_bytes,
            documents: DocumentSource::Paths(options),
            name: folder.display().to_string(),
        })
    }

    fn made_up(language: &text::Language) -> Self {
        Self {
            documents: DocumentSource::Memory {
                label: language.name.into(),
                documents: text::documents(language, MADE_UP_BYTES),
            },
            name: language.name.into(),
            bytes: MADE_UP_BYTES as u64,
        }
    }
}

/// Whether a vocabulary is that of a profile. A text of few words has not as many tokens as are asked for.
fn fits(profile: &Profile, vocab: usize) -> bool {
    let is_of_another = || {
        Profile::all()
            .iter()
            .any(|other| other.vocab == Some(vocab))
    };
    profile
        .vocab
        .is_none_or(|own| own == vocab || (vocab < own && !is_of_another()))
}

/// A dataset of `text` in `data`: the one that is there, or one to prepare.
fn prepared(
    profile: &Profile,
    text: Text,
    tokenizer: TokenizerSpec,
    data: &Path,
) -> Result<Source> {
    if data.join(DATASET).exists() {
        let summary = Dataset::open(data)?.summary;
        let is_of_these =
            summary.inputs == [text.name.clone()] && fits(profile, summary.tokenizer.vocab_size);
        let bytes = (summary.read.text_bytes, text.bytes);
        let (problem, expected, got) = match &text.documents {
            _ if !is_of_these => {
                let problem = "the study there has another corpus";
                (problem, text.name, summary.inputs.join(", "))
            }
            DocumentSource::Paths(_) if bytes.0 != bytes.1 => {
                let problem = "the corpus has changed since the study there began";
                (
                    problem,
                    format!("{} bytes of text", bytes.0),
                    bytes.1.to_string(),
                )
            }
            _ => return Ok(Source::Ready(data.into())),
        };
        return Err(Error::Recipe {
            place: "--out".into(),
            problem: problem.into(),
            expected,
            got,
            help: format!(
                "choose another --out; or remove {} if no result needs it",
                data.display()
            ),
        });
    }
    let share = profile.held_out_bytes as f64 / text.bytes.max(1) as f64;
    let mut options = PrepareOptions::new(text.documents, data.into());
    options.tokenizer = tokenizer;
    options.valid_fraction = share.min(MAX_HELD_OUT).clamp(1e-6, 0.5);
    Ok(Source::Prepare(Box::new(options)))
}

impl Corpus {
    /// Opens a dataset.
    ///
    /// # Errors
    /// If it is damaged or too short.
    pub fn open(dir: &Path, context: usize) -> Result<Self> {
        let dataset = Dataset::open(dir)?;
        let mut hasher = blake3::Hasher::new();
        let hashes = [
            dataset.train.hash(),
            dataset.valid.hash(),
            dataset.tokenizer.fingerprint(),
        ];
        for hash in hashes {
            hasher.update(hash.as_bytes());
        }
        let windows = WindowSampler::new(&dataset.train, context, 0)?.windows_per_epoch();
        Ok(Self {
            dir: dir.into(),
            id: hasher.finalize().to_hex()[..16].to_string(),
            epoch_tokens: windows * context as u64,
            dataset,
        })
    }

    /// Notes for the reader, in sentences.
    pub fn notes(&self) -> Vec<String> {
        let held_out = self.dataset.valid.text_bytes();
        let documents = self.dataset.valid.doc_count();
        let mut notes = vec![format!(
            "Held out are {held_out} bytes in whole documents ({documents}); {} tokens are trained on.",
            self.epoch_tokens
        )];
        if held_out < FEW_HELD_OUT_BYTES {
            notes.push(format!(
                "The held-out text is shorter than {FEW_HELD_OUT_BYTES} bytes: losses are less certain."
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_few_words_has_fewer_tokens_than_asked_for() {
        let [laptop, gpu] = ["laptop", "gpu"].map(|name| Profile::named(name).expect("a profile"));
        let own = |profile: &Profile| profile.vocab.expect("a size");
        for (profile, vocab, is_its) in [
            (&laptop, own(&laptop), true),
            (&laptop, 321, true),
            (&laptop, own(&gpu), false),
            (&gpu, own(&gpu) - 1, true),
            // The size of the other profile: the folder may belong to a study of that profile.
            (&gpu, own(&laptop), false),
        ] {
            assert_eq!(fits(profile, vocab), is_its, "{} {vocab}", profile.name);
        }
    }
}

//! Opens a dataset folder and verifies it completely.

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::file_names;
use crate::prepare::{SUMMARY_VERSION, SplitSummary, Summary};
use crate::tokenizer::Tokenizer;
use crate::tokens::TokenFile;

/// Size limit of `dataset.json`. Real ones have a few thousand bytes, most of them names of inputs.
const MAX_SUMMARY_BYTES: u64 = 16 << 20;

/// A dataset as [`prepare`](crate::prepare::prepare) wrote it.
#[derive(Debug)]
pub struct Dataset {
    /// The description in `dataset.json`.
    pub summary: Summary,
    /// The tokenizer of its token ids.
    pub tokenizer: Tokenizer,
    /// The training tokens.
    pub train: TokenFile,
    /// The validation tokens.
    pub valid: TokenFile,
}

impl Dataset {
    /// Opens the four files of a dataset folder and checks that they belong together.
    ///
    /// # Errors
    /// A file is missing, damaged or from another dataset.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(file_names::DATASET);
        let json = read_summary(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if dir.is_dir() => Error::Dataset {
                path: dir.to_owned(),
                problem: "not a dataset",
                expected: "a folder with dataset.json, which is written last".into(),
                got: "a folder without it".into(),
            },
            _ => Error::io("read", &path)(error),
        })?;
        let summary = parse_summary(&path, &json)?;
        let tokenizer_path = dir.join(file_names::TOKENIZER);
        let tokenizer = Tokenizer::from_file(&tokenizer_path)?;
        let expected = &summary.tokenizer;
        check(
            &tokenizer_path,
            "the tokenizer is not the one that dataset.json names",
            (&expected.fingerprint, expected.vocab_size, expected.eod),
            (
                &tokenizer.fingerprint(),
                tokenizer.vocab_size(),
                tokenizer.eod(),
            ),
        )?;
        let train = open_split(&dir.join(file_names::TRAIN), &summary.train, &tokenizer)?;
        let valid = open_split(&dir.join(file_names::VALID), &summary.valid, &tokenizer)?;
        Ok(Self {
            summary,
            tokenizer,
            train,
            valid,
        })
    }
}

/// The summary of a dataset folder, after checking all of its files.
///
/// # Errors
/// As [`Dataset::open`].
pub fn inspect(dir: &Path) -> Result<Summary> {
    Dataset::open(dir).map(|dataset| dataset.summary)
}

/// The bytes of `dataset.json`, up to one more than the limit, so that a larger file is noticed.
fn read_summary(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_SUMMARY_BYTES + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse_summary(path: &Path, json: &[u8]) -> Result<Summary> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let damaged = |error: serde_json::Error| Error::Dataset {
        path: path.to_owned(),
        problem: "not the description of a dataset",
        expected: "JSON as `tokenformer data prepare` writes it".into(),
        got: error.to_string(),
    };
    if json.len() as u64 > MAX_SUMMARY_BYTES {
        return Err(Error::Dataset {
            path: path.to_owned(),
            problem: "not the description of a dataset",
            expected: format!("at most {MAX_SUMMARY_BYTES} bytes"),
            got: "more".into(),
        });
    }
    let Version { version } = serde_json::from_slice(json).map_err(damaged)?;
    check(path, "unknown version", SUMMARY_VERSION, version)?;
    serde_json::from_slice(json).map_err(damaged)
}

fn open_split(path: &Path, expected: &SplitSummary, tokenizer: &Tokenizer) -> Result<TokenFile> {
    let file = TokenFile::open(path)?;
    let got = SplitSummary {
        documents: file.doc_count() as u64,
        text_bytes: file.text_bytes(),
        tokens: file.len() as u64,
        hash: file.hash(),
    };
    check(path, "not the token file of the dataset", expected, &got)?;
    let vocab_sizes = (tokenizer.vocab_size(), file.vocab_size());
    check(path, "another vocabulary", vocab_sizes.0, vocab_sizes.1)?;
    Ok(file)
}

fn check<T: PartialEq + std::fmt::Debug>(
    path: &Path,
    problem: &'static str,
    expected: T,
    got: T,
) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Dataset {
        path: path.to_owned(),
        problem,
        expected: format!("{expected:?}"),
        got: format!("{got:?}"),
    })
}

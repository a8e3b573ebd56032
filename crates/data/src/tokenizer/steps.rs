//! The normalizers and pre-tokenizers of a file, applied so that no characters are lost silently.
//!
//! If a regular expression fails on a text, the tokenizers crate continues with the rest of the text as it is, and it
//! does not report characters that a step removes. So steps with expressions are applied here, and for the other steps
//! of the crate the removed characters are counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pattern::{Invert, Pattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, Offsets, PreTokenizedString,
    PreTokenizer, SplitDelimiterBehavior,
};

use super::words;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The `type` of a part of a file.
pub(super) fn kind(part: &Value) -> Option<&str> {
    part.get("type").and_then(Value::as_str)
}

/// A boolean setting of a part.
pub(super) fn flag(part: &Value, key: &str, default: bool) -> bool {
    part.get(key).and_then(Value::as_bool).unwrap_or(default)
}

/// A part as a flat list: sequences are replaced by the parts inside them.
pub(super) fn parts<'a>(part: Option<&'a Value>, list: &str) -> Vec<&'a Value> {
    let Some(part) = part.filter(|part| !part.is_null()) else {
        return Vec::new();
    };
    match part.get(list).and_then(Value::as_array) {
        Some(inner) if kind(part) == Some("Sequence") => {
            let inner = inner.iter().map(|part| parts(Some(part), list));
            inner.flatten().collect()
        }
        _ => vec![part],
    }
}

/// Limit of backtracking steps for one match. The library's own limit of a million suffices only for texts of a few
/// lines, because an expression that looks ahead takes a step for each character that it skips.
const MOST_STEPS_BACK: usize = 1 << 31;

/// A regular expression that returns an error when it exceeds its limit.
struct Strict(Regex);

impl Strict {
    /// Made from `{"Regex": …}` or `{"String": …}`.
    fn new(pattern: &Value) -> Option<Self> {
        let text = |key| pattern.get(key).and_then(Value::as_str);
        let expression = match (text("Regex"), text("String")) {
            (Some(expression), _) => expression.into(),
            (None, Some(text)) => fancy_regex::escape(text),
            (None, None) => return None,
        };
        let mut builder = RegexBuilder::new(&expression);
        builder.backtrack_limit(MOST_STEPS_BACK);
        builder.build().ok().map(Self)
    }
}

impl Pattern for &Strict {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut matches = Vec::new();
        let mut end = 0;
        for found in self.0.find_iter(inside) {
            let found =
                found.map_err(|error| format!("the expression {} gave up: {error}", self.0))?;
            if end < found.start() {
                matches.push(((end, found.start()), false));
            }
            matches.push(((found.start(), found.end()), true));
            end = found.end();
        }
        if end < inside.len() {
            matches.push(((end, inside.len()), false));
        }
        Ok(matches)
    }
}

/// A pattern that matches the words of GPT-2, which are found without a regular expression.
struct Words;

impl Pattern for Words {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut matches = Vec::new();
        let mut start = 0;
        words::each(inside, |word| {
            let end = start + word.len();
            matches.push(((start, end), true));
            start = end;
        });
        Ok(matches)
    }
}

enum Normalize {
    Replace { pattern: Strict, content: String },
    Other(NormalizerWrapper),
}

enum Split {
    Regex {
        pattern: Strict,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
    /// The pre-tokenizer of byte-level encodings with its own expression.
    ByteLevel {
        add_prefix_space: bool,
    },
    Other(PreTokenizerWrapper),
}

/// All steps before the model.
pub(super) struct Steps {
    normalizers: Vec<Normalize>,
    splits: Vec<Split>,
}

impl Steps {
    /// Made from a file from which the tokenizers crate was built successfully.
    pub(super) fn new(file: &Value) -> Result<Self, AnyError> {
        let mut normalizers = Vec::new();
        for part in parts(file.get("normalizer"), "normalizers") {
            normalizers.push(
                match (kind(part), part.get("pattern").and_then(Strict::new)) {
                    (Some("Replace"), Some(pattern)) => Normalize::Replace {
                        pattern,
                        content: part["content"].as_str().unwrap_or_default().to_owned(),
                    },
                    _ => Normalize::Other(serde_json::from_value(part.clone())?),
                },
            );
        }
        let mut splits = Vec::new();
        for part in parts(file.get("pre_tokenizer"), "pretokenizers") {
            splits.push(
                match (kind(part), part.get("pattern").and_then(Strict::new)) {
                    (Some("Split"), Some(pattern)) => Split::Regex {
                        pattern,
                        behavior: serde_json::from_value(part["behavior"].clone())?,
                        invert: flag(part, "invert", false),
                    },
                    (Some("ByteLevel"), _) if flag(part, "use_regex", true) => Split::ByteLevel {
                        add_prefix_space: flag(part, "add_prefix_space", true),
                    },
                    _ => Split::Other(serde_json::from_value(part.clone())?),
                },
            );
        }
        Ok(Self {
            normalizers,
            splits,
        })
    }

    /// A normalizer for one text.
    pub(super) fn normalizer(&self) -> Watched<'_> {
        Watched {
            steps: &self.normalizers,
            dropped: AtomicU64::new(0),
            error: Mutex::new(None),
        }
    }

    /// Splits a text; returns the number of characters that were removed.
    pub(super) fn split(&self, text: &mut PreTokenizedString) -> Result<u64, AnyError> {
        let mut dropped = 0;
        for step in &self.splits {
            match step {
                Split::Regex {
                    pattern,
                    behavior,
                    invert,
                } => {
                    let before = chars_if(*behavior == SplitDelimiterBehavior::Removed, text);
                    text.split(|_, piece| match invert {
                        true => piece.split(Invert(pattern), *behavior),
                        false => piece.split(pattern, *behavior),
                    })?;
                    dropped += before.map_or(0, |before| before - chars(text));
                }
                Split::ByteLevel { add_prefix_space } => {
                    text.split(|_, mut piece| {
                        if *add_prefix_space && !piece.get().starts_with(' ') {
                            piece.prepend(" ");
                        }
                        piece.split(Words, SplitDelimiterBehavior::Isolated)
                    })?;
                    ByteLevel::new(false, false, false).pre_tokenize(text)?;
                }
                Split::Other(step) => {
                    let before = chars_if(may_drop(step), text);
                    step.pre_tokenize(text)?;
                    dropped += before.map_or(0, |before| before.saturating_sub(chars(text)));
                }
            }
        }
        Ok(dropped)
    }
}

/// Whether a step removes white space or delimiters from a text.
fn may_drop(step: &PreTokenizerWrapper) -> bool {
    !matches!(
        step,
        PreTokenizerWrapper::ByteLevel(_)
            | PreTokenizerWrapper::Metaspace(_)
            | PreTokenizerWrapper::Digits(_)
            | PreTokenizerWrapper::UnicodeScripts(_)
            | PreTokenizerWrapper::FixedLength(_)
    )
}

fn chars(text: &PreTokenizedString) -> u64 {
    let pieces = text.get_splits(OffsetReferential::Original, OffsetType::None);
    let counts = pieces
        .iter()
        .map(|(piece, ..)| piece.chars().count() as u64);
    counts.sum()
}

fn chars_if(wanted: bool, text: &PreTokenizedString) -> Option<u64> {
    wanted.then(|| chars(text))
}

/// Normalizers that record the number of removed characters, and the error that the tokenizers crate ignores.
pub(super) struct Watched<'a> {
    steps: &'a [Normalize],
    dropped: AtomicU64,
    error: Mutex<Option<AnyError>>,
}

impl Watched<'_> {
    /// The number of characters removed from the text, or the first error.
    pub(super) fn finish(self) -> Result<u64, AnyError> {
        match self
            .error
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            Some(error) => Err(error),
            None => Ok(self.dropped.into_inner()),
        }
    }

    fn apply(&self, text: &mut NormalizedString) -> Result<(), AnyError> {
        let count = |text: &NormalizedString| text.get().chars().count() as u64;
        for step in self.steps {
            match step {
                Normalize::Replace { pattern, content } => {
                    let before = content.is_empty().then(|| count(text));
                    text.replace(pattern, content)?;
                    self.add(before.map_or(0, |before| before - count(text)));
                }
                Normalize::Other(step) => {
                    let before = takes_out(step).then(|| count(text));
                    step.normalize(text)?;
                    self.add(before.map_or(0, |before| before.saturating_sub(count(text))));
                }
            }
        }
        Ok(())
    }

    fn add(&self, dropped: u64) {
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
    }
}

/// Whether a normalizer removes characters and inserts none; the normal forms combine and decompose them instead.
fn takes_out(step: &NormalizerWrapper) -> bool {
    matches!(
        step,
        NormalizerWrapper::StripNormalizer(_)
            | NormalizerWrapper::StripAccents(_)
            | NormalizerWrapper::BertNormalizer(_)
            | NormalizerWrapper::Nmt(_)
    )
}

impl Normalizer for Watched<'_> {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        if let Err(error) = self.apply(text) {
            let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
        }
        Ok(())
    }
}

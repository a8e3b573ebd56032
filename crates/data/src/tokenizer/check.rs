//! Checks a `tokenizer.json` before the tokenizers crate builds from it.
//!
//! That crate trusts its files in some places (a merge whose result is not in the vocabulary, a prefix that cuts a
//! character), so what it does not check is checked here.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::{Error, Result};

/// A tokenizer error without the file's name.
pub(super) struct Refusal {
    problem: String,
    expected: &'static str,
    help: &'static str,
}

impl Refusal {
    pub(super) fn at(self, location: &str) -> Error {
        Error::TokenizerFile {
            location: location.to_owned(),
            problem: self.problem,
            expected: self.expected,
            help: self.help,
        }
    }
}

const OTHER_FILE: &str = "use another file, `bytes`, or train one with bpe:SIZE";

pub(super) fn refuse(problem: impl Into<String>, expected: &'static str) -> Refusal {
    Refusal {
        problem: problem.into(),
        expected,
        help: OTHER_FILE,
    }
}

/// Parses the JSON of a tokenizer.
pub(super) fn parse(bytes: &[u8], max_bytes: u64, location: &str) -> Result<Value> {
    const EXPECTED: &str = "a Hugging Face tokenizer.json with a BPE model";
    if bytes.len() as u64 > max_bytes {
        let problem = format!("the file is larger than {max_bytes} bytes");
        return Err(refuse(problem, EXPECTED).at(location));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| refuse(format!("not JSON: {error}"), EXPECTED).at(location))
}

/// Whether this is the file that [`save`](super::Tokenizer::save) writes for the byte tokenizer.
pub(super) fn is_bytes(value: &Value, location: &str) -> Result<bool> {
    if value.get("type").and_then(Value::as_str) != Some("bytes") {
        return Ok(false);
    }
    match value.get("version") {
        Some(version) if version.as_u64() == Some(1) => Ok(true),
        version => {
            let version = version.map_or("none".into(), Value::to_string);
            let problem = format!("version {version} of the byte tokenizer is unknown");
            Err(refuse(problem, "{\"version\":1,\"type\":\"bytes\"}").at(location))
        }
    }
}

/// Checks a Hugging Face tokenizer and removes the parts that are not applied (see `Tokenizer::from_file`).
pub(super) fn prepare(value: &mut Value) -> Result<(), Refusal> {
    let Value::Object(root) = value else {
        return Err(refuse("not an object", "an object with the key \"model\""));
    };
    for unused in ["truncation", "padding", "post_processor"] {
        root.insert(unused.to_owned(), Value::Null);
    }
    let mut patterns = Patterns::default();
    for part in ["normalizer", "pre_tokenizer", "decoder"] {
        if let Some(part) = root.get(part) {
            check_growth(part)?;
            patterns.check(part)?;
        }
    }
    let Some(Value::Object(model)) = root.get_mut("model") else {
        return Err(refuse("no \"model\"", "an object with the key \"model\""));
    };
    // Old files have no type; only a BPE has merges.
    let kind = match model.get("type") {
        Some(kind) => kind.as_str().unwrap_or("of an unknown type"),
        None if model.contains_key("merges") => "BPE",
        None => "without a type",
    };
    if kind != "BPE" {
        return Err(refuse(
            format!("the model is {kind}"),
            "a BPE model (\"type\": \"BPE\")",
        ));
    }
    model.insert("dropout".into(), Value::Null);
    let prefix = model.get("continuing_subword_prefix");
    if !matches!(prefix, None | Some(Value::Null)) && prefix.and_then(Value::as_str) != Some("") {
        return Err(refuse(
            "\"continuing_subword_prefix\" is not supported",
            "null or an empty string",
        ));
    }
    let vocab = check_vocab(model.get("vocab"))?;
    check_merges(model.get("merges"), &vocab)
}

fn check_vocab(vocab: Option<&Value>) -> Result<HashMap<&str, u32>, Refusal> {
    const EXPECTED: &str = "\"vocab\" maps each token to its own id, counting from 0";
    let Some(Value::Object(vocab)) = vocab else {
        return Err(refuse("no \"vocab\"", EXPECTED));
    };
    if vocab.is_empty() {
        return Err(refuse("the vocabulary is empty", EXPECTED));
    }
    // Ids are rows of an embedding, so a very large one would take memory that the file does not justify.
    let limit = vocab.len().saturating_mul(2).saturating_add(1024);
    let mut seen = vec![false; limit];
    let mut ids = HashMap::with_capacity(vocab.len());
    for (token, id) in vocab {
        let slot = id
            .as_u64()
            .and_then(|id| usize::try_from(id).ok())
            .and_then(|id| seen.get_mut(id));
        let (Some(slot), Some(id)) = (slot, id.as_u64().and_then(|id| u32::try_from(id).ok()))
        else {
            let count = vocab.len();
            let problem = format!("the token {token:?} has the id {id} in a vocabulary of {count}");
            return Err(refuse(problem, EXPECTED));
        };
        if std::mem::replace(slot, true) {
            return Err(refuse(format!("two tokens have the id {id}"), EXPECTED));
        }
        ids.insert(token.as_str(), id);
    }
    Ok(ids)
}

fn check_merges(merges: Option<&Value>, vocab: &HashMap<&str, u32>) -> Result<(), Refusal> {
    const EXPECTED: &str = "\"merges\" lists pairs of tokens whose join is a token too";
    let Some(Value::Array(merges)) = merges else {
        return Err(refuse("no \"merges\"", EXPECTED));
    };
    for (index, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(merge) => merge.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(a), Value::String(b)] => Some((a.as_str(), b.as_str())),
                _ => None,
            },
            _ => None,
        };
        let is_known = pair.is_some_and(|(a, b)| {
            vocab.contains_key(a)
                && vocab.contains_key(b)
                && vocab.contains_key(format!("{a}{b}").as_str())
        });
        // Old files begin with this version line.
        let is_comment = merge
            .as_str()
            .is_some_and(|merge| merge.starts_with("#version"));
        if !is_known && !is_comment {
            let problem = format!("merge {index} is {merge}");
            return Err(refuse(problem, EXPECTED));
        }
    }
    Ok(())
}

/// By what factor a chain of replacements may lengthen a text.
const MAX_GROWTH: usize = 256;

/// Returns an error for parts that could lengthen a text without bound, or that rely on binary tables in the file.
fn check_growth(part: &Value) -> Result<(), Refusal> {
    fn growth(part: &Value, depth: usize) -> Result<usize, Refusal> {
        const EXPECTED: &str = "parts as byte-pair encodings use them";
        if depth > 8 {
            return Err(refuse("parts are nested too deeply", EXPECTED));
        }
        match part.get("type").and_then(Value::as_str) {
            Some("Precompiled") => Err(refuse("a \"Precompiled\" part is not supported", EXPECTED)),
            Some("Replace") => {
                let content = part.get("content").and_then(Value::as_str).unwrap_or("");
                let literal = part
                    .pointer("/pattern/String")
                    .and_then(Value::as_str)
                    .map_or(0, str::len);
                Ok(match literal {
                    0 => content.len().saturating_add(1),
                    length => content.len().div_ceil(length).max(1),
                })
            }
            Some("Prepend") => {
                let prepend = part.get("prepend").and_then(Value::as_str).unwrap_or("");
                Ok(prepend.len().saturating_add(1))
            }
            // A byte becomes a character of two bytes; a space becomes one of three.
            Some("ByteLevel") => Ok(2),
            Some("Metaspace") => Ok(3),
            Some("Sequence") => {
                let parts = ["normalizers", "pretokenizers", "decoders"]
                    .iter()
                    .filter_map(|key| part.get(*key).and_then(Value::as_array))
                    .flatten();
                let mut product = 1_usize;
                for part in parts {
                    product = product.saturating_mul(growth(part, depth + 1)?);
                }
                Ok(product)
            }
            _ => Ok(1),
        }
    }
    let growth = growth(part, 0)?;
    if growth > MAX_GROWTH {
        return Err(refuse(
            format!("its replacements can make a text {growth} times longer"),
            "replacements that keep a text about as long as it is",
        ));
    }
    Ok(())
}

/// The regular expressions of a file. The library that compiles them can take 25 MB or more even for a short one.
#[derive(Default)]
struct Patterns {
    count: usize,
    bytes: usize,
    /// Product of all counted repetitions, such as 3 for `{1,3}`.
    repetitions: Option<usize>,
}

impl Patterns {
    /// Adds the expressions of a part, and returns an error for more than real tokenizers use.
    fn check(&mut self, part: &Value) -> Result<(), Refusal> {
        const MAX_COUNT: usize = 16;
        const MAX_BYTES: usize = 16 << 10;
        const MAX_REPETITIONS: usize = 256;
        match part {
            Value::Object(entries) => {
                for (key, value) in entries {
                    match value.as_str() {
                        Some(pattern) if key == "Regex" => self.add(pattern),
                        _ => self.check(value)?,
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.check(item)?;
                }
            }
            _ => {}
        }
        let repetitions = self.repetitions.unwrap_or(1);
        if self.count > MAX_COUNT || self.bytes > MAX_BYTES || repetitions > MAX_REPETITIONS {
            return Err(refuse(
                format!(
                    "its regular expressions are too large: {} of {} bytes, repeated {repetitions} times",
                    self.count, self.bytes
                ),
                "at most 16 of 16384 bytes together, whose repetitions multiply to 256 or less",
            ));
        }
        Ok(())
    }

    fn add(&mut self, pattern: &str) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(pattern.len());
        for braces in pattern.split('{').skip(1) {
            let inside = braces.split('}').next().unwrap_or_default();
            let largest = inside
                .split(',')
                .filter_map(|number| number.trim().parse::<usize>().ok())
                .max();
            if let Some(largest) = largest {
                let before = self.repetitions.unwrap_or(1);
                self.repetitions = Some(before.saturating_mul(largest.max(1)));
            }
        }
    }
}

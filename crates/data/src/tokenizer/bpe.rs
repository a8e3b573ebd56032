//! Byte-pair encodings in the Hugging Face format.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::Tokenizer as HfTokenizer;

use super::check::{self, refuse};
use super::plain::Plain;
use super::words::BYTE_CHARS;
use crate::error::{Error, Result};

/// Names of the end-of-document token, the first that exists counts.
const EOD_NAMES: [&str; 3] = ["<|endoftext|>", "</s>", "<eos>"];

/// Bytes per piece of a long text; pieces are encoded in parallel and bound the memory.
const PIECE_BYTES: usize = 256 << 10;

/// How ids become text.
pub(super) enum Decoding {
    /// Each token stands for fixed bytes.
    ByteLevel(TokenBytes),
    /// The decoders of the file, which may look at neighbours.
    Chain,
}

/// A loaded byte-pair encoding.
pub(super) struct Bpe {
    json: Vec<u8>,
    inner: HfTokenizer,
    vocab_size: usize,
    eod: Option<u32>,
    decoding: Decoding,
    /// A text may be cut between two words without changing its tokens.
    is_divisible: bool,
    /// The encoding itself, where it is of the common kind.
    plain: Option<Plain>,
}

impl Bpe {
    /// Builds from `value`, the parsed form of `json`.
    pub(super) fn new(json: Vec<u8>, mut value: Value, location: &str) -> Result<Self> {
        check::prepare(&mut value).map_err(|refusal| refusal.at(location))?;
        let added_ids = added_ids(&value).map_err(|refusal| refusal.at(location))?;
        let is_byte_level =
            value.pointer("/decoder/type").and_then(Value::as_str) == Some("ByteLevel");
        let is_split = value
            .get("pre_tokenizer")
            .is_some_and(|part| !part.is_null());
        let is_divisible = is_byte_level && is_split && adds_nothing(&value);
        let plain = is_divisible.then(|| Plain::new(&value)).flatten();
        let build = || serde_json::from_value::<HfTokenizer>(value);
        // The crate promises no panics for files from outside, hence the guard.
        let inner = catch_unwind(AssertUnwindSafe(build))
            .map_err(|_| "its parts do not fit together".to_owned())
            .and_then(|built| built.map_err(|error| error.to_string()));
        let mut inner = inner.map_err(|reason| {
            refuse(reason, "a Hugging Face tokenizer.json with a BPE model").at(location)
        })?;
        for (token, id) in added_ids {
            let actual = inner.token_to_id(&token);
            if actual != Some(id) {
                let actual = actual.map_or("no id".into(), |actual| format!("the id {actual}"));
                let problem = format!(
                    "the added token {token:?} has the id {id} in the file but would get {actual}"
                );
                return Err(
                    refuse(problem, "added tokens numbered on from the vocabulary").at(location),
                );
            }
        }
        inner.set_encode_special_tokens(true);

        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&max| max as usize + 1);
        let eod = EOD_NAMES.iter().find_map(|name| inner.token_to_id(name));
        let decoding = if is_byte_level {
            Decoding::ByteLevel(TokenBytes::new(&inner, &vocab, vocab_size))
        } else {
            Decoding::Chain
        };
        let bpe = Self {
            json,
            inner,
            vocab_size,
            eod,
            decoding,
            is_divisible,
            plain,
        };
        bpe.try_out(location)?;
        Ok(bpe)
    }

    /// Some settings only fail when used; find out while there is a file to blame.
    fn try_out(&self, location: &str) -> Result<()> {
        let ids = self
            .encode_piece("a B1 \n\n\té中😀 don't  x")
            .map_err(|reason| {
                refuse(
                    format!("it cannot encode a short text: {reason}"),
                    "a tokenizer that can encode any text",
                )
                .at(location)
            })?;
        if ids.is_empty() {
            let expected = "a tokenizer that can encode any text";
            return Err(refuse("it encodes text as nothing", expected).at(location));
        }
        Ok(())
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let pieces = match self.is_divisible {
            true => divide(text, PIECE_BYTES),
            false => vec![text],
        };
        let encoded = match pieces.as_slice() {
            [piece] => self.encode_piece(piece),
            pieces => pieces
                .par_iter()
                .map(|piece| self.encode_piece(piece))
                .collect::<Result<Vec<_>, _>>()
                .map(|pieces| pieces.concat()),
        };
        encoded.map_err(|reason| Error::Encode {
            location: "text".into(),
            reason,
        })
    }

    fn encode_piece(&self, text: &str) -> Result<Vec<u32>, String> {
        if let Some(plain) = &self.plain {
            return Ok(plain.encode(text));
        }
        let encode = || {
            let encoding = self.inner.encode_fast(text, false)?;
            Ok::<_, tokenizers::Error>(encoding.get_ids().to_vec())
        };
        catch_unwind(AssertUnwindSafe(encode))
            .map_err(|_| "its parts do not fit together".to_owned())?
            .map_err(|error| error.to_string())
    }

    /// The text of `ids` by the decoders of the file; the bare tokens if those fail.
    pub(super) fn decode_chain(&self, ids: &[u32]) -> String {
        match catch_unwind(AssertUnwindSafe(|| self.inner.decode(ids, true))) {
            Ok(Ok(text)) => text,
            _ => ids
                .iter()
                .filter_map(|&id| self.inner.id_to_token(id))
                .collect(),
        }
    }

    /// The bytes a token stands for; none where the neighbours decide.
    pub(super) fn token_bytes(&self, id: u32) -> &[u8] {
        match &self.decoding {
            Decoding::ByteLevel(table) => table.get(id),
            Decoding::Chain => &[],
        }
    }

    pub(super) fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    pub(super) fn is_divisible(&self) -> bool {
        self.is_divisible
    }

    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(super) fn eod(&self) -> Option<u32> {
        self.eod
    }
}

/// The added tokens with the ids the file gives them.
fn added_ids(value: &Value) -> Result<Vec<(String, u32)>, check::Refusal> {
    let Some(Value::Array(tokens)) = value.get("added_tokens") else {
        return Ok(Vec::new());
    };
    tokens
        .iter()
        .map(|token| {
            let content = token.get("content").and_then(Value::as_str);
            let id = token.get("id").and_then(Value::as_u64);
            match (content, id.and_then(|id| u32::try_from(id).ok())) {
                (Some(content), Some(id)) if !content.is_empty() => Ok((content.to_owned(), id)),
                _ => Err(refuse(
                    format!("an added token is {token}"),
                    "added tokens with \"content\" and \"id\"",
                )),
            }
        })
        .collect()
}

/// Whether no part of the file puts something in front of a text.
fn adds_nothing(value: &Value) -> bool {
    fn any(value: &Value, test: &dyn Fn(&str, &Value) -> bool) -> bool {
        match value {
            Value::Object(object) => object
                .iter()
                .any(|(key, value)| test(key, value) || any(value, test)),
            Value::Array(items) => items.iter().any(|item| any(item, test)),
            _ => false,
        }
    }
    let adds = |key: &str, value: &Value| {
        (key == "add_prefix_space" && value.as_bool() != Some(false))
            || key == "prepend_scheme"
            || key == "prepend"
    };
    ["normalizer", "pre_tokenizer"]
        .iter()
        .filter_map(|part| value.get(*part))
        .all(|part| !any(part, &adds))
}

/// Cuts a long text into pieces of about `piece_bytes`, only where words part: before a single
/// space or after a single line end, with letters or digits on both sides. There the pre-tokenizers
/// of byte-level encodings part the text as well, so the tokens are those of the whole text.
pub(crate) fn divide(text: &str, piece_bytes: usize) -> Vec<&str> {
    let bytes = text.as_bytes();
    let parts = |at: usize| {
        let before = text[..at].chars().next_back();
        let after = text[at + 1..].chars().next();
        before.is_some_and(char::is_alphanumeric) && after.is_some_and(char::is_alphanumeric)
    };
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut at = piece_bytes;
    while at < bytes.len() {
        let cut = match bytes[at] {
            b' ' if parts(at) => Some(at),
            b'\n' if parts(at) => Some(at + 1),
            _ => None,
        };
        match cut {
            Some(cut) => {
                pieces.push(&text[start..cut]);
                start = cut;
                at = cut + piece_bytes;
            }
            None => at += 1,
        }
    }
    pieces.push(&text[start..]);
    pieces
}

/// The bytes of each token of a byte-level encoding, packed.
pub(super) struct TokenBytes {
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl TokenBytes {
    fn new(inner: &HfTokenizer, vocab: &HashMap<String, u32>, vocab_size: usize) -> Self {
        let to_byte: HashMap<char, u8> = BYTE_CHARS.iter().copied().zip(0..=255).collect();
        let mut tokens: Vec<&str> = vec![""; vocab_size];
        for (token, &id) in vocab {
            if let Some(slot) = tokens.get_mut(id as usize) {
                *slot = token;
            }
        }
        let added = inner.get_added_tokens_decoder();
        let mut table = Self {
            ends: Vec::with_capacity(vocab_size),
            bytes: Vec::new(),
        };
        for (id, token) in (0..).zip(tokens) {
            match added.get(&id) {
                Some(added) if added.special => {}
                Some(added) => table.bytes.extend_from_slice(added.content.as_bytes()),
                None => {
                    let start = table.bytes.len();
                    for c in token.chars() {
                        match to_byte.get(&c) {
                            Some(&byte) => table.bytes.push(byte),
                            None => {
                                // Not a byte-level token after all: it stands for itself.
                                table.bytes.truncate(start);
                                table.bytes.extend_from_slice(token.as_bytes());
                                break;
                            }
                        }
                    }
                }
            }
            table.ends.push(table.bytes.len());
        }
        table
    }

    fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..end]
    }
}

//! Byte-pair encodings in the Hugging Face format.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{
    Model, ModelWrapper, NormalizedString, OffsetReferential, OffsetType, PreTokenizedString,
    Token, Tokenizer as HfTokenizer, normalizer,
};

use super::check::{self, refuse};
use super::cuts::Cuts;
use super::inside::Inside;
use super::losses::{Losses, missing};
use super::plain::Plain;
use super::steps::Steps;
use super::words::BYTE_CHARS;
use crate::error::{Error, Result};

/// Names of the end-of-document token; the first that exists is used.
pub(crate) const EOD_NAMES: [&str; 3] = ["<|endoftext|>", "</s>", "<eos>"];

/// Bytes per piece of a long text. Pieces are encoded in parallel, and their size bounds the memory.
const PIECE_BYTES: usize = 256 << 10;

/// How ids are decoded to text.
pub(super) enum Decoding {
    /// Each token stands for fixed bytes.
    ByteLevel(TokenBytes),
    /// The decoders of the file, which may depend on neighbouring tokens.
    Chain,
}

/// A loaded byte-pair encoding.
pub(super) struct Bpe {
    json: Vec<u8>,
    inner: HfTokenizer,
    vocab_size: usize,
    eod: Option<u32>,
    /// The tokens that replace the end-of-document token where a text contains its name.
    spelled_eod: Vec<u32>,
    /// The token for characters that have no token themselves.
    unknown: Option<u32>,
    decoding: Decoding,
    /// The places at which a text may be cut without changing its tokens.
    cuts: Cuts,
    /// The fast implementation, if the encoding is of the common kind.
    plain: Option<Plain>,
    /// The steps before the model, if it is not.
    steps: Steps,
}

impl Bpe {
    /// Builds from `value`, the parsed form of `json`.
    pub(super) fn new(json: Vec<u8>, mut value: Value, location: &str) -> Result<Self> {
        check::prepare(&mut value).map_err(|refusal| refusal.at(location))?;
        let added_ids = added_ids(&value).map_err(|refusal| refusal.at(location))?;
        let eod_name = eod_name(&value, &added_ids);
        if let Some(name) = eod_name {
            take_from_text(&mut value, name);
        }
        let is_byte_level =
            value.pointer("/decoder/type").and_then(Value::as_str) == Some("ByteLevel");
        let plain = is_byte_level.then(|| Plain::new(&value)).flatten();
        let cuts = match plain {
            Some(_) => Cuts::Words,
            None => Cuts::of(&value),
        };
        let unknown = value.pointer("/model/unk_token").and_then(Value::as_str);
        let unknown = unknown.map(str::to_owned);
        // The vocabulary may be large, so it is moved instead of cloned.
        let before_model = serde_json::json!({
            "normalizer": value.get("normalizer"), "pre_tokenizer": value.get("pre_tokenizer"),
        });
        let inner = build(value).map_err(|reason| {
            refuse(reason, "a Hugging Face tokenizer.json with a BPE model").at(location)
        })?;
        check_added(&inner, &added_ids).map_err(|refusal| refusal.at(location))?;
        let steps = Steps::new(&before_model)
            .map_err(|error| refuse(error.to_string(), "parts as byte-pair encodings use them"))
            .map_err(|refusal| refusal.at(location))?;

        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&max| max as usize + 1);
        let eod = eod_name.and_then(|name| inner.token_to_id(name));
        let decoding = if is_byte_level {
            Decoding::ByteLevel(TokenBytes::new(&inner, &vocab, vocab_size, eod))
        } else {
            Decoding::Chain
        };
        let mut bpe = Self {
            json,
            vocab_size,
            eod,
            spelled_eod: Vec::new(),
            unknown: unknown.and_then(|token| inner.token_to_id(&token)),
            decoding,
            cuts,
            plain,
            steps,
            inner,
        };
        bpe.spelled_eod = eod_name.map_or(Vec::new(), |name| bpe.spelled(name));
        bpe.try_out(location)?;
        Ok(bpe)
    }

    /// Some settings fail only in use. Trying them here gives an error that names the file.
    fn try_out(&self, location: &str) -> Result<()> {
        let (ids, _) = self
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

    /// The tokens of the end-of-document token's name as text: its first character and the rest, so that neither is the
    /// whole name.
    fn spelled(&self, name: &str) -> Vec<u32> {
        let first = name.chars().next().map_or(0, char::len_utf8);
        let (first, rest) = name.split_at(first);
        let tokens = |part: &str| {
            let encode = || self.inner.get_model().tokenize(part);
            let tokens = catch_unwind(AssertUnwindSafe(encode));
            tokens.ok().and_then(Result::ok).unwrap_or_default()
        };
        let ids = [first, rest].map(tokens).concat();
        let ids = ids.into_iter().map(|token| token.id);
        ids.filter(|&id| Some(id) != self.eod).collect()
    }

    /// The ids of a text, and the characters that they do not represent.
    pub(super) fn encode(&self, text: &str) -> Result<(Vec<u32>, Losses)> {
        let pieces = self.cuts.divide(text, PIECE_BYTES);
        let encoded = match pieces.as_slice() {
            [piece] => self.encode_piece(piece),
            pieces => pieces
                .par_iter()
                .map(|piece| self.encode_piece(piece))
                .collect::<Result<Vec<_>, _>>()
                .map(|pieces| {
                    let losses = pieces.iter().map(|(_, losses)| *losses).sum();
                    let ids: Vec<_> = pieces.into_iter().map(|(ids, _)| ids).collect();
                    (ids.concat(), losses)
                }),
        };
        encoded.map_err(|reason| Error::Encode {
            location: "text".into(),
            reason,
        })
    }

    fn encode_piece(&self, text: &str) -> Result<(Vec<u32>, Losses), String> {
        let (ids, losses) = match &self.plain {
            Some(plain) => (plain.encode(text), Losses::default()),
            None => catch_unwind(AssertUnwindSafe(|| self.apply(text)))
                .map_err(|_| "its parts do not fit together".to_owned())?
                .map_err(|error| error.to_string())?,
        };
        Ok((self.without_eod(ids), losses))
    }

    /// Does the same as the tokenizers crate and counts the characters that are lost.
    fn apply(&self, text: &str) -> tokenizers::Result<(Vec<u32>, Losses)> {
        let normalizer = self.steps.normalizer();
        let added = self.inner.get_added_vocabulary();
        let mut text = added.extract_and_normalize(Some(&normalizer), text);
        let mut losses = Losses {
            dropped: normalizer.finish()?,
            unknown: 0,
        };
        losses.dropped += self.steps.split(&mut text)?;
        losses += self.tokenize(&mut text)?;
        let pieces = text.get_splits(OffsetReferential::Original, OffsetType::None);
        let tokens = pieces.iter().filter_map(|(_, _, tokens)| tokens.as_ref());
        let ids = tokens.flatten().map(|token| token.id).collect();
        Ok((ids, losses))
    }

    fn tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<Losses> {
        let model = self.inner.get_model();
        let losses = std::cell::Cell::new(Losses::default());
        text.tokenize(|piece| {
            let tokens = model.tokenize(piece.get())?;
            let mut lost = losses.get();
            if !is_covered(model, piece.len(), &tokens) {
                lost.dropped += characters(piece, missing(model, piece.get()));
            }
            let unknown = (tokens.iter()).filter(|token| Some(token.id) == self.unknown);
            let ranges: Vec<_> = unknown
                .map(|token| token.offsets.0..token.offsets.1)
                .collect();
            if !ranges.is_empty() {
                lost.unknown += characters(piece, ranges);
            }
            losses.set(lost);
            Ok(tokens)
        })?;
        Ok(losses.get())
    }

    /// Replaces end-of-document tokens that came from the text by the tokens of their spelling.
    fn without_eod(&self, ids: Vec<u32>) -> Vec<u32> {
        match self.eod {
            Some(eod) if ids.contains(&eod) => {
                let mut spelled = Vec::with_capacity(ids.len() + self.spelled_eod.len());
                for id in ids {
                    match id == eod {
                        true => spelled.extend_from_slice(&self.spelled_eod),
                        false => spelled.push(id),
                    }
                }
                spelled
            }
            _ => ids,
        }
    }

    /// The text of `ids` by the decoders of the file; the tokens themselves if the decoders fail.
    pub(super) fn decode_chain(&self, ids: &[u32]) -> String {
        let ids: Vec<u32> = ids
            .iter()
            .copied()
            .filter(|&id| Some(id) != self.eod)
            .collect();
        let ids = ids.as_slice();
        match catch_unwind(AssertUnwindSafe(|| self.inner.decode(ids, true))) {
            Ok(Ok(text)) => text,
            _ => ids
                .iter()
                .filter_map(|&id| self.inner.id_to_token(id))
                .collect(),
        }
    }

    /// The bytes of a token; empty if they depend on neighbouring tokens.
    pub(super) fn token_bytes(&self, id: u32) -> &[u8] {
        match &self.decoding {
            Decoding::ByteLevel(table) => table.get(id),
            Decoding::Chain => &[],
        }
    }

    /// What a token stands for inside a text; the token itself if the decoders of the file fail.
    pub(super) fn inside(&self, id: u32) -> Inside {
        if let Decoding::ByteLevel(table) = &self.decoding {
            return Inside::plain(table.get(id));
        }
        let token = self.inner.id_to_token(id);
        let Some(token) = token.filter(|_| !self.is_silent(id)) else {
            return Inside::default();
        };
        let decode = || Inside::new(self.inner.get_decoder(), &token);
        catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Inside::plain(token.as_str()))
    }

    pub(super) fn decoding(&self) -> &Decoding {
        &self.decoding
    }

    pub(super) fn cuts(&self) -> Cuts {
        self.cuts
    }

    /// Whether a token never produces text.
    pub(super) fn is_silent(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        let is_special = |token: String| added.is_special_token(&token);
        Some(id) == self.eod || self.inner.id_to_token(id).is_none_or(is_special)
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

/// The name of the end-of-document token of a file.
fn eod_name(value: &Value, added: &[(String, u32)]) -> Option<&'static str> {
    let vocab = value.pointer("/model/vocab");
    let is_there = |name: &&str| {
        vocab.is_some_and(|vocab| vocab.get(*name).is_some())
            || added.iter().any(|(token, _)| token == name)
    };
    EOD_NAMES.into_iter().find(is_there)
}

/// Changes the settings by which a text could become the end-of-document token: an added token that is not special is
/// searched for in texts, and an unknown character becomes the unknown token.
fn take_from_text(value: &mut Value, name: &str) {
    let added = value.get_mut("added_tokens").and_then(Value::as_array_mut);
    for token in added.into_iter().flatten() {
        if token["content"].as_str() == Some(name) {
            token["special"] = true.into();
        }
    }
    if let Some(unknown) = value.pointer_mut("/model/unk_token")
        && unknown.as_str() == Some(name)
    {
        *unknown = Value::Null;
    }
}

fn build(value: Value) -> Result<HfTokenizer, String> {
    let build = || serde_json::from_value::<HfTokenizer>(value);
    // The tokenizers crate may panic on invalid files, so panics are caught.
    let mut inner = catch_unwind(AssertUnwindSafe(build))
        .map_err(|_| "its parts do not fit together".to_owned())
        .and_then(|built| built.map_err(|error| error.to_string()))?;
    inner.set_encode_special_tokens(true);
    Ok(inner)
}

/// Whether the tokens certainly represent the whole word of this number of bytes.
fn is_covered(model: &ModelWrapper, bytes: usize, tokens: &[Token]) -> bool {
    let has_suffix = match model {
        ModelWrapper::BPE(bpe) => bpe
            .end_of_word_suffix
            .as_ref()
            .is_some_and(|s| !s.is_empty()),
        _ => false,
    };
    // A token says how much text it represents, including a suffix, but not where missing text would be.
    let covered = tokens.last().map_or(0, |token| token.offsets.1);
    covered == bytes && (tokens.len() <= 1 || !has_suffix)
}

/// The number of characters of the original text that the given parts of a piece come from.
fn characters(piece: &NormalizedString, parts: Vec<std::ops::Range<usize>>) -> u64 {
    let mut count = 0;
    let mut end = 0;
    for part in parts {
        let original = piece.convert_offsets(normalizer::Range::Normalized(part));
        // Characters that a step inserted have no original. A character of several bytes occurs several times.
        let Some(original) = original.filter(|range| range.end > end.max(range.start)) else {
            continue;
        };
        let text = piece.get_original();
        let new = text.get(original.start.max(end)..original.end);
        count += new.map_or(1, |new| new.chars().count() as u64);
        end = original.end;
    }
    count
}

fn check_added(inner: &HfTokenizer, added: &[(String, u32)]) -> Result<(), check::Refusal> {
    for (token, id) in added {
        let actual = inner.token_to_id(token);
        if actual != Some(*id) {
            let actual = actual.map_or("no id".into(), |actual| format!("the id {actual}"));
            let problem = format!(
                "the added token {token:?} has the id {id} in the file but would get {actual}"
            );
            return Err(refuse(
                problem,
                "added tokens numbered on from the vocabulary",
            ));
        }
    }
    Ok(())
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

/// The bytes of each token of a byte-level encoding, packed.
pub(super) struct TokenBytes {
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl TokenBytes {
    fn new(
        inner: &HfTokenizer,
        vocab: &HashMap<String, u32>,
        vocab_size: usize,
        eod: Option<u32>,
    ) -> Self {
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
                _ if Some(id) == eod => {}
                Some(added) if added.special => {}
                Some(added) => table.bytes.extend_from_slice(added.content.as_bytes()),
                None => {
                    let start = table.bytes.len();
                    for c in token.chars() {
                        match to_byte.get(&c) {
                            Some(&byte) => table.bytes.push(byte),
                            None => {
                                // It is not a byte-level token, so its text is the token itself.
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

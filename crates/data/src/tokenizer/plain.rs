//! A fast implementation of common byte-level encodings, several times as fast as the tokenizers crate: it keeps no
//! offsets, looks up words that occurred before in a cache, and copies no text.
//!
//! Such an encoding normalises a text to NFC or not at all, extracts runs of spaces that are added tokens (as in
//! GPT-NeoX), splits the rest into words as GPT-2 does, and merges the bytes of each word.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::merges::{Merges, Work};
use super::words::{self, BYTE_CHARS};

/// An encoding that this module can apply.
pub(super) struct Plain {
    is_nfc: bool,
    spaces: Spaces,
    merges: Merges,
    /// Work buffers that no thread is using.
    free: Mutex<Vec<Worker>>,
}

impl Plain {
    /// The encoding of a checked `tokenizer.json`; `None` if it has parts that are not supported here.
    pub(super) fn new(value: &Value) -> Option<Self> {
        let is_nfc = match value.get("normalizer") {
            None | Some(Value::Null) => false,
            Some(part) if kind(part) == Some("NFC") => true,
            Some(_) => return None,
        };
        let pre_tokenizer = value.get("pre_tokenizer")?;
        let flag = |key| pre_tokenizer.get(key).and_then(Value::as_bool);
        let is_usual = kind(pre_tokenizer) == Some("ByteLevel")
            && flag("add_prefix_space") == Some(false)
            && flag("use_regex") != Some(false);
        if !is_usual {
            return None;
        }
        Some(Self {
            is_nfc,
            spaces: Spaces::new(value.get("added_tokens"))?,
            merges: merges(value.get("model")?)?,
            free: Mutex::default(),
        })
    }

    /// The ids of a text.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let text = self.normalize(text);
        let mut ids = Vec::with_capacity(text.len() / 3);
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = free().pop();
        let mut worker = worker.unwrap_or_default();
        self.spaces.each(&text, |section| match section {
            Section::Text(text) => {
                words::each(text, |word| {
                    worker.word(&self.merges, word.as_bytes(), &mut ids)
                });
            }
            Section::Token(id) => ids.push(id),
        });
        free().push(worker);
        ids
    }

    fn normalize<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // Every character below U+0300 is in normal form and does not combine with one before it.
        let others = || text.chars().filter(|&c| c >= '\u{300}');
        match self.is_nfc && is_nfc_quick(others()) != IsNormalized::Yes {
            true => Cow::Owned(text.nfc().map(|(c, _)| c).collect()),
            false => Cow::Borrowed(text),
        }
    }
}

fn kind(part: &Value) -> Option<&str> {
    part.get("type").and_then(Value::as_str)
}

/// Whether this byte never occurs in UTF-8. GPT-NeoX-20B's vocabulary has no tokens for such bytes.
fn is_outside_utf8(byte: u8) -> bool {
    matches!(byte, 0xc0 | 0xc1 | 0xf5..=0xff)
}

/// The merges of a model, if it has a token for every byte of a text.
fn merges(model: &Value) -> Option<Merges> {
    let is_unset = |key| {
        matches!(
            model.get(key),
            None | Some(Value::Null | Value::Bool(false))
        )
    };
    if !is_unset("end_of_word_suffix") || !is_unset("ignore_merges") {
        return None;
    }
    let vocab: HashMap<&str, u32> = (model.get("vocab")?.as_object()?.iter())
        .map(|(token, id)| Some((token.as_str(), u32::try_from(id.as_u64()?).ok()?)))
        .collect::<Option<_>>()?;
    let mut bytes = [0; 256];
    for (byte, c) in (0..=255_u8).zip(*BYTE_CHARS) {
        match vocab.get(c.encode_utf8(&mut [0; 4]) as &str) {
            Some(&id) => bytes[usize::from(byte)] = id,
            None if is_outside_utf8(byte) => {}
            None => return None,
        }
    }
    let pairs = model.get("merges")?.as_array()?.iter().filter_map(|merge| {
        let (left, right) = match merge {
            // Old files begin with this version line.
            Value::String(merge) if merge.starts_with("#version") => return None,
            Value::String(merge) => merge.split_once(' ')?,
            merge => (merge.get(0)?.as_str()?, merge.get(1)?.as_str()?),
        };
        let id = *vocab.get(format!("{left}{right}").as_str())?;
        Some(((*vocab.get(left)?, *vocab.get(right)?), id))
    });
    Some(Merges::new(bytes, pairs))
}

/// Added tokens that are runs of spaces.
struct Spaces {
    /// Token id by length of the run.
    by_length: Vec<Option<u32>>,
    shortest: usize,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
enum Section<'a> {
    Text(&'a str),
    Token(u32),
}

impl Spaces {
    /// Made from the added tokens of a file; `None` if one of them is neither a run of spaces nor a special token,
    /// which a text never becomes.
    fn new(added: Option<&Value>) -> Option<Self> {
        let mut by_length = Vec::new();
        let mut normalized = None;
        let mut has_special_spaces = false;
        for token in added.and_then(Value::as_array).into_iter().flatten() {
            let flag = |key| token.get(key).and_then(Value::as_bool).unwrap_or(false);
            let content = token.get("content")?.as_str()?;
            if flag("special") {
                has_special_spaces |= content.contains(' ');
                continue;
            }
            let is_run = !content.is_empty() && content.bytes().all(|byte| byte == b' ');
            let is_usual = !flag("single_word") && !flag("lstrip") && !flag("rstrip");
            let is_first = *normalized.get_or_insert(flag("normalized")) == flag("normalized");
            if !is_run || !is_usual || !is_first {
                return None;
            }
            if by_length.len() <= content.len() {
                by_length.resize(content.len() + 1, None);
            }
            by_length[content.len()] = Some(u32::try_from(token.get("id")?.as_u64()?).ok()?);
        }
        let shortest = by_length.iter().position(Option::is_some);
        // A special token is skipped in texts, and so are the spaces inside it.
        (shortest.is_none() || !has_special_spaces).then_some(Self {
            by_length,
            shortest: shortest.unwrap_or(usize::MAX),
        })
    }

    /// Calls `visit` with the parts of `text`; in a run of spaces the longest token that fits comes first.
    fn each<'a>(&self, text: &'a str, mut visit: impl FnMut(Section<'a>)) {
        let mut text_start = 0;
        let mut at = 0;
        let bytes = text.as_bytes();
        while self.shortest <= bytes.len() - at {
            let Some(found) = bytes[at..].iter().position(|&byte| byte == b' ') else {
                break;
            };
            at += found;
            let run = bytes[at..].iter().take_while(|&&byte| byte == b' ').count();
            let end = at + run;
            while let Some((length, id)) = self.longest(end - at) {
                if text_start < at {
                    visit(Section::Text(&text[text_start..at]));
                }
                visit(Section::Token(id));
                at += length;
                text_start = at;
            }
            at = end;
        }
        if text_start < text.len() {
            visit(Section::Text(&text[text_start..]));
        }
    }

    /// The longest token of at most `most` spaces.
    fn longest(&self, most: usize) -> Option<(usize, u32)> {
        if most < self.shortest {
            return None;
        }
        let ids = self.by_length.iter().enumerate().take(most + 1);
        ids.rev().find_map(|(length, id)| Some((length, (*id)?)))
    }
}

/// The state that a thread needs to encode words: a cache of earlier words, and work buffers.
struct Worker {
    known: Vec<Known>,
    work: Work,
}

/// Number of words in the cache, each at the place given by its hash: 2 MiB.
const KNOWN: usize = 1 << 16;
/// Length in bytes of the longest word in the cache.
const KNOWN_BYTES: usize = 15;
const KNOWN_IDS: usize = 3;

/// A word and its tokens.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The bytes, with their number in the last byte; no word has the value 0.
    word: u128,
    ids: [u32; KNOWN_IDS],
    count: u32,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            known: vec![Known::default(); KNOWN],
            work: Work::default(),
        }
    }
}

impl Worker {
    /// Appends the tokens of a word.
    fn word(&mut self, merges: &Merges, word: &[u8], ids: &mut Vec<u32>) {
        if word.len() > KNOWN_BYTES {
            return merges.apply(word, &mut self.work, ids);
        }
        let mut key = [0; KNOWN_BYTES + 1];
        key[..word.len()].copy_from_slice(word);
        key[KNOWN_BYTES] = word.len() as u8;
        let key = u128::from_le_bytes(key);
        let known = &mut self.known[place(key)];
        if known.word == key {
            ids.extend_from_slice(&known.ids[..known.count as usize]);
            return;
        }
        let start = ids.len();
        merges.apply(word, &mut self.work, ids);
        let new = &ids[start..];
        if new.len() <= KNOWN_IDS {
            known.word = key;
            known.ids[..new.len()].copy_from_slice(new);
            known.count = new.len() as u32;
        }
    }
}

/// The place of a word in the cache.
fn place(key: u128) -> usize {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let (low, high) = (key as u64, (key >> 64) as u64);
    let mixed = (low ^ high.wrapping_mul(FACTOR).rotate_left(32)).wrapping_mul(FACTOR);
    (mixed >> (u64::BITS - KNOWN.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_no_text_has_may_be_missing() {
        let file = |is_in: &dyn Fn(u8) -> bool| {
            let vocab: serde_json::Map<_, _> = (0..=255)
                .filter(|&byte| is_in(byte))
                .zip(0..)
                .map(|(byte, id): (u8, u32)| (BYTE_CHARS[usize::from(byte)].into(), id.into()))
                .collect();
            serde_json::json!({
                "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
                "model": {"type": "BPE", "vocab": vocab, "merges": []},
            })
        };
        let plain = Plain::new(&file(&|byte| !is_outside_utf8(byte))).unwrap();
        assert_eq!(plain.encode("aé"), [97, 193, 169]);
        assert!(Plain::new(&file(&|byte| byte != 0x80)).is_none());
        let every_char: String = ('\0'..=char::MAX).collect();
        assert!(every_char.bytes().all(|byte| !is_outside_utf8(byte)));
    }

    #[test]
    fn runs_of_spaces_become_the_longest_tokens_first() {
        let spaces = |lengths: &[usize]| {
            let added: Vec<Value> = (lengths.iter())
                .map(|&n| serde_json::json!({"id": 100 + n, "content": " ".repeat(n)}))
                .collect();
            Spaces::new(Some(&Value::Array(added))).unwrap()
        };
        let parts = |lengths: &[usize], text: &str| {
            let mut parts = Vec::new();
            spaces(lengths).each(text, |part| {
                parts.push(match part {
                    Section::Text(text) => text.to_owned(),
                    Section::Token(id) => id.to_string(),
                });
            });
            parts
        };
        assert_eq!(parts(&[2, 3], "a b"), ["a b"]);
        assert_eq!(parts(&[2, 3], "       "), ["103", "103", " "]);
        assert_eq!(
            parts(&[2, 3], "a   b  c d"),
            ["a", "103", "b", "102", "c d"]
        );
        assert_eq!(parts(&[2, 4], "     é"), ["104", " é"]);
        assert_eq!(parts(&[], "a    b"), ["a    b"]);
        assert!(parts(&[2], "").is_empty());
    }
}

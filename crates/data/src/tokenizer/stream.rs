//! Decoding token by token.

use super::bpe::{Bpe, Decoding};
use super::{BYTES_EOD, Kind, Tokenizer};

/// Decodes ids one by one; a character is returned when its last byte has arrived.
///
/// ```
/// use tokenformer_data::Tokenizer;
///
/// let tokenizer = Tokenizer::bytes();
/// let mut stream = tokenizer.decode_stream();
/// assert_eq!(stream.push(0xc3), "");
/// assert_eq!(stream.push(0xa9), "é");
/// assert_eq!(stream.push(0xc3), "");
/// assert_eq!(stream.finish(), "\u{fffd}");
/// ```
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    pending: Pending,
}

enum Pending {
    /// Bytes that may still become a character; at most three.
    Bytes(Vec<u8>),
    /// The last ids, for decoders that depend on neighbouring tokens.
    Ids {
        ids: Vec<u32>,
        /// How many of `ids` were already returned as text; they are only context.
        done: usize,
        /// How many of the others belong to a character that may still be completed.
        open: usize,
    },
}

/// Number of ids with an incomplete last character after which it is taken as invalid: a character has at most four
/// bytes, and a token that speaks at least one. The same number of ids before a stream are its context.
const MAX_PENDING_IDS: usize = 4;

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, before: &[u32]) -> Self {
        let pending = match &tokenizer.0 {
            Kind::Bpe(bpe) if matches!(bpe.decoding(), Decoding::Chain) => {
                let speaking = before.iter().rev().filter(|&&id| !bpe.is_silent(id));
                let mut ids: Vec<u32> = speaking.take(MAX_PENDING_IDS).copied().collect();
                ids.reverse();
                Pending::Ids {
                    done: ids.len(),
                    ids,
                    open: 0,
                }
            }
            _ => Pending::Bytes(Vec::new()),
        };
        Self { tokenizer, pending }
    }

    /// Takes the next id and returns the text that is now certain, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        match (&mut self.pending, &self.tokenizer.0) {
            (Pending::Bytes(pending), Kind::Bytes) => {
                if id < BYTES_EOD {
                    pending.push(id as u8);
                }
                take_text(pending)
            }
            (Pending::Bytes(pending), Kind::Bpe(bpe)) => {
                pending.extend_from_slice(bpe.token_bytes(id));
                take_text(pending)
            }
            // Decoding leaves it out, so it neither ends a character nor counts as a part of one.
            (Pending::Ids { .. }, Kind::Bpe(bpe)) if bpe.is_silent(id) => String::new(),
            (Pending::Ids { ids, done, open }, Kind::Bpe(bpe)) => {
                ids.push(id);
                take_new_text(bpe, ids, done, open)
            }
            (Pending::Ids { .. }, Kind::Bytes) => String::new(),
        }
    }

    /// Returns the rest: U+FFFD for a character that was never completed.
    pub fn finish(self) -> String {
        match (self.pending, &self.tokenizer.0) {
            (Pending::Bytes(pending), _) => String::from_utf8_lossy(&pending).into_owned(),
            (Pending::Ids { ids, done, .. }, Kind::Bpe(bpe)) => new_text(bpe, &ids, done),
            (Pending::Ids { .. }, Kind::Bytes) => String::new(),
        }
    }
}

/// Removes all but an incomplete last character from `bytes` and returns it as text.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut incomplete = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        incomplete = chunk.invalid().len();
        if incomplete > 0 {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    let tail = bytes.len() - incomplete;
    let is_open = incomplete > 0
        && std::str::from_utf8(&bytes[tail..]).is_err_and(|error| error.error_len().is_none());
    if is_open {
        text.pop();
        bytes.drain(..tail);
    } else {
        bytes.clear();
    }
    text
}

/// The text that the last id completes; empty while its last character is incomplete.
fn take_new_text(bpe: &Bpe, ids: &mut Vec<u32>, done: &mut usize, open: &mut usize) -> String {
    let text = new_text(bpe, ids, *done);
    if text.is_empty() {
        return text;
    }
    if text.ends_with(char::REPLACEMENT_CHARACTER) {
        *open += 1;
        if *open < MAX_PENDING_IDS {
            return String::new();
        }
    }
    // The tokens just returned stay as context for the next ones.
    ids.drain(..*done);
    (*done, *open) = (ids.len(), 0);
    text
}

/// The text that the ids from `done` on add to that of the ids before.
fn new_text(bpe: &Bpe, ids: &[u32], done: usize) -> String {
    let before = bpe.decode_chain(&ids[..done]);
    let mut text = bpe.decode_chain(ids);
    match text.get(before.len()..) {
        Some(_) if text.starts_with(&before) => text.split_off(before.len()),
        _ => bpe.decode_chain(&ids[done..]),
    }
}

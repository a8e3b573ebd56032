//! Decoding token by token.

use super::bpe::{Bpe, Decoding};
use super::{BYTES_EOD, Kind, Tokenizer};

/// Turns ids into text as they come; characters appear when their last byte has come.
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
    /// The last ids, for decoders that look at their neighbours.
    Ids {
        ids: Vec<u32>,
        /// How many of `ids` are given out already; they are only context.
        done: usize,
    },
}

/// Ids whose text ends in an incomplete character before that is taken for broken: a character has
/// at most four bytes, and a token at least one. As many of those before a stream are its context.
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
                }
            }
            _ => Pending::Bytes(Vec::new()),
        };
        Self { tokenizer, pending }
    }

    /// Takes the next id and gives the text that is certain now, possibly none.
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
            (Pending::Ids { ids, done }, Kind::Bpe(bpe)) => push_id(bpe, ids, done, id),
            (Pending::Ids { .. }, Kind::Bytes) => String::new(),
        }
    }

    /// The rest: U+FFFD for a character that was never completed.
    pub fn finish(self) -> String {
        match (self.pending, &self.tokenizer.0) {
            (Pending::Bytes(pending), _) => String::from_utf8_lossy(&pending).into_owned(),
            (Pending::Ids { ids, done }, Kind::Bpe(bpe)) => new_text(bpe, &ids, done),
            (Pending::Ids { .. }, Kind::Bytes) => String::new(),
        }
    }
}

/// Moves all but an incomplete last character out of `bytes`, as text.
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

fn push_id(bpe: &Bpe, ids: &mut Vec<u32>, done: &mut usize, id: u32) -> String {
    ids.push(id);
    let text = new_text(bpe, ids, *done);
    let is_open =
        text.ends_with(char::REPLACEMENT_CHARACTER) && ids.len() - *done < MAX_PENDING_IDS;
    if text.is_empty() || is_open {
        return String::new();
    }
    // The tokens just given out stay as the context of the next ones.
    ids.drain(..*done);
    *done = ids.len();
    text
}

/// What the ids from `done` on add to the text of those before.
fn new_text(bpe: &Bpe, ids: &[u32], done: usize) -> String {
    let before = bpe.decode_chain(&ids[..done]);
    let mut text = bpe.decode_chain(ids);
    match text.get(before.len()..) {
        Some(_) if text.starts_with(&before) => text.split_off(before.len()),
        _ => bpe.decode_chain(&ids[done..]),
    }
}

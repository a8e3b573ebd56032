//! Training of a byte-level BPE.
//!
//! Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units"
//! (2016), over the bytes of words as GPT-2 splits them. Every choice has one fixed order (the most
//! frequent pair first, then the smallest pair of ids), so the same texts give the same merges.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use rayon::prelude::*;
use serde::ser::{Serialize, Serializer};

use super::Tokenizer;
use super::cuts::Cuts;
use super::words::{self, BYTE_CHARS};
use crate::error::{Error, Result};

/// The end of a document and the 256 bytes.
pub const MIN_BPE_VOCAB_SIZE: usize = 257;
pub(super) const MAX_BPE_VOCAB_SIZE: usize = 1 << 20;

/// Merges seen only once in the text are noise.
const MIN_PAIR_COUNT: u64 = 2;
/// Bytes of text that are collected before their words are counted in parallel.
const BATCH_BYTES: usize = 4 << 20;
const PIECE_BYTES: usize = 64 << 10;
/// Merges between two calls of the progress callback.
const PROGRESS_INTERVAL: usize = 64;

type Pair = (u32, u32);

/// Collects texts, then learns the merges.
pub(crate) struct Trainer {
    vocab_size: usize,
    batch: Vec<String>,
    batch_bytes: usize,
    words: HashMap<String, u64>,
}

impl Trainer {
    /// A trainer without text.
    pub(crate) fn new(vocab_size: usize) -> Result<Self> {
        if !(MIN_BPE_VOCAB_SIZE..=MAX_BPE_VOCAB_SIZE).contains(&vocab_size) {
            return Err(Error::Option {
                option: "--tokenizer bpe:SIZE",
                expected: "a size from 257 (the bytes and the end of document) to 1048576",
                got: vocab_size.to_string(),
            });
        }
        Ok(Self {
            vocab_size,
            batch: Vec::new(),
            batch_bytes: 0,
            words: HashMap::new(),
        })
    }

    /// Adds a text to learn from.
    pub(crate) fn add(&mut self, text: String) {
        self.batch_bytes += text.len();
        self.batch.push(text);
        if self.batch_bytes >= BATCH_BYTES {
            self.count_batch();
        }
    }

    fn count_batch(&mut self) {
        let pieces: Vec<&str> = self
            .batch
            .iter()
            .flat_map(|text| Cuts::Words.divide(text, PIECE_BYTES))
            .collect();
        let counts = pieces
            .par_iter()
            .map(|piece| count_words(piece))
            .collect::<Vec<_>>();
        for (word, count) in counts.into_iter().flatten() {
            match self.words.get_mut(word) {
                Some(total) => *total += count,
                None => {
                    self.words.insert(word.to_owned(), count);
                }
            }
        }
        self.batch.clear();
        self.batch_bytes = 0;
    }

    /// Learns the merges.
    pub(crate) fn finish(mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Tokenizer> {
        self.count_batch();
        let mut words: Vec<(String, u64)> = self.words.into_iter().collect();
        words.sort_unstable();
        let mut learner = Learner::new(&words);
        learner.learn(self.vocab_size, progress);
        // A `Value` has string keys, so writing it to memory cannot fail.
        let json = serde_json::to_vec(&learner.tokenizer_json())
            .expect("strings and numbers serialize to memory");
        Tokenizer::from_json(json, "the trained tokenizer")
    }
}

fn count_words(text: &str) -> HashMap<&str, u64> {
    let mut counts = HashMap::new();
    words::each(text, |word| *counts.entry(word).or_default() += 1);
    counts
}

const EOD_NAME: &str = "<|endoftext|>";

struct Word {
    symbols: Vec<u32>,
    count: u64,
}

struct Learner {
    /// Token strings by id.
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    merges: Vec<Pair>,
    words: Vec<Word>,
    pair_counts: HashMap<Pair, u64>,
    /// Words in which a pair was seen; it may have disappeared since.
    pair_words: HashMap<Pair, Vec<u32>>,
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Learner {
    fn new(words: &[(String, u64)]) -> Self {
        let mut tokens = vec![EOD_NAME.to_owned()];
        let mut chars = *BYTE_CHARS;
        chars.sort_unstable();
        tokens.extend(chars.iter().map(char::to_string));
        let ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
        let char_ids: HashMap<char, u32> = chars.into_iter().zip(1..).collect();
        let words = words
            .iter()
            .map(|(word, count)| Word {
                symbols: word
                    .bytes()
                    .map(|byte| char_ids[&BYTE_CHARS[usize::from(byte)]])
                    .collect(),
                count: *count,
            })
            .collect();
        let mut learner = Self {
            tokens,
            ids,
            merges: Vec::new(),
            words,
            pair_counts: HashMap::new(),
            pair_words: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        learner.count_pairs();
        learner
    }

    fn count_pairs(&mut self) {
        for (index, word) in (0..).zip(&self.words) {
            for pair in pairs(&word.symbols) {
                *self.pair_counts.entry(pair).or_default() += word.count;
                let seen = self.pair_words.entry(pair).or_default();
                if seen.last() != Some(&index) {
                    seen.push(index);
                }
            }
        }
        let entries = self.pair_counts.iter();
        self.queue = entries
            .map(|(&pair, &count)| (count, Reverse(pair)))
            .collect();
    }

    fn learn(&mut self, vocab_size: usize, progress: &mut dyn FnMut(u64, u64)) {
        let wanted = vocab_size.saturating_sub(self.tokens.len()) as u64;
        while self.tokens.len() < vocab_size {
            let Some((count, Reverse(pair))) = self.queue.pop() else {
                break;
            };
            let current = self.pair_counts.get(&pair).copied().unwrap_or(0);
            if current != count {
                // Counts change after an entry is made; a count that increased has a newer entry.
                if current < count && current > 0 {
                    self.queue.push((current, Reverse(pair)));
                }
                continue;
            }
            if count < MIN_PAIR_COUNT {
                break;
            }
            self.merge(pair);
            if self.merges.len().is_multiple_of(PROGRESS_INTERVAL) {
                progress(self.merges.len() as u64, wanted);
            }
        }
        progress(self.merges.len() as u64, wanted);
    }

    fn merge(&mut self, pair: Pair) {
        let token = format!(
            "{}{}",
            self.tokens[pair.0 as usize], self.tokens[pair.1 as usize]
        );
        // Two pairs can produce the same token.
        let id = match self.ids.get(&token) {
            Some(&id) => id,
            None => {
                let id = self.tokens.len() as u32;
                self.ids.insert(token.clone(), id);
                self.tokens.push(token);
                id
            }
        };
        self.merges.push(pair);
        let mut risen = Vec::new();
        for index in self.pair_words.remove(&pair).unwrap_or_default() {
            let word = &mut self.words[index as usize];
            let merged = merged(&word.symbols, pair, id);
            if merged.len() == word.symbols.len() {
                continue;
            }
            for old in pairs(&word.symbols) {
                if let Some(count) = self.pair_counts.get_mut(&old) {
                    *count -= word.count;
                }
            }
            for new in pairs(&merged) {
                *self.pair_counts.entry(new).or_default() += word.count;
                if new.0 == id || new.1 == id {
                    let seen = self.pair_words.entry(new).or_default();
                    if seen.last() != Some(&index) {
                        seen.push(index);
                        risen.push(new);
                    }
                }
            }
            word.symbols = merged;
        }
        self.pair_counts.remove(&pair);
        risen.sort_unstable();
        risen.dedup();
        for pair in risen {
            if let Some(&count) = self.pair_counts.get(&pair) {
                self.queue.push((count, Reverse(pair)));
            }
        }
    }

    fn tokenizer_json(&self) -> impl Serialize {
        let byte_level = serde_json::json!({
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": true,
            "use_regex": true,
        });
        let merges: Vec<[&str; 2]> = self
            .merges
            .iter()
            .map(|&(a, b)| [&*self.tokens[a as usize], &*self.tokens[b as usize]])
            .collect();
        TokenizerJson {
            version: "1.0",
            added_tokens: serde_json::json!([{
                "id": 0,
                "content": EOD_NAME,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": true,
            }]),
            pre_tokenizer: byte_level.clone(),
            decoder: byte_level,
            model: ModelJson {
                kind: "BPE",
                vocab: VocabJson(&self.tokens),
                merges,
            },
        }
    }
}

fn pairs(symbols: &[u32]) -> impl Iterator<Item = Pair> {
    symbols.windows(2).map(|pair| (pair[0], pair[1]))
}

/// `symbols` with every occurrence of `pair`, from the left, replaced by `id`.
fn merged(symbols: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut merged = Vec::with_capacity(symbols.len());
    let mut rest = symbols;
    while let Some((&first, tail)) = rest.split_first() {
        if first == pair.0 && tail.first() == Some(&pair.1) {
            merged.push(id);
            rest = &tail[1..];
        } else {
            merged.push(first);
            rest = tail;
        }
    }
    merged
}

#[derive(serde::Serialize)]
struct TokenizerJson<'a> {
    version: &'a str,
    added_tokens: serde_json::Value,
    pre_tokenizer: serde_json::Value,
    decoder: serde_json::Value,
    model: ModelJson<'a>,
}

#[derive(serde::Serialize)]
struct ModelJson<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    vocab: VocabJson<'a>,
    merges: Vec<[&'a str; 2]>,
}

/// A map from token to id in the order of the ids, so that the file is always the same.
struct VocabJson<'a>(&'a [String]);

impl Serialize for VocabJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(0_u32..))
    }
}

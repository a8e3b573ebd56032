//! Which text trains and which validates.
//!
//! A hash of the seed and the text puts every document into one of many groups. Groups go to validation in their order
//! until it has the wanted share of the bytes; one that would take it further from that share trains. So a large
//! document among small ones does not decide the split, equal documents never part, and the order of the documents does
//! not matter.

use crate::error::{Error, Result};
use crate::text::prefix;
use crate::tokenizer::Cuts;

/// The two splits, in the order of every pair here.
pub(super) const TRAIN: usize = 0;
pub(super) const VALID: usize = 1;

/// Bytes of text that are taken or left out together when a BPE sample is drawn.
const SAMPLE_PIECE_BYTES: usize = 64 << 10;
/// How far the end of a word is looked for behind that.
const SAMPLE_SEARCH_BYTES: usize = 4 << 10;

/// Documents that go to one split together.
#[derive(Clone, Copy, Default)]
struct Group {
    documents: u64,
    bytes: u64,
}

/// Groups, as many as bound the memory and still are a small part of the text each.
const GROUPS: usize = 1 << 16;

/// What has to be known about all documents before the first one is written.
pub(super) struct Survey {
    seed: u64,
    valid_fraction: f64,
    documents: u64,
    text_bytes: u64,
    largest_bytes: u64,
    groups: Vec<Group>,
    /// Where the first document would be cut.
    cut: Option<Cut>,
    /// Of the hashes of all documents.
    hasher: blake3::Hasher,
}

/// Where an only document is cut.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// In bytes or tokens, whatever the document consists of.
    pub(super) at: usize,
    /// The bytes before.
    pub(super) train_bytes: u64,
}

/// The decision for every document.
pub(super) struct Split {
    seed: u64,
    valid_fraction: f64,
    documents: u64,
    text_bytes: u64,
    largest_bytes: u64,
    train_bytes: u64,
    rule: Rule,
    digest: blake3::Hash,
}

enum Rule {
    /// Whether each group validates.
    Groups(Vec<bool>),
    /// This document validates, the others, which are in the same group, train.
    Lone(u64),
    /// One document only: cut it at this byte.
    Cut(usize),
}

/// Where a document goes.
pub(super) enum Choice {
    /// To one split.
    Whole(usize),
    /// Up to here to training, the rest to validation.
    Cut(usize),
}

/// 64 bits that depend on the seed and the document alone.
fn hash(purpose: u8, seed: u64, document: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[purpose]);
    hasher.update(&seed.to_le_bytes());
    hasher.update(document);
    let hash = hasher.finalize();
    let (numbers, _) = hash.as_bytes().as_chunks();
    u64::from_le_bytes(numbers[0])
}

/// The rule by which documents are split; unfinished datasets under another one are not gone on with.
const RULE: &[u8] = b"groups by bytes";

const CHOOSE_SPLIT: u8 = 0;
const CHOOSE_SAMPLE: u8 = 1;

/// A hash as a number in [0, 1).
fn share(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

fn group(hash: u64) -> usize {
    (hash >> (u64::BITS - GROUPS.ilog2())) as usize
}

impl Survey {
    pub(super) fn new(seed: u64, valid_fraction: f64) -> Self {
        Self {
            seed,
            valid_fraction,
            documents: 0,
            text_bytes: 0,
            largest_bytes: 0,
            groups: vec![Group::default(); GROUPS],
            cut: None,
            hasher: blake3::Hasher::new(),
        }
    }

    pub(super) fn add(&mut self, text: &str) {
        let fraction = self.valid_fraction;
        self.add_document(text.as_bytes(), text.len() as u64, || {
            cut(text, fraction).map(|at| Cut {
                at,
                train_bytes: at as u64,
            })
        });
    }

    /// Adds a document of any kind whose text has `bytes`; `cut` is where it would be cut if it were the only one.
    pub(super) fn add_document(
        &mut self,
        document: &[u8],
        bytes: u64,
        cut: impl FnOnce() -> Option<Cut>,
    ) {
        let hash = hash(CHOOSE_SPLIT, self.seed, document);
        self.hasher.update(&hash.to_le_bytes());
        self.hasher.update(&bytes.to_le_bytes());
        let group = &mut self.groups[group(hash)];
        group.documents += 1;
        group.bytes += bytes;
        if self.documents == 0 {
            self.cut = cut();
        }
        self.documents += 1;
        self.text_bytes += bytes;
        self.largest_bytes = self.largest_bytes.max(bytes);
    }

    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    pub(super) fn finish(self) -> Result<Split> {
        let (rule, train_bytes) = match (self.documents, self.cut) {
            (1, Some(cut)) => (Rule::Cut(cut.at), cut.train_bytes),
            (0 | 1, _) => {
                return Err(Error::EmptySplit {
                    split: "validation",
                    documents: self.documents,
                    text_bytes: self.text_bytes,
                });
            }
            _ => self.choose(),
        };
        Ok(Split {
            seed: self.seed,
            valid_fraction: self.valid_fraction,
            documents: self.documents,
            text_bytes: self.text_bytes,
            largest_bytes: self.largest_bytes,
            train_bytes,
            rule,
            digest: self.hasher.finalize(),
        })
    }

    /// The groups that validate, and the bytes that train.
    fn choose(&self) -> (Rule, u64) {
        let wanted = (self.text_bytes as f64 * self.valid_fraction) as u64;
        let mut validates = vec![false; GROUPS];
        let mut valid_bytes = 0_u64;
        let filled = || (0..GROUPS).filter(|&at| self.groups[at].documents > 0);
        for at in filled() {
            let more = valid_bytes + self.groups[at].bytes;
            if more.abs_diff(wanted) <= valid_bytes.abs_diff(wanted) {
                validates[at] = true;
                valid_bytes = more;
            }
        }
        // Each split needs a document; the smallest group takes it least far from the wanted share.
        let smallest = filled()
            .min_by_key(|&at| self.groups[at].bytes)
            .unwrap_or(0);
        let valid_groups = filled().filter(|&at| validates[at]).count();
        if filled().count() == 1 {
            let each = self.text_bytes / self.documents.max(1);
            return (Rule::Lone(0), self.text_bytes - each);
        } else if valid_groups == 0 {
            validates[smallest] = true;
            valid_bytes = self.groups[smallest].bytes;
        } else if valid_groups == filled().count() {
            validates[smallest] = false;
            valid_bytes -= self.groups[smallest].bytes;
        }
        (Rule::Groups(validates), self.text_bytes - valid_bytes)
    }
}

impl Split {
    /// Stands for the documents, their order, and where each goes.
    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(RULE);
        hasher.update(self.digest.as_bytes());
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&self.valid_fraction.to_bits().to_le_bytes());
        hasher.finalize()
    }

    /// Where document `index` goes.
    pub(super) fn choose(&self, index: u64, document: &[u8]) -> Choice {
        let validates = match &self.rule {
            Rule::Cut(cut) => return Choice::Cut(*cut),
            Rule::Lone(lone) => *lone == index,
            Rule::Groups(validates) => validates[group(hash(CHOOSE_SPLIT, self.seed, document))],
        };
        Choice::Whole(if validates { VALID } else { TRAIN })
    }

    /// The text of document `index` for each split; empty for the one it does not belong to.
    pub(super) fn parts<'a>(&self, index: u64, text: &'a str) -> [&'a str; 2] {
        match self.choose(index, text.as_bytes()) {
            // A text that changed since the survey may be shorter; the pass will notice at its end.
            Choice::Cut(cut) => {
                let (train, valid) = text.split_at_checked(cut).unwrap_or((text, ""));
                [train, valid]
            }
            Choice::Whole(split) => {
                let mut parts = [""; 2];
                parts[split] = text;
                parts
            }
        }
    }

    /// A sample of the training text of about `max_bytes`.
    pub(super) fn sample(&self, max_bytes: u64) -> Sample {
        Sample {
            seed: self.seed,
            rate: max_bytes as f64 / self.train_bytes.max(1) as f64,
            left_bytes: max_bytes,
        }
    }

    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    pub(super) fn is_cut(&self) -> bool {
        matches!(self.rule, Rule::Cut(_))
    }

    /// The share of the bytes that validates, if it, or the one that trains, is less than half or more than double of what
    /// was wanted.
    pub(super) fn odd_share(&self) -> Option<OddShare> {
        let bytes = self.text_bytes - self.train_bytes;
        let share = bytes as f64 / self.text_bytes.max(1) as f64;
        let wanted = self.valid_fraction;
        let differ = |share: f64, wanted: f64| share < wanted / 2.0 || share > wanted * 2.0;
        let is_far = differ(share, wanted) || differ(1.0 - share, 1.0 - wanted);
        is_far.then_some(OddShare {
            share,
            bytes,
            largest_share: self.largest_bytes as f64 / self.text_bytes.max(1) as f64,
        })
    }
}

/// A share that documents did not allow to be as wanted.
pub(super) struct OddShare {
    pub(super) share: f64,
    pub(super) bytes: u64,
    /// Of the largest document.
    pub(super) largest_share: f64,
}

/// Takes pieces from all over the training text, up to a number of bytes.
pub(super) struct Sample {
    seed: u64,
    rate: f64,
    left_bytes: u64,
}

impl Sample {
    pub(super) fn take(&mut self, text: &str, mut visit: impl FnMut(&str)) {
        for piece in sample_pieces(text) {
            let is_chosen = self.rate >= 1.0
                || share(hash(CHOOSE_SAMPLE, self.seed, piece.as_bytes())) < self.rate;
            if piece.is_empty() || !is_chosen {
                continue;
            }
            let room = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
            let piece = prefix(piece, room);
            self.left_bytes -= piece.len() as u64;
            if !piece.is_empty() {
                visit(piece);
            }
        }
    }
}

/// `text` in pieces, parted between words where there are ends of words, else between characters: a word that is cut
/// now and then changes nothing of what is learned, while a piece that is too large would.
fn sample_pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > 2 * SAMPLE_PIECE_BYTES {
        let latest = SAMPLE_PIECE_BYTES + SAMPLE_SEARCH_BYTES;
        let cut = Cuts::Words.next(rest, SAMPLE_PIECE_BYTES, latest);
        let cut = cut.unwrap_or_else(|| prefix(rest, latest).len());
        let (piece, tail) = rest.split_at(cut);
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}

/// The byte at which a single document is cut: the line end nearest before the wanted share, else
/// the next one after it, else between two characters. `None` if there is only one character.
fn cut(text: &str, valid_fraction: f64) -> Option<usize> {
    let wanted = (text.len() as f64 * (1.0 - valid_fraction)) as usize;
    let wanted = prefix(text, wanted).len();
    let (before, after) = text.split_at(wanted);
    let line_ends = [
        before.rfind('\n').map(|at| at + 1),
        after.find('\n').map(|at| wanted + at + 1),
    ];
    let line_end = line_ends.into_iter().flatten().find(|&at| at < text.len());
    let first_char = text.chars().next().map_or(0, char::len_utf8);
    let between = wanted.max(first_char);
    line_end.or_else(|| (between < text.len()).then_some(between))
}

#[cfg(test)]
mod tests {
    use super::{Rule, SAMPLE_PIECE_BYTES, Survey, cut, sample_pieces};

    #[test]
    fn a_large_text_without_spaces_is_sampled_in_small_pieces() {
        // With ends of words that are no spaces, and with none at all.
        for text in ["语言模型学习。", "语言"] {
            let text = text.repeat(60_000);
            let pieces = sample_pieces(&text);
            assert!(pieces.len() > 4, "{}", pieces.len());
            assert!(
                pieces
                    .iter()
                    .all(|piece| piece.len() <= 2 * SAMPLE_PIECE_BYTES)
            );
            assert_eq!(pieces.concat(), text);
        }
    }

    #[test]
    fn the_share_is_of_the_bytes() {
        // A hundred documents whose sizes differ a thousandfold, under several seeds.
        for seed in 0..20 {
            let mut survey = Survey::new(seed, 0.1);
            for n in 0..100_usize {
                survey.add(&format!("{n} {}", "x".repeat(1 << (n % 11))));
            }
            let all = survey.text_bytes();
            let split = survey.finish().unwrap();
            assert!(matches!(split.rule, Rule::Groups(_)));
            let share = 1.0 - split.train_bytes as f64 / all as f64;
            assert!((share - 0.1).abs() < 0.03, "seed {seed}: {share}");
            assert!(split.odd_share().is_none());
        }
    }

    #[test]
    fn a_share_that_documents_do_not_allow_is_odd() {
        for seed in 0..20 {
            let mut survey = Survey::new(seed, 0.05);
            survey.add("a short text beside a long one");
            survey.add(&"the long one ".repeat(10_000));
            let split = survey.finish().unwrap();
            assert_eq!(split.train_bytes, 130_000, "seed {seed}");
            let odd = split.odd_share().unwrap();
            assert_eq!(odd.bytes, 30);
            assert!(odd.largest_share > 0.99);
        }
    }

    #[test]
    fn a_single_document_is_cut_at_a_line_end() {
        assert_eq!(cut("aaaa\nbbbb\ncccc\n", 0.4), Some(5));
        assert_eq!(cut("aaaa\nbbbb\ncccc\n", 0.3), Some(10));
        // No line end before the wanted share, one after it.
        assert_eq!(cut("aaaaaaaa\nb", 0.5), Some(9));
        // None inside at all.
        assert_eq!(cut("aaaaaaaa\n", 0.5), Some(4));
        assert_eq!(cut("éé", 0.5), Some(2));
        assert_eq!(cut("éé", 0.99), Some(2));
        assert_eq!(cut("é", 0.5), None);
        assert_eq!(cut("", 0.5), None);
    }
}

//! Decides which text is for training and which for validation.
//!
//! A hash of the seed and the text puts every document into one of many groups. Groups are assigned to validation in
//! order until it has the wanted share of the bytes; a group that would move the share further away goes to training.
//! So one large document among small ones does not decide the split, equal documents go to the same split, and the
//! order of the documents does not matter.

use crate::error::{Error, Result};
use crate::text::prefix;
use crate::tokenizer::Cuts;

/// The two splits; every pair here is in this order.
pub(super) const TRAIN: usize = 0;
pub(super) const VALID: usize = 1;

/// Size of the pieces of text that are either in a BPE sample or not.
const SAMPLE_PIECE_BYTES: usize = 64 << 10;
/// How far after that the end of a word is searched for.
const SAMPLE_SEARCH_BYTES: usize = 4 << 10;

/// Documents that go to one split together.
#[derive(Clone, Copy, Default)]
struct Group {
    documents: u64,
    bytes: u64,
}

/// Number of groups: few enough to bound the memory, and enough that each is a small part of the text.
const GROUPS: usize = 1 << 16;

/// What must be known about all documents before the first one is written.
pub(super) struct Survey {
    seed: u64,
    valid_fraction: f64,
    documents: u64,
    text_bytes: u64,
    largest_bytes: u64,
    groups: Vec<Group>,
    /// The position at which the first document would be cut.
    cut: Option<Cut>,
    /// A hash over the hashes of all documents.
    hasher: blake3::Hasher,
}

/// The position at which a single document is cut.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// In bytes of a text, or in tokens of a tokenized document.
    pub(super) at: usize,
    /// Bytes of text before the cut.
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
    /// For each group, whether it is for validation.
    Groups(Vec<bool>),
    /// This document is for validation. All others, which are in the same group, are for training.
    Lone(u64),
    /// There is only one document, which is cut at this byte.
    Cut(usize),
}

/// The decision for one document.
pub(super) enum Choice {
    /// The whole document goes to this split.
    Whole(usize),
    /// The part up to here goes to training, the rest to validation.
    Cut(usize),
}

/// A 64-bit hash of only the seed and the document.
fn hash(purpose: u8, seed: u64, document: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[purpose]);
    hasher.update(&seed.to_le_bytes());
    hasher.update(document);
    let hash = hasher.finalize();
    let (numbers, _) = hash.as_bytes().as_chunks();
    u64::from_le_bytes(numbers[0])
}

/// The rule by which documents are split. Unfinished datasets with another rule are not resumed.
const RULE: &[u8] = b"groups by bytes, cuts near the share";

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

    /// Adds a document of any kind whose text has `bytes`; `cut` is the position at which it would be cut if it were
    /// the only one.
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
                    tokens: 0,
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

    /// The groups for validation, and the number of bytes for training.
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
        // Each split needs a document. The smallest group changes the share least.
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
    /// A hash of the documents, their order, and their splits.
    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(RULE);
        hasher.update(self.digest.as_bytes());
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&self.valid_fraction.to_bits().to_le_bytes());
        hasher.finalize()
    }

    /// Returns an error if the training or the validation file has too few tokens to predict any.
    pub(super) fn check_sizes(&self, tokens: [u64; 2]) -> Result<()> {
        for (tokens, split) in tokens.into_iter().zip(["training", "validation"]) {
            if tokens < 2 {
                return Err(Error::EmptySplit {
                    split,
                    tokens,
                    documents: self.documents,
                    text_bytes: self.text_bytes,
                });
            }
        }
        Ok(())
    }

    /// The decision for document `index`.
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
            // A text that changed since the first pass may be shorter; the last pass notices this at its end.
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

    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    pub(super) fn is_cut(&self) -> bool {
        matches!(self.rule, Rule::Cut(_))
    }

    /// The share of validation, if it or the share of training is less than half or more than double of what was
    /// wanted.
    pub(super) fn odd_share(&self) -> Option<OddShare> {
        let bytes = self.text_bytes - self.train_bytes;
        let share = bytes as f64 / self.text_bytes.max(1) as f64;
        is_far(share, self.valid_fraction).then_some(OddShare {
            share,
            bytes,
            largest_share: self.largest_bytes as f64 / self.text_bytes.max(1) as f64,
        })
    }
}

/// Whether a share of validation, or what it leaves for training, is less than half or more than double of what was
/// wanted.
fn is_far(share: f64, wanted: f64) -> bool {
    let differ = |share: f64, wanted: f64| share < wanted / 2.0 || share > wanted * 2.0;
    differ(share, wanted) || differ(1.0 - share, 1.0 - wanted)
}

/// A share that is far from the wanted one because of the documents' sizes.
pub(super) struct OddShare {
    pub(super) share: f64,
    pub(super) bytes: u64,
    /// The share of the largest document.
    pub(super) largest_share: f64,
}

/// Collects pieces from the whole training text, up to a number of bytes.
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

/// Splits `text` into pieces between words if possible, else between characters. A few words that are cut do not change
/// what is learned, but a piece that is too large would.
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

/// The byte at which a single document is cut: the nearest line end before the wanted share, else the next one after
/// it, else the same before a space, each only if the share stays near what is wanted; else a place between two characters.
/// `None` if there is only one character.
fn cut(text: &str, valid_fraction: f64) -> Option<usize> {
    let wanted = (text.len() as f64 * (1.0 - valid_fraction)) as usize;
    let wanted = prefix(text, wanted).len();
    let (before, after) = text.split_at(wanted);
    let is_near = |at: &usize| {
        let share = (text.len() - at) as f64 / text.len() as f64;
        0 < *at && *at < text.len() && !is_far(share, valid_fraction)
    };
    let places = [
        before.rfind('\n').map(|at| at + 1),
        after.find('\n').map(|at| wanted + at + 1),
        before.rfind(' '),
        after.find(' ').map(|at| wanted + at),
    ];
    let first_char = text.chars().next().map_or(0, char::len_utf8);
    let between = wanted.max(first_char);
    (places.into_iter().flatten().find(is_near))
        .or_else(|| (between < text.len()).then_some(between))
}

#[cfg(test)]
mod tests {
    use super::{Rule, SAMPLE_PIECE_BYTES, Survey, cut, sample_pieces};

    #[test]
    fn a_large_text_without_spaces_is_sampled_in_small_pieces() {
        // Texts whose words end without spaces, and one without any word end.
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
        // There is no line end before the wanted share, but one after it.
        assert_eq!(cut("aaaaaa\nbbb", 0.5), Some(7));
        // There is no line end inside the text.
        assert_eq!(cut("aaaaaaaa\n", 0.5), Some(4));
        assert_eq!(cut("éé", 0.5), Some(2));
        assert_eq!(cut("éé", 0.99), Some(2));
        assert_eq!(cut("é", 0.5), None);
        assert_eq!(cut("", 0.5), None);
    }

    #[test]
    fn a_line_end_far_from_the_wanted_share_cuts_nothing() {
        // Between characters, then before the nearest space, whatever the line ends would leave.
        let long = "x".repeat(1000);
        assert_eq!(cut(&format!("Title\n{long}"), 0.1), Some(905));
        assert_eq!(cut(&format!("{long}\nx"), 0.1), Some(901));
        let words = "word ".repeat(200);
        assert_eq!(cut(&format!("Title\n{words}"), 0.1), Some(900));
        // A space that is as far away is none either.
        assert_eq!(cut(&format!("A title {long}"), 0.1), Some(907));
        assert_eq!(cut(&format!(" {long}"), 0.9), Some(100));
    }
}

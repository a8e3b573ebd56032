//! Which text trains and which validates.

use crate::error::{Error, Result};
use crate::text::prefix;
use crate::tokenizer::divide;

/// The two splits, in the order of every pair here.
pub(super) const TRAIN: usize = 0;
pub(super) const VALID: usize = 1;

/// Bytes of text that are taken or left out together when a BPE sample is drawn.
const SAMPLE_PIECE_BYTES: usize = 64 << 10;

/// What has to be known about all documents before the first one is written.
pub(super) struct Survey {
    seed: u64,
    valid_fraction: f64,
    documents: u64,
    text_bytes: u64,
    train_bytes: u64,
    split_documents: [u64; 2],
    /// Smallest and largest share, with the document's index and bytes.
    lowest: Option<(u64, u64, u64)>,
    highest: Option<(u64, u64, u64)>,
    /// Where the first document would be cut.
    cut: Option<usize>,
    /// Of the hashes of all documents.
    hasher: blake3::Hasher,
}

/// The decision for every document.
pub(super) struct Split {
    seed: u64,
    valid_fraction: f64,
    documents: u64,
    text_bytes: u64,
    train_bytes: u64,
    rule: Rule,
    digest: blake3::Hash,
}

enum Rule {
    /// By the hash of the text.
    Hash,
    /// By the hash, but for one document that goes to this split, which would be empty otherwise.
    Forced { index: u64, split: usize },
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

const CHOOSE_SPLIT: u8 = 0;
const CHOOSE_SAMPLE: u8 = 1;

/// A hash as a number in [0, 1).
fn share(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

impl Survey {
    pub(super) fn new(seed: u64, valid_fraction: f64) -> Self {
        Self {
            seed,
            valid_fraction,
            documents: 0,
            text_bytes: 0,
            train_bytes: 0,
            split_documents: [0; 2],
            lowest: None,
            highest: None,
            cut: None,
            hasher: blake3::Hasher::new(),
        }
    }

    pub(super) fn add(&mut self, text: &str) {
        let fraction = self.valid_fraction;
        self.add_document(text.as_bytes(), || cut(text, fraction));
    }

    /// Adds a document of any kind; `cut` is where it would be cut if it were the only one.
    pub(super) fn add_document(&mut self, document: &[u8], cut: impl FnOnce() -> Option<usize>) {
        let bytes = document.len() as u64;
        let hash = hash(CHOOSE_SPLIT, self.seed, document);
        self.hasher.update(&hash.to_le_bytes());
        self.hasher.update(&bytes.to_le_bytes());
        let entry = (hash, self.documents, bytes);
        self.lowest = Some(self.lowest.map_or(entry, |lowest| lowest.min(entry)));
        self.highest = Some(self.highest.map_or(entry, |highest| highest.max(entry)));
        if share(hash) < self.valid_fraction {
            self.split_documents[VALID] += 1;
        } else {
            self.split_documents[TRAIN] += 1;
            self.train_bytes += bytes;
        }
        if self.documents == 0 {
            self.cut = cut();
        }
        self.documents += 1;
        self.text_bytes += bytes;
    }

    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    pub(super) fn finish(self) -> Result<Split> {
        let (rule, train_bytes) = match (self.documents, self.cut, self.lowest, self.highest) {
            (1, Some(cut), ..) => (Rule::Cut(cut), cut as u64),
            (0 | 1, ..) => {
                return Err(Error::EmptySplit {
                    split: "validation",
                    documents: self.documents,
                    text_bytes: self.text_bytes,
                });
            }
            (_, _, Some((_, index, bytes)), _) if self.split_documents[VALID] == 0 => {
                let split = VALID;
                (Rule::Forced { index, split }, self.train_bytes - bytes)
            }
            (_, _, _, Some((_, index, bytes))) if self.split_documents[TRAIN] == 0 => {
                let split = TRAIN;
                (Rule::Forced { index, split }, bytes)
            }
            _ => (Rule::Hash, self.train_bytes),
        };
        Ok(Split {
            seed: self.seed,
            valid_fraction: self.valid_fraction,
            documents: self.documents,
            text_bytes: self.text_bytes,
            train_bytes,
            rule,
            digest: self.hasher.finalize(),
        })
    }
}

impl Split {
    /// Stands for the documents, their order, and where each goes.
    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.digest.as_bytes());
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&self.valid_fraction.to_bits().to_le_bytes());
        hasher.finalize()
    }

    /// Where document `index` goes.
    pub(super) fn choose(&self, index: u64, document: &[u8]) -> Choice {
        match self.rule {
            Rule::Cut(cut) => Choice::Cut(cut),
            Rule::Forced {
                index: forced,
                split,
            } if forced == index => Choice::Whole(split),
            _ if share(hash(CHOOSE_SPLIT, self.seed, document)) < self.valid_fraction => {
                Choice::Whole(VALID)
            }
            _ => Choice::Whole(TRAIN),
        }
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
}

/// Takes pieces from all over the training text, up to a number of bytes.
pub(super) struct Sample {
    seed: u64,
    rate: f64,
    left_bytes: u64,
}

impl Sample {
    pub(super) fn take(&mut self, text: &str, mut visit: impl FnMut(&str)) {
        for piece in divide(text, SAMPLE_PIECE_BYTES) {
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
    use super::cut;

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

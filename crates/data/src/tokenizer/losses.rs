//! Characters that an encoding loses.

use std::iter::Sum;
use std::ops::{AddAssign, Range};

use serde::{Deserialize, Serialize};
use tokenizers::{Model, ModelWrapper};

/// Characters of a text that its tokens do not represent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// Characters without a token, or removed by a step of the tokenizer.
    pub dropped: u64,
    /// Characters that became the unknown token.
    pub unknown: u64,
}

impl Losses {
    /// Characters that the tokens do not represent.
    #[must_use]
    pub fn characters(self) -> u64 {
        self.dropped + self.unknown
    }

    /// Sentences about the characters that a text lost; `of` names the text. Empty if nothing was lost.
    #[must_use]
    pub fn notes(self, of: &str) -> Vec<String> {
        let mut notes = Vec::new();
        if self.dropped > 0 {
            notes.push(format!(
                "The tokenizer dropped {} characters of {of}, which the tokens do not tell of.",
                self.dropped
            ));
        }
        if self.unknown > 0 {
            notes.push(format!(
                "{} characters of {of} became the tokenizer's unknown token.",
                self.unknown
            ));
        }
        notes
    }
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.dropped += other.dropped;
        self.unknown += other.unknown;
    }
}

impl Sum for Losses {
    fn sum<I: Iterator<Item = Self>>(losses: I) -> Self {
        let mut sum = Self::default();
        for some in losses {
            sum += some;
        }
        sum
    }
}

/// The characters of a word for which a byte-pair encoding has no token, as byte ranges.
pub(super) fn missing(model: &ModelWrapper, word: &str) -> Vec<Range<usize>> {
    let ModelWrapper::BPE(bpe) = model else {
        return Vec::new();
    };
    let suffix = bpe.end_of_word_suffix.as_deref().unwrap_or_default();
    let has_bytes = |c: &str| {
        let token = |byte| bpe.token_to_id(&format!("<0x{byte:02X}>"));
        bpe.byte_fallback && c.bytes().all(|byte| token(byte).is_some())
    };
    let mut found = Vec::new();
    for (start, c) in word.char_indices() {
        let end = start + c.len_utf8();
        let mut token = word[start..end].to_owned();
        if end == word.len() {
            token.push_str(suffix);
        }
        if bpe.token_to_id(&token).is_none() && !has_bytes(&token) {
            found.push(start..end);
        }
    }
    found
}

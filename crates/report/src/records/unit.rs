//! What a run counts.

use super::Record;

/// What the predictions of a run are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unit {
    /// Tokens of text.
    #[default]
    Token,
    /// Whole pictures.
    Image,
}

impl Unit {
    /// The unit of a run, by its records.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let is_of_images = |record: &Record| match record {
            Record::Train(r) => r.images_per_s.is_some(),
            Record::Eval(r) => r.top1.is_some(),
            _ => false,
        };
        match records.iter().any(is_of_images) {
            true => Self::Image,
            false => Self::Token,
        }
    }

    /// `tokens` or `images`.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Token => "tokens",
            Self::Image => "images",
        }
    }

    /// The word of the unit that text has: the first for tokens, the second for images.
    pub(crate) fn choose(self, tokens: &'static str, images: &'static str) -> &'static str {
        match self {
            Self::Token => tokens,
            Self::Image => images,
        }
    }
}

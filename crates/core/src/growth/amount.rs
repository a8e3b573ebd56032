//! The text form of growth settings in recipes and flags.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Reads and writes a type as the text that it is shown as.
macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(
                &self,
                s: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                d: D,
            ) -> std::result::Result<Self, D::Error> {
                String::deserialize(d)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Amount, TauRule, At);

/// How many tokens a site gains: `+512`, or `=2048` for a new total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// This number more.
    Add(usize),
    /// This total number.
    To(usize),
}

impl Default for Amount {
    fn default() -> Self {
        Self::Add(0)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(n) => write!(f, "+{n}"),
            Self::To(n) => write!(f, "={n}"),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |digits: &str| {
            digits
                .parse()
                .map_err(|_| format!("\"{text}\" is neither +N nor =N with a whole number N"))
        };
        match text.split_at_checked(1) {
            Some(("+", digits)) => number(digits).map(Self::Add),
            Some(("=", digits)) => number(digits).map(Self::To),
            _ => Err(format!(
                "\"{text}\" is neither +N (more tokens) nor =N (a new total)"
            )),
        }
    }
}

/// How the numbers of new tokens start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// All zero.
    Zero,
    /// As in a fresh model.
    Random,
    /// Random, with the root mean square of those that the site has.
    Matched,
    /// For keys: random, so that the new scores have the root mean square of the old ones on probe tokens.
    Scores,
}

/// What happens to the `τ` of a grown site under a joint norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TauRule {
    /// It stays as it is; one that an earlier growth moves stops.
    #[default]
    Pinned,
    /// It becomes the square root of the new total immediately, as in the released code.
    SqrtN,
    /// It moves there over this number of training steps.
    Anneal(u64),
    /// It follows the sizes of old and new scores, so that the weights of old tokens stay as they are
    /// ([`crate::config::Tracked`]).
    Tracked,
}

impl fmt::Display for TauRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::SqrtN => f.write_str("sqrt-n"),
            Self::Anneal(steps) => write!(f, "anneal:{steps}"),
            Self::Tracked => f.write_str("tracked"),
        }
    }
}

impl FromStr for TauRule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.strip_prefix("anneal:").map(str::parse)) {
            ("pinned", _) => Ok(Self::Pinned),
            ("sqrt-n", _) => Ok(Self::SqrtN),
            ("tracked", _) => Ok(Self::Tracked),
            (_, Some(Ok(steps))) if steps > 0 => Ok(Self::Anneal(steps)),
            _ => Err(format!(
                "\"{text}\" is none of pinned, sqrt-n, tracked, anneal:STEPS"
            )),
        }
    }
}

/// The learning rate of new arrays for which larger arrays cause larger changes of the output per update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// For arrays that start from zero: `n / m` of the usual one, where `n` are the site's first tokens (the first hidden
    /// units of an MLP) and `m` the new ones, at most 1. The first steps of zero rows all go in coherent directions, so
    /// at the usual rate they move the output in proportion to `m`. Of linear layers that were widened: the old width
    /// over the new one.
    #[default]
    Slots,
    /// The usual one.
    Full,
}

impl Rate {
    /// Factor of the learning rate of `added` rows that start from zero, for `base` first rows.
    pub(super) fn of_added(self, base: usize, added: usize) -> f32 {
        match self {
            Self::Slots => (base as f32 / added as f32).min(1.0),
            Self::Full => 1.0,
        }
    }
}

/// What new blocks start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewBlocks {
    /// Freshly initialised weights, but zero where the block writes to the residual stream: it adds nothing at first.
    #[default]
    Zero,
    /// Copies of the blocks, from the first on and in order, after the last (stacking); the function changes.
    Copy,
    /// Each is a copy of the block before it, spread evenly; the function changes.
    Interpose,
    /// Copies of the last block, after it; the function changes.
    Last,
    /// Freshly initialised weights; the function changes.
    Fresh,
}

/// The position of new blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Before the first.
    Start,
    /// Spread evenly, none before the first.
    Even,
    /// In the middle.
    Middle,
    /// After the last.
    End,
    /// After this number of the present blocks.
    After(usize),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::Even => f.write_str("even"),
            Self::Middle => f.write_str("middle"),
            Self::End => f.write_str("end"),
            Self::After(blocks) => write!(f, "after:{blocks}"),
        }
    }
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.strip_prefix("after:").map(str::parse)) {
            ("start", _) => Ok(Self::Start),
            ("even", _) => Ok(Self::Even),
            ("middle", _) => Ok(Self::Middle),
            ("end", _) => Ok(Self::End),
            (_, Some(Ok(blocks))) => Ok(Self::After(blocks)),
            _ => Err(format!(
                "\"{text}\" is none of start, even, middle, end, after:BLOCKS"
            )),
        }
    }
}

/// What happens to the optimizer's moments of arrays that stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moments {
    /// They are kept.
    #[default]
    Kept,
    /// They start from zero again, and updates are counted from zero.
    Reset,
}

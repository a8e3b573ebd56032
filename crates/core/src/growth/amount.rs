//! The words in which a growth is asked for, in recipes and flags.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How many tokens a site gains: `+512`, or `=2048` for a new total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many more.
    Add(usize),
    /// So many in all.
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

impl Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
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
}

/// What happens to the `τ` of a grown site under a joint norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TauRule {
    /// It stays.
    #[default]
    Pinned,
    /// It becomes the root of the new total at once, as in the released code.
    SqrtN,
    /// It moves there over so many training steps.
    Anneal(u64),
}

impl fmt::Display for TauRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::SqrtN => f.write_str("sqrt-n"),
            Self::Anneal(steps) => write!(f, "anneal:{steps}"),
        }
    }
}

impl FromStr for TauRule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.strip_prefix("anneal:").map(str::parse)) {
            ("pinned", _) => Ok(Self::Pinned),
            ("sqrt-n", _) => Ok(Self::SqrtN),
            (_, Some(Ok(steps))) if steps > 0 => Ok(Self::Anneal(steps)),
            _ => Err(format!(
                "\"{text}\" is none of pinned, sqrt-n, anneal:STEPS"
            )),
        }
    }
}

impl Serialize for TauRule {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TauRule {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The learning rate of new tokens' arrays that start from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// `n / m` of the usual one, where `n` are the site's first tokens and `m` the new ones, at most 1. The first steps
    /// of zero rows all go in coherent directions, so at the usual rate they move the output in proportion to `m`.
    #[default]
    Slots,
    /// The usual one.
    Full,
}

/// What new blocks start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewBlocks {
    /// Fresh weights, but zero where the block writes to the residual stream: it adds nothing at first.
    #[default]
    Zero,
    /// Copies of the blocks from the first on, in their order (stacking): the function moves.
    Copy,
}

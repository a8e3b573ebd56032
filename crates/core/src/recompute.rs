//! Activation checkpointing: what a training step keeps for its backward pass, and what it recomputes.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What the backward pass recomputes instead of keeping. Losses and gradients are the same to the bit, because
/// everything is recomputed in the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing: the tape keeps everything that the backward pass reads.
    #[default]
    #[serde(alias = "speed")]
    None,
    /// The scores `[R, N]` of Pattention sites, the largest part of the kept activations: one product of six is computed
    /// twice.
    #[serde(alias = "balanced")]
    Scores,
    /// Whole blocks, of which only the input is kept: every block's forward pass is computed twice, and the scores a
    /// third time.
    #[serde(alias = "lean")]
    Blocks,
}

impl Recompute {
    /// All of them, from the most memory to the least.
    pub const ALL: [Self; 3] = [Self::None, Self::Scores, Self::Blocks];

    /// Its name in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scores => "scores",
            Self::Blocks => "blocks",
        }
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Recompute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|m| m.name() == text);
        found.ok_or_else(|| "none, scores or blocks".into())
    }
}

//! How much a training step keeps for its backward pass, and how much it computes again.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What the tape keeps. Losses and gradients are the same to the bit: what is computed again is computed in
/// the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// Everything that the backward pass reads.
    #[default]
    Speed,
    /// All but the scores `[R, N]` of Pattention sites, the largest part: one product of six is computed
    /// twice.
    Balanced,
    /// The input of each block only: every block's forward pass is computed twice, and the scores a third
    /// time.
    Lean,
}

impl Memory {
    /// All of them, from the most memory to the least.
    pub const ALL: [Self; 3] = [Self::Speed, Self::Balanced, Self::Lean];

    /// Its name in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Balanced => "balanced",
            Self::Lean => "lean",
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|m| m.name() == text);
        found.ok_or_else(|| "speed, balanced or lean".into())
    }
}

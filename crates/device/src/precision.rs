//! Rounding of numbers in products and in stored weights.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How the operands of large products are rounded during training; sums are always in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Operands are not rounded.
    #[default]
    F32,
    /// Operands are rounded to bfloat16, and so are the scores that training stores. Parameters and the optimizer stay
    /// in f32.
    Bf16,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// The name in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error for an unknown name.
#[derive(Debug, thiserror::Error)]
#[error("unknown precision {0:?}; there are f32 and bf16")]
pub struct UnknownPrecision(String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    /// ```
    /// use tokenformer_device::Precision;
    /// assert_eq!("bf16".parse::<Precision>().unwrap(), Precision::Bf16);
    /// assert!("fp8".parse::<Precision>().is_err());
    /// ```
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|p| p.name() == name)
            .ok_or_else(|| UnknownPrecision(name.into()))
    }
}

/// The format of weights for inference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightFormat {
    /// 4 bytes, exact.
    #[default]
    F32,
    /// 2 bytes: the upper half of an f32.
    Bf16,
    /// 1 byte: integers from -127 to 127, with an f32 scale per column and block of positions.
    Int8,
}

impl WeightFormat {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of `count` weights.
    pub fn bytes(self, count: u64) -> u64 {
        match self {
            Self::F32 => count.saturating_mul(4),
            Self::Bf16 => count.saturating_mul(2),
            Self::Int8 => count.saturating_add(count / 64),
        }
    }
}

//! The precision of a device's products.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How the factors of large products are rounded; sums are in f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To bfloat16, like the activations that training keeps. Parameters and the optimizer stay in f32.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// The name in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// The fastest precision for training on this processor, and why.
    pub fn auto() -> (Self, &'static str) {
        if tokenformer_kernels::simd::multiplies_bf16() {
            (
                Self::Bf16,
                "the processor multiplies bfloat16 (AVX512-BF16)",
            )
        } else {
            (
                Self::F32,
                "the processor has no instructions that multiply bfloat16",
            )
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no precision has.
#[derive(Debug, thiserror::Error)]
#[error("unknown precision {0:?}; there are f32 and bf16")]
pub struct UnknownPrecision(String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    /// ```
    /// use tokenformer_core::Precision;
    /// assert_eq!("bf16".parse::<Precision>().unwrap(), Precision::Bf16);
    /// assert!("fp8".parse::<Precision>().is_err());
    /// ```
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|p| p.name() == name)
            .ok_or_else(|| UnknownPrecision(name.into()))
    }
}

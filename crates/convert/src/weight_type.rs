//! The types in which files hold weights.

use half::{bf16, f16};

/// The type of weights in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightType {
    /// IEEE single precision.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
}

impl WeightType {
    pub(crate) fn of_store(self) -> tokenformer_store::Dtype {
        match self {
            Self::F32 => tokenformer_store::Dtype::F32,
            Self::F16 => tokenformer_store::Dtype::F16,
            Self::BF16 => tokenformer_store::Dtype::BF16,
        }
    }

    pub(crate) fn of_torch(self) -> tokenformer_formats::Dtype {
        match self {
            Self::F32 => tokenformer_formats::Dtype::F32,
            Self::F16 => tokenformer_formats::Dtype::F16,
            Self::BF16 => tokenformer_formats::Dtype::BF16,
        }
    }

    /// Its name in `torch_dtype`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }

    /// Bytes of a number.
    pub(crate) fn size_bytes(self) -> u64 {
        self.of_store().size_bytes() as u64
    }

    /// Rounds a number to the type.
    pub(crate) fn round(self, number: f32) -> f32 {
        match self {
            Self::F32 => number,
            Self::F16 => f16::from_f32(number).to_f32(),
            Self::BF16 => bf16::from_f32(number).to_f32(),
        }
    }

    /// The less precise of two types.
    pub(crate) fn narrower(self, other: Self) -> Self {
        match (self, other) {
            (Self::BF16, _) | (_, Self::BF16) => Self::BF16,
            (Self::F16, _) | (_, Self::F16) => Self::F16,
            (Self::F32, Self::F32) => Self::F32,
        }
    }

    pub(crate) fn append(self, numbers: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::F32 => out.extend(numbers.iter().flat_map(|x| x.to_le_bytes())),
            Self::F16 => out.extend(numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
            Self::BF16 => out.extend(
                numbers
                    .iter()
                    .flat_map(|&x| bf16::from_f32(x).to_le_bytes()),
            ),
        }
    }

    /// The first number that becomes infinite when it is rounded.
    pub(crate) fn overflow(self, numbers: &[f32]) -> Option<f32> {
        // Halfway between the largest half-precision number and the next power of two.
        const F16_LIMIT: f32 = 65_520.0;
        const BF16_LIMIT: f32 = 3.3961775e38;
        let limit = match self {
            Self::F32 => return None,
            Self::F16 => F16_LIMIT,
            Self::BF16 => BF16_LIMIT,
        };
        numbers
            .iter()
            .copied()
            .find(|x| x.is_finite() && x.abs() >= limit)
    }
}

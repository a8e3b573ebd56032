//! Element types and their conversion to `f32`.

use std::fmt;

use half::{bf16, f16};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// IEEE half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size_bytes(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 => 1,
            Dtype::I16 | Dtype::F16 | Dtype::BF16 => 2,
            Dtype::I32 | Dtype::F32 => 4,
            Dtype::I64 | Dtype::F64 => 8,
        }
    }

    /// Whether elements are floating-point numbers, which is what the readers convert to `f32`.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    }

    /// The type of `torch.<name>Storage`.
    pub(crate) fn from_storage(name: &str) -> Option<Dtype> {
        Some(match name {
            "Bool" => Dtype::Bool,
            "Byte" => Dtype::U8,
            "Char" => Dtype::I8,
            "Short" => Dtype::I16,
            "Int" => Dtype::I32,
            "Long" => Dtype::I64,
            "Half" => Dtype::F16,
            "BFloat16" => Dtype::BF16,
            "Float" => Dtype::F32,
            "Double" => Dtype::F64,
            _ => return None,
        })
    }

    /// The name in `torch.<name>Storage`.
    pub(crate) fn storage(self) -> &'static str {
        match self {
            Dtype::Bool => "Bool",
            Dtype::U8 => "Byte",
            Dtype::I8 => "Char",
            Dtype::I16 => "Short",
            Dtype::I32 => "Int",
            Dtype::I64 => "Long",
            Dtype::F16 => "Half",
            Dtype::BF16 => "BFloat16",
            Dtype::F32 => "Float",
            Dtype::F64 => "Double",
        }
    }

    /// Converts elements until `out` is full; `false` for types that are not floating-point.
    pub(crate) fn to_f32(self, bytes: &[u8], out: &mut [f32]) -> bool {
        match self {
            Dtype::F32 => fill(out, elements(bytes).map(f32::from_le_bytes)),
            Dtype::F16 => fill(out, elements(bytes).map(|b| f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => fill(
                out,
                elements(bytes).map(|b| bf16::from_le_bytes(b).to_f32()),
            ),
            Dtype::F64 => fill(out, elements(bytes).map(|b| f64::from_le_bytes(b) as f32)),
            _ => return false,
        }
        true
    }

    /// Appends little-endian elements; `false` for types that the writer does not support.
    pub(crate) fn append_bytes(self, values: &[f32], out: &mut Vec<u8>) -> bool {
        match self {
            Dtype::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Dtype::F16 => out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
            Dtype::BF16 => out.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
            _ => return false,
        }
        true
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The `N`-byte elements of `bytes`. A remainder is ignored; checked ranges have none.
fn elements<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn fill(out: &mut [f32], values: impl Iterator<Item = f32>) {
    for (slot, value) in out.iter_mut().zip(values) {
        *slot = value;
    }
}

//! Conversion of bytes of one element type to numbers of another.

use half::{bf16, f16};

use super::Dtype;

/// The little-endian `N`-byte elements of `bytes`. A remainder is ignored; checked ranges have none.
fn elements<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn fill<T>(out: &mut [T], values: impl Iterator<Item = T>) {
    for (slot, value) in out.iter_mut().zip(values) {
        *slot = value;
    }
}

/// Converts floating-point elements; `false` for other types.
pub(super) fn to_f32(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> bool {
    match dtype {
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

/// Converts floating-point elements, exactly; `false` for other types.
pub(super) fn to_f64(dtype: Dtype, bytes: &[u8], out: &mut [f64]) -> bool {
    match dtype {
        Dtype::F32 => fill(out, elements(bytes).map(|b| f32::from_le_bytes(b).into())),
        Dtype::F16 => fill(out, elements(bytes).map(|b| f16::from_le_bytes(b).to_f64())),
        Dtype::BF16 => fill(
            out,
            elements(bytes).map(|b| bf16::from_le_bytes(b).to_f64()),
        ),
        Dtype::F64 => fill(out, elements(bytes).map(f64::from_le_bytes)),
        _ => return false,
    }
    true
}

/// An integer that is not in the range of `u32`, and where it is.
pub(super) struct OutOfRange {
    pub(super) index: usize,
    pub(super) value: i128,
}

/// Converts integer elements; `None` for other types.
pub(super) fn to_u32(dtype: Dtype, bytes: &[u8]) -> Option<Result<Vec<u32>, OutOfRange>> {
    Some(match dtype {
        Dtype::U8 => collect(elements(bytes).map(u8::from_le_bytes)),
        Dtype::I8 => collect(elements(bytes).map(i8::from_le_bytes)),
        Dtype::I16 => collect(elements(bytes).map(i16::from_le_bytes)),
        Dtype::U16 => collect(elements(bytes).map(u16::from_le_bytes)),
        Dtype::I32 => collect(elements(bytes).map(i32::from_le_bytes)),
        Dtype::U32 => collect(elements(bytes).map(u32::from_le_bytes)),
        Dtype::I64 => collect(elements(bytes).map(i64::from_le_bytes)),
        Dtype::U64 => collect(elements(bytes).map(u64::from_le_bytes)),
        _ => return None,
    })
}

fn collect<T: Copy + TryInto<u32> + Into<i128>>(
    values: impl Iterator<Item = T>,
) -> Result<Vec<u32>, OutOfRange> {
    values
        .enumerate()
        .map(|(index, value)| {
            value.try_into().map_err(|_| OutOfRange {
                index,
                value: value.into(),
            })
        })
        .collect()
}

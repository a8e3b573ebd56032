//! The bytes of a block: [`PANEL`] columns by at most [`BLOCK`] positions, row after row.
//!
//! A block of [`Format::Int8`] starts with the 32 scales of its columns.

use super::super::bf16::Bf16;
use super::super::driver;
use super::super::kernel::PANEL;
use super::super::pack::{LINE, Line};
use crate::simd::simd;

/// Positions of `K` in a block.
pub(super) const BLOCK: usize = driver::BLOCK;
/// Lines of the scales of an `Int8` block.
const SCALE_LINES: usize = PANEL / LINE;
/// Largest magnitude of a quantised number.
const MOST: f32 = 127.0;

/// What a prepared weight is kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// f32, unchanged.
    #[default]
    F32,
    /// bfloat16, to the nearest.
    Bf16,
    /// 8-bit integers, with one f32 scale for every 256 positions of a column.
    Int8,
}

impl Format {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of `count` weights, without what fills the last panel and block.
    pub fn bytes(self, count: u64) -> u64 {
        match self {
            Self::F32 => count.saturating_mul(4),
            Self::Bf16 => count.saturating_mul(2),
            Self::Int8 => count.saturating_add(count / (BLOCK / size_of::<f32>()) as u64),
        }
    }
}

/// Lines of a block of `k` positions.
pub(super) fn block_lines(format: Format, k: usize) -> usize {
    match format {
        Format::F32 => k * (PANEL / LINE),
        Format::Bf16 => k * PANEL / (2 * LINE),
        Format::Int8 => SCALE_LINES + (k * PANEL).div_ceil(4 * LINE),
    }
}

/// Lines of a panel of `k` positions.
pub(super) fn panel_lines(format: Format, k: usize) -> usize {
    let rest = match k % BLOCK {
        0 => 0,
        rest => block_lines(format, rest),
    };
    k / BLOCK * block_lines(format, BLOCK) + rest
}

/// A row of a block of a panel.
pub(super) type Row<T> = [T; PANEL];

/// Views lines as rows of plain numbers.
macro_rules! view {
    ($name:ident, $name_mut:ident, $number:ty) => {
        pub(super) fn $name(lines: &[Line]) -> &[Row<$number>] {
            let len = size_of_val(lines) / size_of::<Row<$number>>();
            // SAFETY: lines are aligned more strictly, hold so many rows, and every bit pattern is a number.
            unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), len) }
        }
        fn $name_mut(lines: &mut [Line]) -> &mut [Row<$number>] {
            let len = size_of_val(lines) / size_of::<Row<$number>>();
            // SAFETY: as above, and every number is a valid content of a line.
            unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), len) }
        }
    };
}
view!(floats, floats_mut, f32);
view!(halves, halves_mut, u16);
view!(bytes, bytes_mut, i8);

/// The scales and the rows of an `Int8` block.
pub(super) fn scaled(block: &[Line]) -> (&Row<f32>, &[Row<i8>]) {
    let (scales, rows) = block.split_at(SCALE_LINES);
    (&floats(scales)[0], bytes(rows))
}

#[inline(always)]
pub(super) fn from_half(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// Largest magnitude; NaN if there is one.
fn magnitude(numbers: impl Iterator<Item = f32>) -> f32 {
    numbers.fold(0.0f32, |most, x| {
        if x.is_nan() || most.is_nan() {
            f32::NAN
        } else {
            most.max(x.abs())
        }
    })
}

/// `to` = the rows of `wide`, in `format`. A column of `Int8` with a number that is not finite becomes NaN.
pub(super) fn narrow(format: Format, to: &mut [Line], wide: &[Row<f32>]) {
    assert_eq!(to.len(), block_lines(format, wide.len()));
    match format {
        Format::F32 => floats_mut(to).copy_from_slice(wide),
        Format::Bf16 => {
            for (to, wide) in halves_mut(to).iter_mut().zip(wide) {
                *to = wide.map(|x| Bf16::from_f32(x).to_bits());
            }
        }
        Format::Int8 => {
            let (scales, rows) = to.split_at_mut(SCALE_LINES);
            let most: Row<f32> = std::array::from_fn(|col| magnitude(wide.iter().map(|r| r[col])));
            let scale = |most: f32| {
                if most.is_finite() {
                    most / MOST
                } else {
                    f32::NAN
                }
            };
            let scales = &mut floats_mut(scales)[0];
            *scales = most.map(scale);
            // A scale of 0, or below the normal numbers, has no reciprocal: its column becomes 0.
            let inverse = scales.map(|s| if s.is_normal() { 1.0 / s } else { 0.0 });
            for (to, wide) in bytes_mut(rows).iter_mut().zip(wide) {
                // The cast turns NaN into 0.
                *to = std::array::from_fn(|col| (wide[col] * inverse[col]).round_ties_even() as i8);
            }
        }
    }
}

/// `to` = the numbers of a block, in parts of `W` columns, one after the other; but for the factors of its columns
/// that are returned.
pub(super) fn widen<'a, const W: usize>(
    format: Format,
    to: &mut [f32],
    block: &'a [Line],
) -> Option<&'a Row<f32>> {
    assert_eq!(block.len(), block_lines(format, to.len() / PANEL));
    match format {
        Format::F32 => widen_floats::<W>(to, floats(block)),
        Format::Bf16 => widen_halves::<W>(to, halves(block)),
        Format::Int8 => {
            let (scales, rows) = scaled(block);
            widen_bytes::<W>(to, rows);
            return Some(scales);
        }
    }
    None
}

/// Writes the rows of a block, part by part.
#[inline(always)]
fn parts<const W: usize, T>(to: &mut [f32], rows: &[Row<T>], wide: impl Fn(&T) -> f32) {
    let depth = to.len() / PANEL;
    for (part, to) in to.chunks_exact_mut(depth * W).enumerate() {
        for (to, row) in to.as_chunks_mut::<W>().0.iter_mut().zip(rows) {
            for (col, to) in to.iter_mut().enumerate() {
                *to = wide(&row[part * W + col]);
            }
        }
    }
}

simd! {
    fn widen_floats<const W: usize>(to: &mut [f32], rows: &[Row<f32>]) {
        parts::<W, _>(to, rows, |x| *x);
    }
}
simd! {
    fn widen_halves<const W: usize>(to: &mut [f32], rows: &[Row<u16>]) {
        parts::<W, _>(to, rows, |half| from_half(*half));
    }
}
simd! {
    fn widen_bytes<const W: usize>(to: &mut [f32], rows: &[Row<i8>]) {
        parts::<W, _>(to, rows, |byte| f32::from(*byte));
    }
}

/// `to` = the numbers of one column of a block.
pub(super) fn column(format: Format, block: &[Line], col: usize, to: &mut [f32]) {
    match format {
        Format::F32 => pick(to, floats(block), |row| row[col]),
        Format::Bf16 => pick(to, halves(block), |row| from_half(row[col])),
        Format::Int8 => {
            let (scales, rows) = scaled(block);
            pick(to, rows, |row| f32::from(row[col]) * scales[col]);
        }
    }
}

fn pick<T>(to: &mut [f32], rows: &[Row<T>], number: impl Fn(&Row<T>) -> f32) {
    to.iter_mut()
        .zip(rows)
        .for_each(|(to, row)| *to = number(row));
}

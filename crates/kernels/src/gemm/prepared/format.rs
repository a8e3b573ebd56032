//! The bytes of a panel: [`PANEL`] columns by `K` positions.
//!
//! [`Format::F32`] has two parts of 16 columns, one after the other, with a [`Line`] for every position: micro-kernels
//! with tiles of 16 columns read them where they lie. The others have a block for every [`BLOCK`] positions,
//! row after row; one of [`Format::Int8`] starts with the 32 scales of its columns.

use super::super::bf16::Bf16;
use super::super::driver;
use super::super::kernel::PANEL;
use super::super::pack::{LINE, Line};
use crate::simd::simd;
use std::ops::Range;

/// Positions of `K` in a block.
pub(super) const BLOCK: usize = driver::BLOCK;
/// Parts of a panel of [`Format::F32`].
const PARTS: usize = PANEL / LINE;
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

/// Lines of a block of `k` positions; in [`Format::F32`], of both parts together.
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

/// Views lines as plain numbers.
macro_rules! view {
    ($name:ident, $name_mut:ident, $number:ty) => {
        pub(super) fn $name(lines: &[Line]) -> &[$number] {
            let len = size_of_val(lines) / size_of::<$number>();
            // SAFETY: lines are aligned more strictly, hold so many numbers, and every bit pattern is one.
            unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), len) }
        }
        fn $name_mut(lines: &mut [Line]) -> &mut [$number] {
            let len = size_of_val(lines) / size_of::<$number>();
            // SAFETY: as above, and every number is a valid content of a line.
            unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), len) }
        }
    };
}
view!(floats, floats_mut, f32);
view!(halves, halves_mut, u16);
view!(bytes, bytes_mut, i8);

/// The whole rows among some numbers.
fn rows<T>(numbers: &[T]) -> &[Row<T>] {
    numbers.as_chunks().0
}
fn rows_mut<T>(numbers: &mut [T]) -> &mut [Row<T>] {
    numbers.as_chunks_mut().0
}

/// The weights at one block of positions.
#[derive(Clone, Copy)]
pub(super) enum Block<'a> {
    /// Position `i` of part `p` is line `p·part + i`.
    F32 {
        lines: &'a [Line],
        part: usize,
    },
    Bf16(&'a [Row<u16>]),
    Int8 {
        scales: &'a Row<f32>,
        rows: &'a [Row<i8>],
    },
}

impl<'a> Block<'a> {
    /// The block of `positions` of a panel of `k` positions.
    pub fn new(format: Format, panel: &'a [Line], k: usize, positions: Range<usize>) -> Self {
        let lines = &panel[lines_of(format, k, positions)];
        match format {
            Format::F32 => Self::F32 { lines, part: k },
            Format::Bf16 => Self::Bf16(rows(halves(lines))),
            Format::Int8 => {
                let (scales, quantised) = lines.split_at(SCALE_LINES);
                Self::Int8 {
                    scales: &rows(floats(scales))[0],
                    rows: rows(bytes(quantised)),
                }
            }
        }
    }
}

/// The lines of a panel of `k` positions that hold those of a block; in [`Format::F32`] with what lies between its parts.
fn lines_of(format: Format, k: usize, positions: Range<usize>) -> Range<usize> {
    if format == Format::F32 {
        return positions.start..(PARTS - 1) * k + positions.end;
    }
    let start = positions.start / BLOCK * block_lines(format, BLOCK);
    start..start + block_lines(format, positions.len())
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

/// Writes the rows of `wide`, in `format`, as the block from position `start` on of a panel of `k`. A column of
/// `Int8` with a number that is not finite becomes NaN.
pub(super) fn narrow(
    format: Format,
    panel: &mut [Line],
    k: usize,
    start: usize,
    wide: &[Row<f32>],
) {
    let to = &mut panel[lines_of(format, k, start..start + wide.len())];
    match format {
        Format::F32 => {
            for (part, to) in to.chunks_mut(k).enumerate() {
                for (to, wide) in floats_mut(to).as_chunks_mut().0.iter_mut().zip(wide) {
                    *to = wide.as_chunks::<LINE>().0[part];
                }
            }
        }
        Format::Bf16 => {
            for (to, wide) in rows_mut(halves_mut(to)).iter_mut().zip(wide) {
                *to = wide.map(|x| Bf16::from_f32(x).to_bits());
            }
        }
        Format::Int8 => {
            let (scales, to) = to.split_at_mut(SCALE_LINES);
            let most: Row<f32> = std::array::from_fn(|col| magnitude(wide.iter().map(|r| r[col])));
            let scale = |most: f32| {
                if most.is_finite() {
                    most / MOST
                } else {
                    f32::NAN
                }
            };
            let scales = &mut rows_mut(floats_mut(scales))[0];
            *scales = most.map(scale);
            // A scale of 0, or below the normal numbers, has no reciprocal: its column becomes 0.
            let inverse = scales.map(|s| if s.is_normal() { 1.0 / s } else { 0.0 });
            for (to, wide) in rows_mut(bytes_mut(to)).iter_mut().zip(wide) {
                // The cast turns NaN into 0.
                *to = std::array::from_fn(|col| (wide[col] * inverse[col]).round_ties_even() as i8);
            }
        }
    }
}

/// `to` = the numbers of a block, in parts of `W` columns, one after the other; but for the factors of its columns
/// that are returned.
pub(super) fn widen<'a, const W: usize>(to: &mut [f32], block: Block<'a>) -> Option<&'a Row<f32>> {
    match block {
        Block::F32 { lines, part } => join::<W>(to, lines, part),
        Block::Bf16(rows) => widen_halves::<W>(to, rows),
        Block::Int8 { scales, rows } => {
            widen_bytes::<W>(to, rows);
            return Some(scales);
        }
    }
    None
}

simd! {
    /// Writes parts of 16 columns as parts of `W`.
    fn join<const W: usize>(to: &mut [f32], lines: &[Line], part: usize) {
        let depth = to.len() / PANEL;
        for (p, to) in to.chunks_exact_mut(depth * W).enumerate() {
            for (i, to) in to.as_chunks_mut::<W>().0.iter_mut().enumerate() {
                for (q, to) in to.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
                    *to = lines[(p * W / LINE + q) * part + i].0.map(f32::from_bits);
                }
            }
        }
    }
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
pub(super) fn column(block: Block<'_>, col: usize, to: &mut [f32]) {
    for (i, to) in to.iter_mut().enumerate() {
        *to = match block {
            Block::F32 { lines, part } => {
                f32::from_bits(lines[col / LINE * part + i].0[col % LINE])
            }
            Block::Bf16(rows) => from_half(rows[i][col]),
            Block::Int8 { scales, rows } => f32::from(rows[i][col]) * scales[col],
        };
    }
}

//! The storage format of a panel: [`PANEL`] columns by `K` positions.
//!
//! A panel has two parts of 16 columns, one after the other, each with the 16 numbers of every position in a row. So
//! f32 has the layout that micro-kernels with tiles of 16 columns read, and a product of few rows reads two streams at
//! once. With [`WeightFormat::Int8`] the scales come first: 32 for every [`BLOCK`] positions.

use super::super::bf16::Bf16;
use super::super::driver::{self, Memory};
use super::super::kernel::PANEL;
use crate::line::{LINE, Line};
use crate::simd::simd;
use std::ops::Range;
use tokenformer_device::WeightFormat;

/// Positions of `K` in a block.
pub(super) const BLOCK: usize = driver::BLOCK;
/// Parts of a panel.
const PARTS: usize = PANEL / LINE;
/// Lines of the scales of a block of [`WeightFormat::Int8`].
const SCALE_LINES: usize = PANEL / LINE;
/// Largest magnitude of a quantised number.
const MOST: f32 = 127.0;

/// Lines of the scales of a panel of `k` positions.
fn scale_lines(format: WeightFormat, k: usize) -> usize {
    match format {
        WeightFormat::F32 | WeightFormat::Bf16 => 0,
        WeightFormat::Int8 => k.div_ceil(BLOCK) * SCALE_LINES,
    }
}

/// Lines of a part of a panel of `k` positions.
fn part_lines(format: WeightFormat, k: usize) -> usize {
    match format {
        WeightFormat::F32 => k,
        WeightFormat::Bf16 => k.div_ceil(2),
        WeightFormat::Int8 => k.div_ceil(4),
    }
}

/// Lines of a panel of `k` positions.
pub(super) fn panel_lines(format: WeightFormat, k: usize) -> usize {
    scale_lines(format, k) + PARTS * part_lines(format, k)
}

/// A number for each column of a panel.
pub(super) type Row<T> = [T; PANEL];

/// Views lines as plain numbers.
macro_rules! view {
    ($name:ident, $name_mut:ident, $number:ty) => {
        fn $name(lines: &[Line]) -> &[$number] {
            let len = size_of_val(lines) / size_of::<$number>();
            // SAFETY: lines are aligned more strictly, hold that many numbers, and every bit pattern is valid.
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

/// Numbers of some positions; those of position `i` in part `p` begin at `p·part + i·16`.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a, T> {
    pub numbers: &'a [T],
    pub part: usize,
}

impl<'a, T> Parts<'a, T> {
    /// Selects `positions`; `numbers` are all numbers of a panel.
    fn new(numbers: &'a [T], positions: Range<usize>) -> Self {
        let part = numbers.len() / PARTS;
        let end = (PARTS - 1) * part + positions.end * LINE;
        Self {
            numbers: &numbers[positions.start * LINE..end],
            part,
        }
    }

    /// The numbers of a position in a part.
    #[inline(always)]
    fn row(&self, part: usize, position: usize) -> &'a [T; LINE] {
        let numbers = &self.numbers[part * self.part + position * LINE..];
        // `new` selected whole positions, and callers pass only positions of the block.
        numbers.first_chunk().expect("a position has all columns")
    }

    /// Where the numbers are, if there are `panel` lines from a panel to the next.
    fn memory(&self, panel: usize) -> Memory {
        let words = |numbers: usize| numbers * size_of::<T>() / size_of::<u32>();
        Memory {
            first: self.numbers.as_ptr().cast(),
            part: words(self.part),
            panel: panel * LINE,
            position: words(LINE),
        }
    }

    /// The number of a position in a column.
    fn number(&self, position: usize, col: usize) -> &'a T {
        &self.row(col / LINE, position)[col % LINE]
    }
}

/// The weights at one block of positions.
#[derive(Clone, Copy)]
pub(super) enum Block<'a> {
    F32(Parts<'a, f32>),
    Bf16(Parts<'a, u16>),
    Int8(&'a Row<f32>, Parts<'a, i8>),
}

impl<'a> Block<'a> {
    /// The block of `positions` of a panel of `k` positions.
    pub fn new(format: WeightFormat, panel: &'a [Line], k: usize, positions: Range<usize>) -> Self {
        let (scales, lines) = panel.split_at(scale_lines(format, k));
        match format {
            WeightFormat::F32 => Self::F32(Parts::new(floats(lines), positions)),
            WeightFormat::Bf16 => Self::Bf16(Parts::new(halves(lines), positions)),
            WeightFormat::Int8 => {
                let scales = &floats(scales).as_chunks().0[positions.start / BLOCK];
                Self::Int8(scales, Parts::new(bytes(lines), positions))
            }
        }
    }
}

impl Block<'_> {
    /// Where the numbers are, if there are `panel` lines from a panel to the next.
    pub fn memory(&self, panel: usize) -> Memory {
        match self {
            Self::F32(parts) => parts.memory(panel),
            Self::Bf16(parts) => parts.memory(panel),
            Self::Int8(_, parts) => parts.memory(panel),
        }
    }
}

#[inline(always)]
fn from_half(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// Largest magnitude; NaN if a number is NaN.
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
    format: WeightFormat,
    panel: &mut [Line],
    k: usize,
    start: usize,
    wide: &[Row<f32>],
) {
    let (scales, lines) = panel.split_at_mut(scale_lines(format, k));
    match format {
        WeightFormat::F32 => write(floats_mut(lines), start, wide, |x, _| x),
        WeightFormat::Bf16 => write(halves_mut(lines), start, wide, |x, _| {
            Bf16::from_f32(x).to_bits()
        }),
        WeightFormat::Int8 => {
            let most: Row<f32> = std::array::from_fn(|col| magnitude(wide.iter().map(|r| r[col])));
            let scale = |most: f32| {
                if most.is_finite() {
                    most / MOST
                } else {
                    f32::NAN
                }
            };
            let scales = &mut floats_mut(scales).as_chunks_mut().0[start / BLOCK];
            *scales = most.map(scale);
            // A scale of 0 or a subnormal scale has no usable reciprocal, so its column becomes 0.
            let inverse = scales.map(|s| if s.is_normal() { 1.0 / s } else { 0.0 });
            // The cast turns NaN into 0.
            write(bytes_mut(lines), start, wide, |x, col| {
                (x * inverse[col]).round_ties_even() as i8
            });
        }
    }
}

/// Writes the rows of `wide` to the parts of a panel, from position `start` on.
fn write<T>(numbers: &mut [T], start: usize, wide: &[Row<f32>], narrow: impl Fn(f32, usize) -> T) {
    let part = numbers.len() / PARTS;
    for (p, to) in numbers.chunks_exact_mut(part).enumerate() {
        let rows = to.as_chunks_mut::<LINE>().0[start..].iter_mut();
        for (to, wide) in rows.zip(wide) {
            *to = std::array::from_fn(|i| narrow(wide[p * LINE + i], p * LINE + i));
        }
    }
}

/// Widens the numbers of a block into `to`, in parts of `W` columns, one after the other, without the factors of its
/// columns, which are returned.
pub(super) fn widen<'a, const W: usize>(to: &mut [f32], block: Block<'a>) -> Option<&'a Row<f32>> {
    match block {
        Block::F32(parts) => widen_floats::<W>(to, parts),
        Block::Bf16(parts) => widen_halves::<W>(to, parts),
        Block::Int8(scales, parts) => {
            widen_bytes::<W>(to, parts);
            return Some(scales);
        }
    }
    None
}

/// Writes all numbers in parts of `W` columns.
#[inline(always)]
fn widen_by<const W: usize, T>(to: &mut [f32], from: Parts<'_, T>, wide: impl Fn(&T) -> f32) {
    let depth = to.len() / PANEL;
    for (p, to) in to.chunks_exact_mut(depth * W).enumerate() {
        for (i, to) in to.as_chunks_mut::<W>().0.iter_mut().enumerate() {
            for (q, to) in to.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
                let row = from.row(p * W / LINE + q, i);
                *to = std::array::from_fn(|col| wide(&row[col]));
            }
        }
    }
}

simd! {
    fn widen_floats<const W: usize>(to: &mut [f32], from: Parts<'_, f32>) {
        widen_by::<W, _>(to, from, |x| *x);
    }
}
simd! {
    fn widen_halves<const W: usize>(to: &mut [f32], from: Parts<'_, u16>) {
        widen_by::<W, _>(to, from, |half| from_half(*half));
    }
}
simd! {
    fn widen_bytes<const W: usize>(to: &mut [f32], from: Parts<'_, i8>) {
        widen_by::<W, _>(to, from, |byte| f32::from(*byte));
    }
}

/// `to` = the numbers of one column of a block.
pub(super) fn column(block: Block<'_>, col: usize, to: &mut [f32]) {
    for (i, to) in to.iter_mut().enumerate() {
        *to = match block {
            Block::F32(parts) => *parts.number(i, col),
            Block::Bf16(parts) => from_half(*parts.number(i, col)),
            Block::Int8(scales, parts) => f32::from(*parts.number(i, col)) * scales[col],
        };
    }
}

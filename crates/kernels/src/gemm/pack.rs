//! Rearranging a matrix into the words that the micro-kernels read.

use super::bf16::{Bf16, rounded};
use super::kernel::{Kernels, bf16_kernels, f32_kernels};
use super::{Mat, kernel};
use crate::simd::simd;
use std::ops::Range;

/// One cache line of packed words. Packed matrices live in slices of lines that the caller owns,
/// which aligns them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub(super) [u32; LINE]);

/// Words of a [`Line`].
pub(super) const LINE: usize = 16;

impl Line {
    /// A line to fill fresh memory with.
    pub const ZERO: Self = Self([0; LINE]);
}

/// The precision of a product: f32, or [`Bf16`] factors with f32 sums.
#[allow(private_interfaces)]
pub trait Precision: Copy + Send + Sync + 'static {
    /// Positions of the inner dimension in a word.
    #[doc(hidden)]
    const PER_WORD: usize;
    #[doc(hidden)]
    fn kernels() -> &'static Kernels;
}

#[allow(private_interfaces)]
impl Precision for f32 {
    const PER_WORD: usize = 1;
    fn kernels() -> &'static Kernels {
        f32_kernels()
    }
}

#[allow(private_interfaces)]
impl Precision for Bf16 {
    const PER_WORD: usize = 2;
    fn kernels() -> &'static Kernels {
        bf16_kernels()
    }
}

/// Elements that a product of precision `P` takes: f32 for both, [`Bf16`] for `Bf16`.
pub trait Source<P: Precision>: Copy + Send + Sync + 'static {
    /// If the elements of `a` are words already: how many from a row and from a column to the next.
    #[doc(hidden)]
    fn in_place(a: Mat<'_, Self>) -> Option<(usize, usize)>;

    /// Word `w` of `to` = positions `PER_WORD·w..` of `from`; positions past its end count as 0.
    #[doc(hidden)]
    fn along(to: &mut [u32], from: &[Self]);

    /// Rows of `to` = the words along rows of `from` (`stride` apart, `len` elements each).
    #[doc(hidden)]
    fn block(to: &mut [[u32; LINE]], from: &[Self], stride: usize, len: usize);

    /// Row `w` of `to` (`width` words) = the rows `PER_WORD·w..` of `from` (`rows` rows, `stride` apart,
    /// `cols` elements each) combined; what lies outside counts as 0.
    #[doc(hidden)]
    fn across(to: &mut [u32], width: usize, from: &[Self], stride: usize, rows: usize, cols: usize);
}

/// Implements [`Source`] by a function that makes a word of its elements.
macro_rules! source {
    ($source:ty, $precision:ty, $in_place:expr, $word:expr) => {
        impl Source<$precision> for $source {
            fn in_place(a: Mat<'_, Self>) -> Option<(usize, usize)> {
                $in_place(a)
            }
            fn along(to: &mut [u32], from: &[Self]) {
                simd! {
                    fn run(to: &mut [u32], from: &[$source]) {
                        along(to, from, $word);
                    }
                }
                run(to, from);
            }
            fn block(to: &mut [[u32; LINE]], from: &[Self], stride: usize, len: usize) {
                simd! {
                    fn run(to: &mut [[u32; LINE]], from: &[$source], stride: usize, len: usize) {
                        for (row, to) in to.iter_mut().enumerate() {
                            along(to, &from[row * stride..][..len], $word);
                        }
                    }
                }
                run(to, from, stride, len);
            }
            fn across(to: &mut [u32], width: usize, from: &[Self], stride: usize, rows: usize, cols: usize) {
                simd! {
                    fn run(to: &mut [u32], width: usize, from: &[$source], stride: usize, rows: usize, cols: usize) {
                        across(to, width, from, [stride, rows, cols], $word);
                    }
                }
                run(to, width, from, stride, rows, cols);
            }
        }
    };
}

source!(
    f32,
    f32,
    |a: Mat<'_, f32>| Some((a.row_stride, a.col_stride)),
    |[x]: [f32; 1]| x.to_bits()
);
source!(f32, Bf16, |_| None, |[x, y]: [f32; 2]| (rounded(x) >> 16)
    | (rounded(y) & 0xffff_0000));
source!(
    Bf16,
    Bf16,
    |a: Mat<'_, Bf16>| {
        let whole = a.cols.is_multiple_of(2) && a.row_stride.is_multiple_of(2);
        (whole && a.col_stride == 1).then_some((a.row_stride / 2, 1))
    },
    |[x, y]: [Bf16; 2]| u32::from(x.to_bits()) | u32::from(y.to_bits()) << 16
);

#[inline(always)]
fn along<S: Copy + Default, const P: usize>(
    to: &mut [u32],
    from: &[S],
    word: impl Fn([S; P]) -> u32,
) {
    let (whole, rest) = from.as_chunks::<P>();
    let (full, tail) = to.split_at_mut(whole.len());
    for (to, &from) in full.iter_mut().zip(whole) {
        *to = word(from);
    }
    if let [first, ..] = tail
        && !rest.is_empty()
    {
        let mut last = [S::default(); P];
        last[..rest.len()].copy_from_slice(rest);
        *first = word(last);
    }
}

#[inline(always)]
fn across<S: Copy + Default, const P: usize>(
    to: &mut [u32],
    width: usize,
    from: &[S],
    [stride, rows, cols]: [usize; 3],
    word: impl Fn([S; P]) -> u32,
) {
    let zero = [S::default(); kernel::PANEL];
    for (w, to) in to.chunks_exact_mut(width).enumerate() {
        let lines: [&[S]; P] = std::array::from_fn(|p| {
            let row = w * P + p;
            if row < rows {
                &from[row * stride..][..cols]
            } else {
                &zero[..cols]
            }
        });
        let (to, padding) = to.split_at_mut(cols);
        for (j, to) in to.iter_mut().enumerate() {
            *to = word(std::array::from_fn(|p| lines[p][j]));
        }
        padding.fill(0);
    }
}

/// Columns `cols` (at most `width`) of `b` at the words `words`, as `words.len()` rows of `width`
/// words; missing columns become 0.
pub(super) fn pack_columns<P: Precision, S: Source<P>>(
    to: &mut [u32],
    width: usize,
    b: Mat<'_, S>,
    cols: Range<usize>,
    words: Range<usize>,
) {
    assert_eq!(to.len(), words.len() * width);
    let k = words.start * P::PER_WORD..(words.end * P::PER_WORD).min(b.rows);
    if k.is_empty() || cols.is_empty() {
        return to.fill(0);
    }
    if b.col_stride == 1 {
        let from = &b.data[k.start * b.row_stride + cols.start..];
        return S::across(to, width, from, b.row_stride, k.len(), cols.len());
    }
    assert_eq!(b.row_stride, 1);
    let mut block = [[0; LINE]; LINE];
    for first in (0..words.len()).step_by(LINE) {
        let to = &mut to[first * width..];
        let count = LINE.min(words.len() - first);
        let k = k.start + first * P::PER_WORD..k.end.min(k.start + (first + count) * P::PER_WORD);
        for col in (0..width).step_by(LINE) {
            let rows = LINE.min(cols.len().saturating_sub(col));
            if rows < LINE {
                block = [[0; LINE]; LINE];
            }
            if rows > 0 {
                let at = (cols.start + col) * b.col_stride + k.start;
                S::block(&mut block[..rows], &b.data[at..], b.col_stride, k.len());
            }
            if count == LINE && width - col >= LINE {
                transpose(&mut to[col..], width, &block);
            } else {
                for (w, to) in to.chunks_mut(width).take(count).enumerate() {
                    for (to, row) in to[col..].iter_mut().zip(&block) {
                        *to = row[w];
                    }
                }
            }
        }
    }
}

/// Writes the transpose of `block`, rows `stride` apart.
fn transpose(to: &mut [u32], stride: usize, block: &[[u32; LINE]; LINE]) {
    assert!(stride >= LINE && to.len() >= (LINE - 1) * stride + LINE);
    #[cfg(target_arch = "x86_64")]
    if crate::simd::level() == crate::simd::Level::Avx512 {
        // SAFETY: the level is never above what the processor has; in bounds by the assertion.
        return unsafe { transpose_avx512(to.as_mut_ptr(), stride, block) };
    }
    for (w, to) in to.chunks_mut(stride).take(LINE).enumerate() {
        for (to, row) in to.iter_mut().zip(block) {
            *to = row[w];
        }
    }
}

/// # Safety
/// `to` must be valid for writes of `LINE` rows of `LINE` words, `stride` apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(to: *mut u32, stride: usize, block: &[[u32; LINE]; LINE]) {
    use std::arch::x86_64::*;
    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    // SAFETY: a row is one vector.
    let mut rows = block.map(|row| unsafe { _mm512_loadu_epi32(row.as_ptr().cast()) });
    // Interleaving rows i and i + 8 moves one bit of the row number into the column number: four
    // rounds swap them.
    for _ in 0..4 {
        let mut next = rows;
        for i in 0..LINE / 2 {
            next[2 * i] = _mm512_permutex2var_epi32(rows[i], low, rows[i + LINE / 2]);
            next[2 * i + 1] = _mm512_permutex2var_epi32(rows[i], high, rows[i + LINE / 2]);
        }
        rows = next;
    }
    for (w, row) in rows.into_iter().enumerate() {
        // SAFETY: in bounds by the contract.
        unsafe { _mm512_storeu_epi32(to.add(w * stride).cast(), row) };
    }
}

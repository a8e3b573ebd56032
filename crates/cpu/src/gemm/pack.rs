//! Rearranges a matrix into the words that the micro-kernels read. Both sides of a product and all formats use the same few
//! loops; those in vector instructions are in `pack/`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use super::Mat;
use super::bf16::{Bf16, rounded};
use super::kept::Kept;
use super::kernel::{Kernels, bf16_kernels, f32_kernels};
use super::pieces::pieces;
use crate::line::LINE;
use crate::simd::simd;
use std::ops::Range;

/// The type to which the factors of a product are rounded: f32, which is not rounded, or [`Bf16`]. Sums are in f32.
pub trait Element: Copy + Send + Sync + 'static {
    /// The format in which scores are stored for the backward pass.
    type Kept: Kept + Source<Self>;
    /// Positions of the inner dimension in a word.
    #[doc(hidden)]
    const PER_WORD: usize;
    /// Whether factors keep all bits of an f32, so that f32 matrices can be multiplied in place.
    const IS_EXACT: bool;
    /// The micro-kernels for a product of this number of rows. Their strips and columns do not depend on it.
    #[doc(hidden)]
    fn kernels(rows: usize) -> &'static Kernels;
    /// Rows of the tallest tile.
    #[doc(hidden)]
    fn strip() -> usize {
        Self::kernels(usize::MAX).strip
    }
    /// Columns of a tile.
    #[doc(hidden)]
    fn cols() -> usize {
        Self::kernels(usize::MAX).cols
    }
}

impl Element for f32 {
    type Kept = f32;
    const PER_WORD: usize = 1;
    const IS_EXACT: bool = true;
    fn kernels(rows: usize) -> &'static Kernels {
        f32_kernels(rows)
    }
}

impl Element for Bf16 {
    type Kept = Self;
    const PER_WORD: usize = 2;
    const IS_EXACT: bool = false;
    fn kernels(_: usize) -> &'static Kernels {
        bf16_kernels()
    }
}

/// Numbers that a product with factors of type `P` accepts: f32 for both types, and [`Bf16`] for `Bf16`.
pub trait Source<P: Element>: Copy + Send + Sync + 'static {
    /// If the elements of `a` are already words: the distances in words between rows and between columns.
    #[doc(hidden)]
    fn in_place(a: Mat<'_, Self>) -> Option<(usize, usize)>;

    /// Word `w` of `to` = positions `PER_WORD·w..` of `from`; positions past its end count as 0.
    #[doc(hidden)]
    fn along(to: &mut [u32], from: &[Self]);

    /// Columns `col..col + rows` of `to` = the words along `rows <= LINE` rows of `from` (`stride` apart,
    /// `len` elements each); further columns up to `col + LINE` become 0.
    #[doc(hidden)]
    fn transpose<const W: usize>(
        to: &mut [[u32; W]],
        col: usize,
        from: &[Self],
        stride: usize,
        rows: usize,
        len: usize,
    );

    /// Row `w < words` of panel `p` at `to + p·panel` = columns `W·p..W·(p+1)` of the rows
    /// `PER_WORD·w..` of `from` (`rows` rows, `stride` apart, `cols` elements each) combined; elements outside count as
    /// 0.
    ///
    /// # Safety
    /// Those rows of all panels that `cols` touches must be valid for writes and not accessed by other code.
    #[doc(hidden)]
    unsafe fn across<const W: usize>(
        to: Panels<W>,
        words: usize,
        from: &[Self],
        stride: usize,
        rows: usize,
        cols: usize,
    );
}

/// Implements [`Source`] with a function that makes a word from its elements.
macro_rules! source {
    ($source:ty, $precision:ty, $load:ident, $combine:ident, $in_place:expr, $word:expr) => {
        impl Source<$precision> for $source {
            fn in_place(a: Mat<'_, Self>) -> Option<(usize, usize)> {
                $in_place(a)
            }
            fn along(to: &mut [u32], from: &[Self]) {
                #[cfg(target_arch = "x86_64")]
                if crate::simd::level() == crate::simd::Level::Avx512 {
                    assert_eq!(to.len(), from.len().div_ceil(<$precision>::PER_WORD));
                    let load = |at: usize| {
                        let rest = &from[at * <$precision>::PER_WORD..];
                        // SAFETY: all elements of a slice.
                        unsafe { avx512::$load(rest.as_ptr(), rest.len()) }
                    };
                    // SAFETY: the level is never above what the processor has.
                    return unsafe { avx512::along(to, load) };
                }
                simd! {
                    fn run(to: &mut [u32], from: &[$source]) {
                        along(to, from, $word);
                    }
                }
                run(to, from);
            }
            fn transpose<const W: usize>(
                to: &mut [[u32; W]],
                col: usize,
                from: &[Self],
                stride: usize,
                rows: usize,
                len: usize,
            ) {
                assert!(to.len() <= LINE && len <= to.len() * <$precision>::PER_WORD);
                assert!(rows > 0 && rows <= LINE && (rows - 1) * stride + len <= from.len());
                #[cfg(target_arch = "x86_64")]
                if crate::simd::level() == crate::simd::Level::Avx512 && col + LINE <= W {
                    let row = |row: usize| {
                        let from: *const $source = from.as_ptr().wrapping_add(row * stride);
                        // Prefetches the next panel, one line for each line that is read here.
                        const STEP: usize = 64 / size_of::<$source>();
                        for at in (0..LINE * <$precision>::PER_WORD).step_by(STEP) {
                            avx512::prefetch(from.wrapping_add(W * stride + at));
                        }
                        // SAFETY: `len` elements of an existing row, by the assertions.
                        unsafe { avx512::$load(from, len) }
                    };
                    // SAFETY: the level is never above what the processor has.
                    return unsafe { avx512::transpose(to, col, rows, row) };
                }
                #[cfg(target_arch = "x86_64")]
                if crate::simd::level() == crate::simd::Level::Avx2 && col + avx2::WORDS <= W {
                    let words = |row: usize, w: usize| {
                        let at = w * <$precision>::PER_WORD;
                        let from = &from[(row * stride).min(from.len())..];
                        let len = if row < rows { len.saturating_sub(at) } else { 0 };
                        // SAFETY: `len - at` elements of an existing row, by the assertions.
                        unsafe { avx2::$load(from.as_ptr().wrapping_add(at), len) }
                    };
                    // SAFETY: the level is never above what the processor has.
                    return unsafe { avx2::transpose(to, col, words) };
                }
                for (w, to) in to.iter_mut().enumerate() {
                    for (row, to) in to[col..].iter_mut().take(LINE).enumerate() {
                        let mut elements = Default::default();
                        let k = w * <$precision>::PER_WORD..len.min((w + 1) * <$precision>::PER_WORD);
                        if row < rows {
                            fill(&mut elements, &from[row * stride..][k]);
                        }
                        *to = $word(elements);
                    }
                }
            }
            unsafe fn across<const W: usize>(
                to: Panels<W>,
                words: usize,
                from: &[Self],
                stride: usize,
                rows: usize,
                cols: usize,
            ) {
                #[cfg(target_arch = "x86_64")]
                if crate::simd::level() == crate::simd::Level::Avx512 {
                    assert!(rows > 0 && (rows - 1) * stride + cols <= from.len());
                    let combine = |w: usize, col: usize| {
                        let len = cols.saturating_sub(col);
                        let lines = std::array::from_fn(|p| {
                            let row = w * <$precision>::PER_WORD + p;
                            (row < rows && len > 0).then(|| &raw const from[row * stride + col])
                        });
                        // SAFETY: `len` elements of existing rows, by the assertion.
                        unsafe { avx512::$combine(lines, len) }
                    };
                    // SAFETY: the level is never above what the processor has; the caller guarantees the rest.
                    return unsafe { avx512::across(to, words, cols, combine) };
                }
                #[cfg(target_arch = "x86_64")]
                if crate::simd::level() == crate::simd::Level::Avx2
                    && W == avx2::NARROW
                    && size_of::<$source>() == size_of::<u32>()
                    && <$precision>::PER_WORD == 1
                {
                    assert!(words == rows && rows > 0 && (rows - 1) * stride + cols <= from.len());
                    // Panels whose rows can be read eight words at a time.
                    let whole = (cols.saturating_sub(avx2::WORDS - W)) / W;
                    let at = whole * W;
                    // SAFETY: all of these words exist, by the assertion; the level is never above what the processor has; the
                    // caller guarantees the rest.
                    unsafe {
                        let narrow = Panels { first: to.first.cast(), panel: to.panel };
                        avx2::across(narrow, words, from.as_ptr().cast(), stride, whole);
                        if at < cols {
                            let rest = Panels { first: to.row(whole, 0), ..to };
                            across(rest, words, &from[at..], [stride, rows, cols - at], $word);
                        }
                    }
                    return;
                }
                simd! {
                    fn run<const W: usize>(to: Panels<W>, words: usize, from: &[$source], stride: usize, rows: usize, cols: usize) {
                        // SAFETY: the caller guarantees it.
                        unsafe { across(to, words, from, [stride, rows, cols], $word) };
                    }
                }
                run(to, words, from, stride, rows, cols);
            }
        }
    };
}

source!(
    f32,
    f32,
    load_f32,
    combine_f32,
    |a: Mat<'_, f32>| Some((a.row_stride, a.col_stride)),
    |[x]: [f32; 1]| x.to_bits()
);
source!(
    f32,
    Bf16,
    load_rounded,
    combine_rounded,
    |_| None,
    |[x, y]: [f32; 2]| (rounded(x) >> 16) | (rounded(y) & 0xffff_0000)
);
source!(
    Bf16,
    Bf16,
    load_bf16,
    combine_bf16,
    |a: Mat<'_, Bf16>| {
        let whole = a.cols.is_multiple_of(2) && a.row_stride.is_multiple_of(2);
        (whole && a.col_stride == 1).then_some((a.row_stride / 2, 1))
    },
    |[x, y]: [Bf16; 2]| u32::from(x.to_bits()) | u32::from(y.to_bits()) << 16
);

/// Sets as many elements of `to` as `from` has.
fn fill<S: Copy, const P: usize>(to: &mut [S; P], from: &[S]) {
    to[..from.len()].copy_from_slice(from);
}

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

/// The destination of panels of rows of `W` words.
#[derive(Clone, Copy)]
pub struct Panels<const W: usize> {
    /// The first row of the first panel.
    pub first: *mut [u32; W],
    /// Rows from a panel to the next.
    pub panel: usize,
}

impl<const W: usize> Panels<W> {
    fn row(self, panel: usize, row: usize) -> *mut [u32; W] {
        self.first.wrapping_add(panel * self.panel + row)
    }
}

/// Words that are packed for all panels before the next ones, so that rows are read in full.
const ACROSS: usize = 4;

/// # Safety
/// As for [`Source::across`].
#[inline(always)]
unsafe fn across<S: Copy + Default, const P: usize, const W: usize>(
    to: Panels<W>,
    words: usize,
    from: &[S],
    [stride, rows, cols]: [usize; 3],
    word: impl Fn([S; P]) -> u32,
) {
    let mut padded = [[S::default(); W]; P];
    for block in pieces(0..words, ACROSS) {
        for (panel, cols) in pieces(0..cols, W).enumerate() {
            for w in block.clone() {
                let first = w * P;
                let lines: [&[S; W]; P] = if cols.len() == W && first + P <= rows {
                    std::array::from_fn(|p| {
                        let line = &from[(first + p) * stride + cols.start..];
                        // `pack_panels` cut `from` out of a `Mat`, which has all columns of all rows.
                        line.first_chunk().expect("all columns exist")
                    })
                } else {
                    for (row, padded) in (first..).zip(&mut padded) {
                        padded.fill(S::default());
                        if row < rows {
                            fill(padded, &from[row * stride..][cols.clone()]);
                        }
                    }
                    padded.each_ref()
                };
                let words = std::array::from_fn(|j| word(std::array::from_fn(|p| lines[p][j])));
                // SAFETY: a row of a panel within the caller's guarantee.
                unsafe { to.row(panel, w).write(words) };
            }
        }
    }
}

/// Packs columns `cols` of `b` at the words `words` into panels of rows of `W` words, starting at `to`; missing columns
/// of the last panel become 0.
///
/// # Safety
/// `words.len()` rows of each panel must be valid for writes and not accessed by other code.
pub(super) unsafe fn pack_panels<P: Element, S: Source<P>, const W: usize>(
    to: Panels<W>,
    b: Mat<'_, S>,
    cols: Range<usize>,
    words: Range<usize>,
) {
    let k = words.start * P::PER_WORD..(words.end * P::PER_WORD).min(b.rows);
    if k.is_empty() || cols.is_empty() {
        return;
    }
    if b.col_stride == 1 {
        let from = &b.data[k.start * b.row_stride + cols.start..];
        // SAFETY: the caller guarantees it.
        return unsafe { S::across(to, words.len(), from, b.row_stride, k.len(), cols.len()) };
    }
    assert_eq!(b.row_stride, 1);
    for (panel, cols) in pieces(cols, W).enumerate() {
        // SAFETY: the rows of one panel.
        let to = unsafe { std::slice::from_raw_parts_mut(to.row(panel, 0), words.len()) };
        for (to, k) in to
            .chunks_mut(LINE)
            .zip(pieces(k.clone(), LINE * P::PER_WORD))
        {
            for col in (0..W).step_by(LINE) {
                let rows = LINE.min(cols.len().saturating_sub(col));
                if rows == 0 {
                    to.iter_mut().for_each(|to| to[col..].fill(0));
                    break;
                }
                let at = (cols.start + col) * b.col_stride + k.start;
                S::transpose(to, col, &b.data[at..], b.col_stride, rows, k.len());
            }
        }
    }
}

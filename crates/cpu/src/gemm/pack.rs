//! Rearranges a matrix into the words that the micro-kernels read. All of it is in one file, because both sides of a
//! product and all formats use the same few loops.

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

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{ACROSS, LINE, Panels};
    use crate::gemm::Bf16;
    use crate::gemm::pieces::pieces;
    use std::arch::x86_64::*;

    /// Words of a register.
    pub const WORDS: usize = 8;
    /// Words of a row of the panels of A.
    pub const NARROW: usize = 6;

    /// Copies rows `[words, NARROW · panels]` of a matrix, `stride` words apart, to panels of [`NARROW`] words. A row of a panel takes
    /// one load and one store of eight words; the two words too many are those of the next row, which is written later.
    ///
    /// # Safety
    /// As for `Source::across`; two words after the last column of each row must be readable, too.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn across(
        to: Panels<NARROW>,
        words: usize,
        from: *const u32,
        stride: usize,
        panels: usize,
    ) {
        let row = |panel: usize, w: usize| {
            let at = from.wrapping_add(w * stride + panel * NARROW);
            // SAFETY: the caller guarantees that eight words are readable.
            unsafe { _mm256_loadu_si256(at.cast()) }
        };
        for block in pieces(0..words - 1, ACROSS) {
            for panel in 0..panels {
                for w in block.clone() {
                    // SAFETY: this row of the panel and the next one, which exists.
                    unsafe { _mm256_storeu_si256(to.row(panel, w).cast(), row(panel, w)) };
                }
            }
        }
        for panel in 0..panels {
            let mut last = [0u32; WORDS];
            // SAFETY: an array of eight words, and the last row of a panel.
            unsafe {
                _mm256_storeu_si256(last.as_mut_ptr().cast(), row(panel, words - 1));
                to.row(panel, words - 1)
                    .write(*last.first_chunk().expect("six of eight"));
            }
        }
    }

    /// Loads up to 8 f32.
    ///
    /// # Safety
    /// `len` elements must be readable.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn load_f32(from: *const f32, len: usize) -> __m256i {
        if len >= WORDS {
            // SAFETY: all lanes exist.
            return unsafe { _mm256_loadu_si256(from.cast()) };
        }
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(len as i32), lanes);
        // SAFETY: only lanes below `len` are read.
        unsafe { _mm256_maskload_epi32(from.cast(), mask) }
    }

    /// The arithmetic of `bf16::rounded`, shifted to the lower half.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn rounded(x: __m256i) -> __m256i {
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(x), _mm256_set1_epi32(1));
        let nearest = _mm256_add_epi32(x, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let float = _mm256_castsi256_ps(x);
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(float, float));
        let quiet = _mm256_or_si256(x, _mm256_set1_epi32(0x40_0000));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(nearest, quiet, nan))
    }

    /// Loads up to 16 f32 and rounds them to bfloat16.
    ///
    /// # Safety
    /// `len` elements must be readable.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn load_rounded(from: *const f32, len: usize) -> __m256i {
        // SAFETY: the caller guarantees it.
        let [low, high] = [(0, len), (WORDS, len.saturating_sub(WORDS))]
            .map(|(at, len)| rounded(unsafe { load_f32(from.wrapping_add(at), len) }));
        // Packing works within 128-bit lanes; the permutation puts the quarters in order.
        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high))
    }

    /// Loads up to 16 bfloat16.
    ///
    /// # Safety
    /// `len` elements must be readable.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn load_bf16(from: *const Bf16, len: usize) -> __m256i {
        if len >= 2 * WORDS {
            // SAFETY: all lanes exist.
            return unsafe { _mm256_loadu_si256(from.cast()) };
        }
        let mut padded = [Bf16::default(); 2 * WORDS];
        // SAFETY: `len` elements are readable, and fewer than `padded` has; 32 bytes each.
        unsafe {
            from.copy_to_nonoverlapping(padded.as_mut_ptr(), len);
            _mm256_loadu_si256(padded.as_ptr().cast())
        }
    }

    /// Sets up to 16 existing columns `col..` of `to` to the rows 0, 1, ...; `words(row, w)` loads the words of a row
    /// from `w` on.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub fn transpose<const W: usize>(
        to: &mut [[u32; W]],
        col: usize,
        words: impl Fn(usize, usize) -> __m256i,
    ) {
        for (block, to) in to.chunks_mut(WORDS).enumerate() {
            for row in (0..LINE.min(W - col)).step_by(WORDS) {
                let mut r = [_mm256_setzero_si256(); WORDS];
                for (i, r) in r.iter_mut().enumerate() {
                    *r = words(row + i, block * WORDS);
                }
                let r = transpose8(r);
                for (to, r) in to.iter_mut().zip(r) {
                    let to = &mut to[col + row..][..WORDS];
                    // SAFETY: the slice has 8 words.
                    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), r) };
                }
            }
        }
    }

    /// Transposes rows to columns.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn transpose8(r: [__m256i; WORDS]) -> [__m256i; WORDS] {
        let (mut s, mut t) = (r, r);
        for i in 0..4 {
            let (a, b) = (r[2 * i], r[2 * i + 1]);
            s[2 * i] = _mm256_unpacklo_epi32(a, b);
            s[2 * i + 1] = _mm256_unpackhi_epi32(a, b);
        }
        for i in 0..2 {
            for j in 0..2 {
                let (a, b) = (s[4 * i + j], s[4 * i + j + 2]);
                t[4 * i + 2 * j] = _mm256_unpacklo_epi64(a, b);
                t[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(a, b);
            }
        }
        // t[4i + j] holds, in 128-bit lane l, column 4l + j of the rows 4i..4i + 4.
        for j in 0..4 {
            let (a, b) = (t[j], t[4 + j]);
            s[j] = _mm256_permute2x128_si256::<0x20>(a, b);
            s[4 + j] = _mm256_permute2x128_si256::<0x31>(a, b);
        }
        s
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{ACROSS, LINE, Panels};
    use crate::gemm::Bf16;
    use crate::gemm::pieces::pieces;
    use std::arch::x86_64::*;

    /// Words of half a register.
    const HALF: usize = LINE / 2;

    /// A mask of the first `len` of 16 lanes.
    #[inline(always)]
    fn first16(len: usize) -> u16 {
        if len < 16 { (1 << len) - 1 } else { u16::MAX }
    }

    /// Prefetches a line into the second-level cache.
    #[inline(always)]
    pub fn prefetch<T>(at: *const T) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    /// Loads up to 16 f32.
    ///
    /// # Safety
    /// `len` elements must be readable.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn load_f32(from: *const f32, len: usize) -> __m512i {
        // SAFETY: only lanes below `len` are read.
        unsafe { _mm512_maskz_loadu_epi32(first16(len), from.cast()) }
    }

    /// The arithmetic of `bf16::rounded`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rounded(x: __m512i) -> __m512i {
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(x), _mm512_set1_epi32(1));
        let nearest = _mm512_add_epi32(x, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let float = _mm512_castsi512_ps(x);
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(float, float);
        _mm512_mask_or_epi32(nearest, nan, x, _mm512_set1_epi32(0x40_0000))
    }

    /// Loads up to 32 f32 and rounds them to bfloat16.
    ///
    /// # Safety
    /// `len` elements must be readable.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn load_rounded(from: *const f32, len: usize) -> __m512i {
        // SAFETY: the caller guarantees it.
        let [low, high] = [(0, len), (16, len.saturating_sub(16))]
            .map(|(at, len)| rounded(unsafe { load_f32(from.wrapping_add(at), len) }));
        // The upper halves of all lanes: 16-bit elements 1, 3, 5, ... of both.
        let evens = _mm512_set_epi16(
            62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24, 22, 20,
            18, 16, 14, 12, 10, 8, 6, 4, 2, 0,
        );
        let uppers = _mm512_or_si512(evens, _mm512_set1_epi16(1));
        _mm512_permutex2var_epi16(low, uppers, high)
    }

    /// Loads up to 32 bfloat16.
    ///
    /// # Safety
    /// `len` elements must be readable.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn load_bf16(from: *const Bf16, len: usize) -> __m512i {
        let mask = if len < 32 { (1 << len) - 1 } else { u32::MAX };
        // SAFETY: only lanes below `len` are read.
        unsafe { _mm512_maskz_loadu_epi16(mask, from.cast()) }
    }

    /// Words that hold one element each of a row.
    ///
    /// # Safety
    /// `len` elements must be readable.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn combine_f32([row]: [Option<*const f32>; 1], len: usize) -> __m512i {
        // SAFETY: the caller guarantees it.
        row.map_or(_mm512_setzero_si512(), |row| unsafe { load_f32(row, len) })
    }

    /// Words that hold one element of each of two rows, rounded to bfloat16; without a row, 0.
    ///
    /// # Safety
    /// `len` elements must be readable.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn combine_rounded(rows: [Option<*const f32>; 2], len: usize) -> __m512i {
        // SAFETY: the caller guarantees it.
        let [lower, upper] = rows.map(|row| rounded(unsafe { combine_f32([row], len) }));
        _mm512_mask_mov_epi16(_mm512_srli_epi32::<16>(lower), 0xaaaa_aaaa, upper)
    }

    /// Words that hold one element of each of two rows; without a row, 0.
    ///
    /// # Safety
    /// `len` elements must be readable.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn combine_bf16(rows: [Option<*const Bf16>; 2], len: usize) -> __m512i {
        let [lower, upper] = rows.map(|row| {
            let row = row.map_or(_mm512_setzero_si512(), |row| {
                // SAFETY: the caller guarantees it.
                unsafe { load_bf16(row, len.min(LINE)) }
            });
            _mm512_cvtepu16_epi32(_mm512_castsi512_si256(row))
        });
        _mm512_or_si512(lower, _mm512_slli_epi32::<16>(upper))
    }

    /// Sets words `at..` of `to` to `load(at)`, for every 16th `at`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn along(to: &mut [u32], load: impl Fn(usize) -> __m512i) {
        for (chunk, to) in to.chunks_mut(LINE).enumerate() {
            let words = load(chunk * LINE);
            // SAFETY: only lanes of the chunk are written.
            unsafe { _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), first16(to.len()), words) };
        }
    }

    /// See `Source::across`: `combine(w, col)` makes the words `w` of the columns from `col` on.
    ///
    /// # Safety
    /// As there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn across<const W: usize>(
        to: Panels<W>,
        words: usize,
        cols: usize,
        combine: impl Fn(usize, usize) -> __m512i,
    ) {
        let panels = cols.div_ceil(W);
        // A register of words holds two rows of narrow panels.
        let together = if W == HALF { 2 } else { 1 };
        for block in pieces(0..words, ACROSS) {
            for panel in (0..panels).step_by(together) {
                for w in block.clone() {
                    if W == HALF {
                        let words = combine(w, panel * W);
                        let both = [
                            _mm512_castsi512_si256(words),
                            _mm512_extracti64x4_epi64::<1>(words),
                        ];
                        for (panel, words) in (panel..panels).zip(both) {
                            // SAFETY: a row of a panel has as many words as half a register.
                            unsafe { _mm256_storeu_si256(to.row(panel, w).cast(), words) };
                        }
                        continue;
                    }
                    for col in (0..W).step_by(LINE) {
                        let words = combine(w, panel * W + col);
                        let at = to.row(panel, w).cast::<i32>().wrapping_add(col);
                        // SAFETY: only lanes of the row are written.
                        unsafe { _mm512_mask_storeu_epi32(at, first16(W - col), words) };
                    }
                }
            }
        }
    }

    /// Sets columns `col..col + 16` of `to` (up to 16 rows) to the rows `load(0), load(1), ...`; rows from `rows` on
    /// count as 0.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn transpose<const W: usize>(
        to: &mut [[u32; W]],
        col: usize,
        rows: usize,
        load: impl Fn(usize) -> __m512i,
    ) {
        let mut r = [_mm512_setzero_si512(); LINE];
        for (row, r) in r.iter_mut().enumerate() {
            if row < rows {
                *r = load(row);
            }
        }
        // Four rounds, each of which swaps one bit of the row number with one of the column number.
        let mut s = r;
        for i in 0..8 {
            let (a, b) = (r[2 * i], r[2 * i + 1]);
            s[2 * i] = _mm512_unpacklo_epi32(a, b);
            s[2 * i + 1] = _mm512_unpackhi_epi32(a, b);
        }
        for i in 0..4 {
            for j in 0..2 {
                let (a, b) = (s[4 * i + j], s[4 * i + j + 2]);
                r[4 * i + 2 * j] = _mm512_unpacklo_epi64(a, b);
                r[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
            }
        }
        // r[4i + j] holds, in 128-bit lane l, column 4l + j of the rows 4i..4i + 4.
        for i in [0, 8] {
            for j in 0..4 {
                let (a, b) = (r[i + j], r[i + 4 + j]);
                s[i + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
                s[i + 4 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
            }
        }
        // s[i + j] holds lanes 0 and 2, s[i + 4 + j] lanes 1 and 3, of the rows i..i + 8.
        for j in 0..8 {
            let (a, b) = (s[j], s[8 + j]);
            r[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
            r[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        }
        for (to, r) in to.iter_mut().zip(r) {
            let to = &mut to[col..col + LINE];
            // SAFETY: the slice has 16 words.
            unsafe { _mm512_storeu_epi32(to.as_mut_ptr().cast(), r) };
        }
    }
}

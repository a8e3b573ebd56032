//! The loops of packing for AVX-512.

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
        62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24, 22, 20, 18,
        16, 14, 12, 10, 8, 6, 4, 2, 0,
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

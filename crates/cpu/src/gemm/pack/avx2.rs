//! The loops of packing for AVX2.

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

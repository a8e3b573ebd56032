//! Micro-kernels: one tile of the output, at most [`STRIP`] rows by [`Kernels::cols`] columns, over one
//! block of the inner dimension.
//!
//! Operands are streams of 32-bit *words*: an f32, or two consecutive bfloat16 along the inner dimension (the first one
//! in the lower half). Every kernel computes each element by the same chain of fused multiply-adds, starting from 0, so
//! the instruction sets agree to the bit. Of two bfloat16 the upper one is added first, as in AVX512-BF16.

use super::Write;
use super::vector::{Portable, Vector};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Level, level, multiplies_bf16};

/// Columns of a tile.
pub(super) const PANEL: usize = 32;
/// Rows of the tallest tile of all instruction sets.
pub(super) const STRIP: usize = 8;
/// Positions that [`chain`] writes out.
pub(super) const UNROLLED: usize = 4;

/// The operands of one tile.
pub struct Tile {
    /// Words along the inner dimension.
    pub words: usize,
    /// First word of the first row of A.
    pub a: *const u32,
    /// Words from a row of A to the next.
    pub a_row: usize,
    /// Words from an inner position of A to the next.
    pub a_word: usize,
    /// First word of the columns of B, which are adjacent.
    pub b: *const u32,
    /// Words from an inner position of B to the next.
    pub b_word: usize,
    /// First element of the columns of C, which are adjacent.
    pub c: *mut f32,
    /// Elements from a row of C to the next.
    pub c_row: usize,
    /// Factors of the columns, which are adjacent.
    pub scales: *const f32,
    /// `C = scale · chain`, or `C = fma(scale, chain, C)`.
    pub write: Write,
    /// Words that will be read soon. [`Kernels::prefetches`] says how many lines of them the kernel prefetches with
    /// every [`UNROLLED`] positions; any address is allowed.
    pub ahead: *const u32,
    /// Words from a prefetched line to the next.
    pub ahead_step: usize,
}

/// Computes a tile.
///
/// # Safety
/// With the kernel's number of rows, all words and elements that [`Tile`] describes must be valid for reads (A, B,
/// scales) and writes (C; initialised), and no other thread may access those of C. The processor must have the kernel's
/// instruction set.
pub type Kernel = unsafe fn(&Tile);

/// The kernels of an instruction set.
pub struct Kernels {
    /// Columns of their tiles, which divide [`PANEL`].
    pub cols: usize,
    /// Rows of the tallest tile, at most [`STRIP`].
    pub strip: usize,
    /// Kernels of 1 to [`Kernels::strip`] rows.
    pub by_rows: [Kernel; STRIP],
    /// Lines of [`Tile::ahead`] that they prefetch with every [`UNROLLED`] positions. A position of a wide tile takes so
    /// long that a prefetch with every few of them costs nothing, while many at once fill the buffers of the first-level
    /// cache and stop the loads behind them. Narrow tiles have no instructions to spare if B is in a cache, so lines are
    /// then prefetched between tiles.
    pub prefetches: usize,
}

impl Kernels {
    /// Rows of the next tile if `left` rows are left. In a product of few rows all tiles have about the same number,
    /// because a tile of one or two rows waits for its sums; in others each has as many as it can.
    pub fn height(&self, left: usize, is_few: bool) -> usize {
        match is_few {
            true => left.div_ceil(left.div_ceil(self.strip)),
            false => left.min(self.strip),
        }
    }
}

/// Rows below which reading B from memory takes as long as computing, so that both must take place at the same time.
pub(super) const FEW_ROWS: usize = 48;

/// The kernels for f32 words at the level in use, in a product of this number of rows.
pub(super) fn f32_kernels(rows: usize) -> &'static Kernels {
    #[cfg(target_arch = "x86_64")]
    match level() {
        Level::Avx512 => return &x86::F32_AVX512,
        Level::Avx2 if rows < FEW_ROWS => return &x86::F32_AVX2_FEW,
        Level::Avx2 => return &x86::F32_AVX2,
        Level::Baseline => {}
    }
    &F32_PORTABLE
}

/// The kernels for pairs of bfloat16 at the level in use.
pub(super) fn bf16_kernels() -> &'static Kernels {
    #[cfg(target_arch = "x86_64")]
    match level() {
        Level::Avx512 if multiplies_bf16() => return &x86::BF16_NATIVE,
        Level::Avx512 => return &x86::BF16_AVX512,
        Level::Avx2 => return &x86::BF16_AVX2,
        Level::Baseline => {}
    }
    &BF16_PORTABLE
}

/// The interpretation of words.
///
/// # Safety
/// All functions: as for [`Vector`].
trait Words<V: Vector> {
    /// Words in the form that [`Words::step`] needs.
    type Operand: Copy;
    unsafe fn ready(words: V) -> Self::Operand;
    /// `acc + a·b`.
    unsafe fn step(a: Self::Operand, b: Self::Operand, acc: V) -> V;
}

struct F32;
impl<V: Vector> Words<V> for F32 {
    type Operand = V;
    #[inline(always)]
    unsafe fn ready(words: V) -> V {
        words
    }
    #[inline(always)]
    unsafe fn step(a: V, b: V, acc: V) -> V {
        // SAFETY: the caller guarantees it.
        unsafe { a.fma(b, acc) }
    }
}

/// Pairs of bfloat16 without special instructions. A product of two is exact in f32, so two fused steps round as
/// AVX512-BF16 does.
struct Pairs;
impl<V: Vector> Words<V> for Pairs {
    type Operand = [V; 2];
    #[inline(always)]
    unsafe fn ready(words: V) -> [V; 2] {
        // SAFETY: the caller guarantees it.
        unsafe { [words.upper(), words.lower()] }
    }
    #[inline(always)]
    unsafe fn step(a: [V; 2], b: [V; 2], acc: V) -> V {
        // SAFETY: the caller guarantees it.
        unsafe { a[1].fma(b[1], a[0].fma(b[0], acc)) }
    }
}

/// Adds one position of the inner dimension, at `at` in the rows of A, to the sums of a tile.
///
/// # Safety
/// As for [`Kernel`].
#[inline(always)]
unsafe fn position<V: Vector, W: Words<V>, const R: usize, const N: usize>(
    acc: &mut [[V; N]; R],
    rows: &[*const u32; R],
    at: usize,
    b: *const u32,
) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let mut columns = [W::ready(V::splat(0)); N];
        for (j, columns) in columns.iter_mut().enumerate() {
            *columns = W::ready(V::load(b.wrapping_add(j * V::LANES)));
        }
        for (row, acc) in rows.iter().zip(acc) {
            let x = W::ready(V::splat(row.wrapping_add(at).read_unaligned()));
            for (acc, columns) in acc.iter_mut().zip(columns) {
                *acc = W::step(x, columns, *acc);
            }
        }
    }
}

/// Adds all positions of a tile to its sums. [`UNROLLED`] are written out, because the compiler unrolls a loop only at
/// some optimisation levels and keeps the sums in memory at the others. The distances are parameters, so that constant
/// ones become part of the instructions.
///
/// # Safety
/// As for [`Kernel`].
#[inline(always)]
unsafe fn chain<V: Vector, W: Words<V>, const PREFETCH: usize, const R: usize, const N: usize>(
    acc: &mut [[V; N]; R],
    rows: &[*const u32; R],
    a_word: usize,
    mut b: *const u32,
    b_word: usize,
    t: &Tile,
) {
    let (mut at, mut ahead) = (0, t.ahead);
    // SAFETY: the caller guarantees it.
    unsafe {
        for _ in 0..t.words / UNROLLED {
            for _ in 0..PREFETCH {
                V::prefetch(ahead.cast());
                ahead = ahead.wrapping_add(t.ahead_step);
            }
            position::<V, W, R, N>(acc, rows, at, b);
            position::<V, W, R, N>(acc, rows, at + a_word, b.wrapping_add(b_word));
            position::<V, W, R, N>(acc, rows, at + 2 * a_word, b.wrapping_add(2 * b_word));
            position::<V, W, R, N>(acc, rows, at + 3 * a_word, b.wrapping_add(3 * b_word));
            at += UNROLLED * a_word;
            b = b.wrapping_add(UNROLLED * b_word);
        }
        for _ in 0..t.words % UNROLLED {
            position::<V, W, R, N>(acc, rows, at, b);
            at += a_word;
            b = b.wrapping_add(b_word);
        }
    }
}

/// `R` rows by `N` vectors of the tile, from column `col` on; packed factors have `COLS` columns or `STRIP` rows
/// side by side.
///
/// # Safety
/// As for [`Kernel`].
#[inline(always)]
unsafe fn part<
    V: Vector,
    W: Words<V>,
    const PREFETCH: usize,
    const COLS: usize,
    const STRIP: usize,
    const R: usize,
    const N: usize,
>(
    t: &Tile,
    row: usize,
    col: usize,
) {
    // SAFETY: all addresses are within the caller's guarantee: words below `t.words`, rows below
    // `row + R`, columns below `col + N · LANES`.
    unsafe {
        for i in 0..R {
            for j in (0..N * V::LANES).step_by(16) {
                V::prefetch(t.c.add((row + i) * t.c_row + col + j));
            }
        }
        let mut acc = [[V::splat(0); N]; R];
        // `black_box` prevents the compiler from computing the addresses of the rows in a chain of additions.
        let rows: [*const u32; R] =
            std::array::from_fn(|i| std::hint::black_box(t.a.add((row + i) * t.a_row)));
        let b = t.b.add(col);
        match (t.a_word, t.b_word) {
            (1, word) if word == COLS => {
                chain::<V, W, PREFETCH, R, N>(&mut acc, &rows, 1, b, COLS, t);
            }
            (a_word, word) if a_word == STRIP && word == COLS => {
                chain::<V, W, PREFETCH, R, N>(&mut acc, &rows, STRIP, b, COLS, t);
            }
            (a_word, word) if word == COLS => {
                chain::<V, W, PREFETCH, R, N>(&mut acc, &rows, a_word, b, COLS, t);
            }
            (a_word, b_word) => {
                chain::<V, W, PREFETCH, R, N>(&mut acc, &rows, a_word, b, b_word, t);
            }
        }
        let scales: [V; N] =
            std::array::from_fn(|j| V::load(t.scales.add(col + j * V::LANES).cast()));
        for (i, acc) in acc.into_iter().enumerate() {
            for (j, (acc, scale)) in acc.into_iter().zip(scales).enumerate() {
                let c = t.c.add((row + i) * t.c_row + col + j * V::LANES);
                let value = match t.write {
                    Write::Replace => scale.mul(acc),
                    Write::Add => scale.fma(acc, V::load(c.cast())),
                };
                value.store(c);
            }
        }
    }
}

/// `R` rows by `COLS` columns, in parts of `H` rows and `N` vectors that fit the registers.
///
/// # Safety
/// As for [`Kernel`].
#[inline(always)]
unsafe fn tile<
    V: Vector,
    W: Words<V>,
    const PREFETCH: usize,
    const COLS: usize,
    const STRIP: usize,
    const R: usize,
    const H: usize,
    const N: usize,
>(
    t: &Tile,
) {
    const {
        assert!(STRIP <= self::STRIP && R <= STRIP && R.is_multiple_of(H));
        assert!(PANEL.is_multiple_of(COLS) && COLS.is_multiple_of(N * V::LANES));
        // Otherwise each part would prefetch the same lines.
        assert!(PREFETCH == 0 || (R == H && COLS == N * V::LANES));
    };
    for row in (0..R).step_by(H) {
        for col in (0..COLS).step_by(N * V::LANES) {
            // SAFETY: the caller guarantees it.
            unsafe { part::<V, W, PREFETCH, COLS, STRIP, H, N>(t, row, col) };
        }
    }
}

/// Defines [`Kernels`] for one kind of register and word: tiles of `$cols` columns and at most `$strip` rows,
/// computed in parts of `$n` vectors and at most `$h` rows; `$prefetch` as in [`Kernels::prefetches`].
macro_rules! kernels {
    ($name:ident, $(#[$feature:meta])? $vector:ty, $words:ty, $cols:literal, $strip:literal, $h:literal, $n:literal, $prefetch:literal) => {
        pub(super) static $name: Kernels = {
            $(#[$feature])?
            unsafe fn rows<const R: usize, const H: usize>(t: &Tile) {
                // SAFETY: the caller guarantees it.
                unsafe { tile::<$vector, $words, $prefetch, $cols, $strip, R, H, $n>(t) }
            }
            // Rows of kernel `number`; there are no more than `$strip`.
            const fn height(number: usize) -> usize {
                if number < $strip { number } else { $strip }
            }
            // Rows of its parts.
            const fn part_height(number: usize) -> usize {
                let rows = height(number);
                if rows <= $h { rows } else if rows.is_multiple_of($h) { $h } else { 1 }
            }
            Kernels {
                cols: $cols,
                strip: $strip,
                by_rows: [
                    rows::<{ height(1) }, { part_height(1) }>,
                    rows::<{ height(2) }, { part_height(2) }>,
                    rows::<{ height(3) }, { part_height(3) }>,
                    rows::<{ height(4) }, { part_height(4) }>,
                    rows::<{ height(5) }, { part_height(5) }>,
                    rows::<{ height(6) }, { part_height(6) }>,
                    rows::<{ height(7) }, { part_height(7) }>,
                    rows::<{ height(8) }, { part_height(8) }>,
                ],
                prefetches: $prefetch,
            }
        };
    };
}

kernels!(F32_PORTABLE, Portable, F32, 32, 8, 4, 1, 0);
kernels!(BF16_PORTABLE, Portable, Pairs, 32, 8, 4, 1, 0);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{F32, Kernels, Pairs, Tile, Words, tile};
    use std::arch::x86_64::*;

    /// Pairs of bfloat16 with AVX512-BF16.
    struct NativePairs;
    impl Words<__m512> for NativePairs {
        type Operand = __m512;
        #[inline(always)]
        unsafe fn ready(words: __m512) -> __m512 {
            words
        }
        #[inline(always)]
        unsafe fn step(a: __m512, b: __m512, acc: __m512) -> __m512 {
            // SAFETY: the types differ only in name; the caller guarantees the rest.
            unsafe {
                let pairs = |x| std::mem::transmute::<__m512, __m512bh>(x);
                _mm512_dpbf16_ps(acc, pairs(a), pairs(b))
            }
        }
    }

    kernels!(
        F32_AVX512,
        #[target_feature(enable = "avx512f")]
        __m512,
        F32,
        32,
        8,
        8,
        2,
        1
    );
    kernels!(
        F32_AVX2,
        #[target_feature(enable = "avx2,fma")]
        __m256,
        F32,
        16,
        6,
        6,
        2,
        0
    );
    kernels!(
        F32_AVX2_FEW,
        #[target_feature(enable = "avx2,fma")]
        __m256,
        F32,
        16,
        6,
        6,
        2,
        2
    );
    kernels!(
        BF16_NATIVE,
        #[target_feature(enable = "avx512f,avx512bf16")]
        __m512,
        NativePairs,
        32,
        8,
        8,
        2,
        1
    );
    kernels!(
        BF16_AVX512,
        #[target_feature(enable = "avx512f")]
        __m512,
        Pairs,
        32,
        8,
        8,
        2,
        1
    );
    kernels!(
        BF16_AVX2,
        #[target_feature(enable = "avx2,fma")]
        __m256,
        Pairs,
        16,
        4,
        4,
        2,
        0
    );
}

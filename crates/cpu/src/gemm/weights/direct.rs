//! Products of a few rows: each weight is loaded once, widened in registers and used immediately.

use super::super::kernel::PANEL;
use super::super::pieces::pieces;
use super::super::vector::{Portable, Vector};
use super::super::{Mat, Write};
use super::PackedWeights;
use super::format::{BLOCK, Block, Parts, Row};
use crate::line::{LINE, Line};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Level, level};
use crate::simd::{prefetch, simd};
use std::ops::Range;

/// Largest number of rows of such a product.
pub(super) const DIRECT_ROWS: usize = 4;
/// Whether `x` is multiplied this way: it has few rows, and their numbers are adjacent. All other products share
/// widened blocks.
pub(super) fn is_direct(x: Mat<'_>) -> bool {
    x.rows <= DIRECT_ROWS && x.col_stride == 1
}

/// `y = scale · x·b (+ y)` for the columns `cols` of `b`, which start at a panel; one slice of `y` for each
/// of the rows of `x`.
pub(super) fn product(
    y: &mut [&mut [f32]],
    write: Write,
    x: Mat<'_>,
    b: &PackedWeights,
    cols: Range<usize>,
    scale: f32,
) {
    assert!(x.rows == y.len() && is_direct(x) && cols.start.is_multiple_of(PANEL));
    if x.cols == 0 && write == Write::Replace {
        y.iter_mut().for_each(|y| y.fill(0.0));
    }
    let even = [scale; PANEL];
    let mut chains = [[0.0; PANEL]; DIRECT_ROWS];
    for start in cols.clone().step_by(PANEL) {
        let to = start - cols.start..(start + PANEL).min(cols.end) - cols.start;
        for depth in pieces(0..x.cols, BLOCK) {
            let block = b.block(start / PANEL, depth.clone());
            let mut rows = [&[][..]; DIRECT_ROWS];
            for (i, row) in rows[..x.rows].iter_mut().enumerate() {
                *row = &x.data[i * x.row_stride..][depth.clone()];
            }
            let write = if depth.start == 0 { write } else { Write::Add };
            let mut at = 0;
            while at < x.rows {
                at += match x.rows - at {
                    1 => chain::<1>(&mut chains[at..], &rows[at..], block),
                    2 => chain::<2>(&mut chains[at..], &rows[at..], block),
                    3 => chain::<3>(&mut chains[at..], &rows[at..], block),
                    _ => chain::<4>(&mut chains[at..], &rows[at..], block),
                };
            }
            let own = match block {
                Block::F32(_) | Block::Bf16(_) => None,
                Block::Int8(scales, _) => Some(scales.map(|own| scale * own)),
            };
            let factors = own.as_ref().unwrap_or(&even);
            for (y, chain) in y.iter_mut().zip(&chains) {
                let y = &mut y[to.clone()];
                match write {
                    Write::Replace => set(y, chain, factors),
                    Write::Add => add(y, chain, factors),
                }
            }
        }
    }
}

simd! {
    fn set(y: &mut [f32], chain: &Row<f32>, factors: &Row<f32>) {
        y.iter_mut().zip(chain).zip(factors).for_each(|((y, c), f)| *y = f * c);
    }
}
simd! {
    fn add(y: &mut [f32], chain: &Row<f32>, factors: &Row<f32>) {
        y.iter_mut().zip(chain).zip(factors).for_each(|((y, &c), f)| *y = f.mul_add(c, *y));
    }
}

/// The first `R` chains over a block; returns `R`.
fn chain<const R: usize>(chains: &mut [Row<f32>], rows: &[&[f32]], block: Block<'_>) -> usize {
    let (Some(chains), Some(rows)) = (chains.first_chunk_mut(), rows.first_chunk()) else {
        unreachable!("as many chains and rows as the caller counts");
    };
    match block {
        Block::F32(parts) => sum::<_, R>(chains, rows, parts),
        Block::Bf16(parts) => sum::<_, R>(chains, rows, parts),
        Block::Int8(_, parts) => sum::<_, R>(chains, rows, parts),
    }
    R
}

/// The type of a stored weight.
trait Weight {
    /// Distance in bytes from the weights in use to those to prefetch within a part, if any. The processor prefetches
    /// as far as its window of instructions reaches. That is far enough for f32, but smaller weights take fewer bytes
    /// per instruction, so the window covers less memory.
    const AHEAD: Option<usize>;
    /// # Safety
    /// As for [`Vector`]; there must be a vector of weights.
    unsafe fn widen<V: Vector>(from: *const Self) -> V;
}

impl Weight for f32 {
    const AHEAD: Option<usize> = None;
    #[inline(always)]
    unsafe fn widen<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller guarantees it.
        unsafe { V::load(from.cast()) }
    }
}

/// A bfloat16.
impl Weight for u16 {
    const AHEAD: Option<usize> = Some(1 << 10);
    #[inline(always)]
    unsafe fn widen<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller guarantees it.
        unsafe { V::halves(from) }
    }
}

/// An integer without its scale.
impl Weight for i8 {
    const AHEAD: Option<usize> = Some(2 << 10);
    #[inline(always)]
    unsafe fn widen<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller guarantees it.
        unsafe { V::bytes(from) }
    }
}

/// Sums `x·w` over the positions of a block, each chain separately.
fn sum<T: Weight, const R: usize>(
    chains: &mut [Row<f32>; R],
    x: &[&[f32]; R],
    Parts { numbers, part }: Parts<'_, T>,
) {
    let depth = x[0].len();
    assert!(x.iter().all(|x| x.len() == depth));
    assert!(numbers.len() >= (PANEL / LINE - 1) * part + depth * LINE);
    let (x, weights) = (x.map(<[f32]>::as_ptr), numbers.as_ptr());
    // SAFETY: rows of `x` and parts of weights have `depth` positions; `level` is never above what the processor was
    // detected to have.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        match level() {
            Level::Avx512 => return x86::avx512(chains, x, weights, part, depth),
            Level::Avx2 if R <= 2 => return x86::avx2::<T, R, 4>(chains, x, weights, part, depth),
            Level::Avx2 => return x86::avx2::<T, R, 2>(chains, x, weights, part, depth),
            Level::Baseline => {}
        }
        stream::<Portable, T, R, 1>(chains, x, weights, part, depth);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Row, Weight, stream};
    use std::arch::x86_64::{__m256, __m512};

    /// # Safety
    /// As for [`stream`].
    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512<T: Weight, const R: usize>(
        chains: &mut [Row<f32>; R],
        x: [*const f32; R],
        weights: *const T,
        part: usize,
        depth: usize,
    ) {
        // SAFETY: the caller guarantees it.
        unsafe { stream::<__m512, T, R, 2>(chains, x, weights, part, depth) }
    }

    /// # Safety
    /// As for [`stream`].
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2<T: Weight, const R: usize, const N: usize>(
        chains: &mut [Row<f32>; R],
        x: [*const f32; R],
        weights: *const T,
        part: usize,
        depth: usize,
    ) {
        // SAFETY: the caller guarantees it.
        unsafe { stream::<__m256, T, R, N>(chains, x, weights, part, depth) }
    }
}

/// Adds one position to the sums; `weights` points to the weights of each vector of columns.
///
/// # Safety
/// As for [`stream`].
#[inline(always)]
unsafe fn position<V: Vector, T: Weight, const R: usize, const N: usize>(
    sums: &mut [[V; N]; R],
    x: [*const f32; R],
    weights: [*const T; N],
    at: usize,
) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let x = x.map(|x| V::splat((*x.add(at)).to_bits()));
        for (j, weights) in weights.into_iter().enumerate() {
            let w = T::widen::<V>(weights.add(at * LINE));
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[j] = x.fma(w, sums[j]);
            }
        }
    }
}

/// Sums over `depth` positions, `N` vectors of columns at a time, whose sums fit the registers.
///
/// # Safety
/// The processor must have the instruction set of `V`; there must be `depth` numbers at each of `x`, and `depth` rows
/// of weights in each part, `part` weights from one part to the next.
#[inline(always)]
unsafe fn stream<V: Vector, T: Weight, const R: usize, const N: usize>(
    chains: &mut [Row<f32>; R],
    x: [*const f32; R],
    weights: *const T,
    part: usize,
    depth: usize,
) {
    const { assert!(PANEL.is_multiple_of(N * V::LANES) && LINE.is_multiple_of(V::LANES)) };
    for first in (0..PANEL).step_by(N * V::LANES) {
        // SAFETY: positions below `depth`, columns below `PANEL`.
        unsafe {
            let mut columns = [weights; N];
            for (j, columns) in columns.iter_mut().enumerate() {
                let col = first + j * V::LANES;
                *columns = weights.add(col / LINE * part + col % LINE);
            }
            let mut sums = [[V::splat(0); N]; R];
            // Four rows of a part fill at least a cache line.
            for k in (0..depth / 4).map(|four| 4 * four) {
                if let (0, Some(ahead)) = (first, T::AHEAD) {
                    for p in 0..PANEL / LINE {
                        let rows = weights.add(p * part + k * LINE).cast::<u8>();
                        for line in (0..4 * LINE * size_of::<T>()).step_by(size_of::<Line>()) {
                            prefetch(rows.wrapping_add(ahead + line));
                        }
                    }
                }
                for k in k..k + 4 {
                    position::<V, T, R, N>(&mut sums, x, columns, k);
                }
            }
            for k in depth / 4 * 4..depth {
                position::<V, T, R, N>(&mut sums, x, columns, k);
            }
            for (chain, sums) in chains.iter_mut().zip(sums) {
                for (j, sum) in sums.into_iter().enumerate() {
                    sum.store(chain.as_mut_ptr().add(first + j * V::LANES));
                }
            }
        }
    }
}

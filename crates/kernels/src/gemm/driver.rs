//! The loops around the micro-kernels.

use super::kernel::{Kernels, PANEL, STRIP, Tile};
use super::pack::{LINE, Line, Precision, Source, pack_columns};
use super::{Mat, Write};
use std::ops::Range;

/// Words of the inner dimension in a block: part of the contract on rounding, see [`super`]. A
/// panel of B fills 32 KiB of the first-level cache with it.
pub(super) const BLOCK: usize = 256;
/// Rows that share a block of A in the second-level cache.
const ROWS: usize = 128;
/// Elements of C that stay in the second-level cache from one block to the next.
const TILE_C: usize = 64 << 10;

/// Words for a block of A.
pub(super) const A_WORDS: usize = ROWS * BLOCK;
/// Lines for a block of a panel of B.
pub(super) const B_LINES: usize = PANEL * BLOCK / LINE;

/// A block of up to [`ROWS`] rows of A.
#[derive(Clone, Copy)]
pub(super) struct Left {
    first: *const u32,
    /// Words from a strip of [`STRIP`] rows to the next, from a row to the next within it, and from
    /// an inner position to the next.
    strip: usize,
    row: usize,
    word: usize,
}

/// Where blocks of A come from.
pub(super) trait Lefts {
    /// The block of `rows` at `words`.
    fn block(&mut self, rows: Range<usize>, words: Range<usize>) -> Left;
}

/// Where blocks of panels of B come from.
pub(super) trait Rights {
    /// The first word, and the words from an inner position to the next, of the panel of columns `cols`
    /// at `words`.
    fn block(&mut self, cols: Range<usize>, words: Range<usize>) -> (*const u32, usize);
}

/// f32 rows (or columns) as they lie.
pub(super) struct Direct<'a>(pub Mat<'a>);

impl Lefts for Direct<'_> {
    fn block(&mut self, rows: Range<usize>, words: Range<usize>) -> Left {
        let a = &self.0;
        let first = rows.start * a.row_stride + words.start * a.col_stride;
        Left {
            first: a.data[first..].as_ptr().cast(),
            strip: STRIP * a.row_stride,
            row: a.row_stride,
            word: a.col_stride,
        }
    }
}

/// A copied to a work area of [`A_WORDS`], block by block.
pub(super) struct Copied<'a, S>(pub Mat<'a, S>, pub &'a mut [u32]);

impl<'a, S> Copied<'a, S> {
    fn fill<P: Precision>(&mut self, rows: Range<usize>, words: Range<usize>) -> Left
    where
        S: Source<P>,
    {
        let (a, to) = (self.0, &mut *self.1);
        let depth = words.len();
        if a.col_stride == 1 {
            let k = words.start * P::PER_WORD..(words.end * P::PER_WORD).min(a.cols);
            for (row, to) in rows.clone().zip(to.chunks_exact_mut(depth)) {
                S::along(to, &a.data[row * a.row_stride..][k.clone()]);
            }
            return Left {
                first: to.as_ptr(),
                strip: STRIP * depth,
                row: depth,
                word: 1,
            };
        }
        let strips = to.chunks_exact_mut(STRIP * depth);
        for (first, to) in rows.clone().step_by(STRIP).zip(strips) {
            let strip = first..rows.end.min(first + STRIP);
            pack_columns::<P, S>(to, STRIP, a.t(), strip, words.clone());
        }
        Left {
            first: to.as_ptr(),
            strip: STRIP * depth,
            row: 1,
            word: STRIP,
        }
    }
}

/// [`Copied`] in a given precision.
pub(super) struct As<P, T>(pub T, pub std::marker::PhantomData<P>);

impl<P: Precision, S: Source<P>> Lefts for As<P, Copied<'_, S>> {
    fn block(&mut self, rows: Range<usize>, words: Range<usize>) -> Left {
        self.0.fill::<P>(rows, words)
    }
}

//! The loops around the micro-kernels.

use super::kernel::{PANEL, STRIP, Tile};
use super::pack::{LINE, Panels, Precision, Source, pack_panels};
use super::{Mat, Write};
use std::ops::Range;

/// Words of the inner dimension in a block: part of the contract on rounding, see [`super`]. A
/// block of a panel of B fills 32 KiB of the first-level cache.
pub(super) const BLOCK: usize = 256;
/// Rows that share a block of A in the second-level cache.
pub(super) const ROWS: usize = 128;
/// Elements of C that stay in the second-level cache from one block to the next.
const TILE_C: usize = 64 << 10;

/// Words of a block of A.
pub(super) const A_WORDS: usize = ROWS * BLOCK;
/// Lines of a block of a panel of B.
pub(super) const B_LINES: usize = PANEL * BLOCK / LINE;

/// Where a block of A lies: panels of [`PANEL`] rows that are made of strips of [`STRIP`].
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub first: *const u32,
    /// Words from a panel of rows to the next.
    pub panel: usize,
    /// Words from a strip to the next within a panel.
    pub strip: usize,
    /// Words from a row to the next within a strip.
    pub row: usize,
    /// Words from an inner position to the next.
    pub word: usize,
}

impl Left {
    /// Rows at equal distances.
    fn even(first: *const u32, row: usize, word: usize) -> Self {
        let (panel, strip) = (PANEL * row, STRIP * row);
        Self {
            first,
            panel,
            strip,
            row,
            word,
        }
    }

    /// The first word of a row of the block.
    fn at(&self, row: usize) -> *const u32 {
        let (panel, strip, row) = (row / PANEL, row % PANEL / STRIP, row % STRIP);
        self.first
            .wrapping_add(panel * self.panel + strip * self.strip + row * self.row)
    }
}

/// Where a block of a panel of B lies.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub first: *const u32,
    /// Words from an inner position to the next.
    pub word: usize,
}

/// The output: `rows × cols` elements, rows `row_stride` apart.
pub(super) struct Output {
    pub first: *mut f32,
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
}

/// `c = scale · A·B (+ c)` with `k` inner positions. `left(rows, words)` and `right(cols, words)` hand
/// out blocks of at most [`ROWS`] rows, one panel of columns, and [`BLOCK`] words.
///
/// # Safety
/// The elements of `c` must be valid for reads and writes and be used by nobody else meanwhile. A
/// block must be valid for reads (of whole panels in the case of B) until the next one is asked for.
pub(super) unsafe fn product<P: Precision>(
    c: Output,
    write: Write,
    k: usize,
    mut left: impl FnMut(Range<usize>, Range<usize>) -> Left,
    mut right: impl FnMut(Range<usize>, Range<usize>) -> Right,
    scale: f32,
) {
    let kernels = P::kernels();
    let words = k.div_ceil(P::PER_WORD);
    if words == 0 && write == Write::Replace {
        for row in 0..c.rows {
            // SAFETY: a row of the output.
            unsafe { c.first.add(row * c.row_stride).write_bytes(0, c.cols) };
        }
    }
    for rows in pieces(0..c.rows, ROWS) {
        let width = (TILE_C / rows.len()).next_multiple_of(PANEL);
        for tile in pieces(0..c.cols, width) {
            for words in pieces(0..words, BLOCK) {
                let write = if words.start == 0 { write } else { Write::Add };
                let a = left(rows.clone(), words.clone());
                for cols in pieces(tile.clone(), PANEL) {
                    let b = right(cols.clone(), words.clone());
                    let mut row = rows.start;
                    for &(height, kernel) in kernels {
                        while rows.end - row >= height {
                            let tile = Tile {
                                words: words.len(),
                                a: a.at(row - rows.start),
                                a_row: a.row,
                                a_word: a.word,
                                b: b.first,
                                b_word: b.word,
                                c: c.first.wrapping_add(row * c.row_stride + cols.start),
                                c_row: c.row_stride,
                                scale,
                                write,
                            };
                            // SAFETY: rows, columns and words are within what the caller vouches for.
                            unsafe {
                                if cols.len() == PANEL {
                                    kernel(&tile);
                                } else {
                                    narrow(kernel, tile, height, cols.len());
                                }
                            }
                            row += height;
                        }
                    }
                }
            }
        }
    }
}

/// Runs a kernel of `rows` rows whose C has less than [`PANEL`] columns.
///
/// # Safety
/// As for the kernel, but for `cols` columns of C.
unsafe fn narrow(kernel: super::kernel::Kernel, tile: Tile, rows: usize, cols: usize) {
    let mut whole = [[0.0f32; PANEL]; STRIP];
    for (row, whole) in whole[..rows].iter_mut().enumerate() {
        // SAFETY: `cols` columns of a row of C.
        unsafe {
            tile.c
                .add(row * tile.c_row)
                .copy_to_nonoverlapping(whole.as_mut_ptr(), cols)
        };
    }
    let inner = Tile {
        c: whole.as_mut_ptr().cast(),
        c_row: PANEL,
        ..tile
    };
    // SAFETY: the copy has whole panels.
    unsafe { kernel(&inner) };
    for (row, whole) in whole[..rows].iter().enumerate() {
        // SAFETY: as above.
        unsafe {
            tile.c
                .add(row * tile.c_row)
                .copy_from_nonoverlapping(whole.as_ptr(), cols)
        };
    }
}

/// `range` in pieces of at most `size`.
pub(super) fn pieces(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(size)
        .map(move |start| start..end.min(start + size))
}

/// Blocks of `a`: where they lie if the kernels can read them there, which holds for f32, or else
/// copied to `work` ([`A_WORDS`]).
///
/// Columns of f32 are not copied either: the kernels wait less for them than a copy would.
pub(super) fn left<'a, P: Precision, S: Source<P>>(
    a: Mat<'a, S>,
    work: &'a mut [u32],
) -> impl FnMut(Range<usize>, Range<usize>) -> Left + 'a {
    let in_place = S::in_place(a);
    move |rows, words| {
        let depth = words.len();
        if let Some((row, word)) = in_place {
            let first = a.data.as_ptr().cast::<u32>();
            let first = first.wrapping_add(rows.start * row + words.start * word);
            Left::even(first, row, word)
        } else if a.col_stride == 1 {
            let k = words.start * P::PER_WORD..(words.end * P::PER_WORD).min(a.cols);
            for (row, to) in rows.zip(work.chunks_exact_mut(depth)) {
                S::along(to, &a.data[row * a.row_stride..][k.clone()]);
            }
            Left::even(work.as_ptr(), depth, 1)
        } else {
            let to = &mut work[..rows.len().next_multiple_of(STRIP) * depth];
            let to = Panels {
                first: to.as_mut_ptr().cast(),
                panel: depth,
            };
            // SAFETY: `work` has that many rows of words.
            unsafe { pack_panels::<P, S, STRIP>(to, a.t(), rows, words) };
            Left {
                first: work.as_ptr(),
                panel: PANEL * depth,
                strip: STRIP * depth,
                row: 1,
                word: STRIP,
            }
        }
    }
}

/// Blocks of `b`, copied to `work` ([`B_LINES`]) unless the kernels can read whole panels where they are.
pub(super) fn right<'a, P: Precision, S: Source<P>>(
    b: Mat<'a, S>,
    work: &'a mut [u32],
) -> impl FnMut(Range<usize>, Range<usize>) -> Right + 'a {
    let in_place = S::in_place(b.t());
    move |cols, words| {
        if let Some((1, word)) = in_place
            && cols.len() == PANEL
        {
            let first = b.data.as_ptr().cast::<u32>();
            return Right {
                first: first.wrapping_add(words.start * word + cols.start),
                word,
            };
        }
        let to = &mut work[..words.len() * PANEL];
        let panels = Panels {
            first: to.as_mut_ptr().cast(),
            panel: words.len(),
        };
        // SAFETY: one panel of `to`.
        unsafe { pack_panels::<P, S, PANEL>(panels, b, cols, words) };
        Right {
            first: to.as_ptr(),
            word: PANEL,
        }
    }
}

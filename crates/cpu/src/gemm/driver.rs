//! The loops around the micro-kernels. They are in one file with the descriptions of both factors, because which addresses a
//! block has, and which data are prefetched while it is in use, are decided by the order of these loops.

use super::blocking::blocking;
use super::kernel::{FEW_ROWS, Kernel, Kernels, PANEL, STRIP, Tile, UNROLLED};
use super::pack::{Element, Panels, Source, pack_panels};
use super::pieces::pieces;
use super::{Mat, Write};
use crate::line::{LINE, Line};
use crate::simd::{prefetch, prefetch_second};
use std::marker::PhantomData;
use std::ops::Range;

/// Words of the inner dimension in a block; this is part of the rounding contract, see [`super`]. A block of a panel of
/// B fills 32 KiB of the first-level cache.
pub(super) const BLOCK: usize = 256;
/// A number of rows that is divided into complete tiles with every instruction set, and whole cache lines of columns.
pub(super) const WHOLE_TILES: usize = 48;
/// Rows that share a block of A in the second-level cache.
pub(super) const ROWS: usize = 3 * WHOLE_TILES;
/// Elements of C that a block of A is used for before the next block, if all blocks are read in place and are near:
/// they stay in the first-level cache from one block to the next.
const NEAR_C: usize = 8 << 10;
/// Number of elements of A up to which A counts as near.
const NEAR_A: usize = 256 << 10;
/// Words of a page: addresses so far apart compete for the same lines of a first-level cache.
const COLLIDING: usize = 1 << 10;

/// Words of a block of A, whose last strip may be incomplete.
pub(super) const A_WORDS: usize = (ROWS + STRIP) * BLOCK;
/// Lines of a block of a panel of B.
pub(super) const B_LINES: usize = PANEL * BLOCK / LINE;

/// The address of a block of A, as groups of adjacent rows.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub first: *const u32,
    /// Rows of a group; no tile spans two groups.
    pub group_rows: usize,
    /// Words from a group to the next.
    pub group: usize,
    /// Words from a row to the next within a group.
    pub row: usize,
    /// Words from an inner position to the next.
    pub word: usize,
}

impl Left {
    /// One group: rows at equal distances.
    fn even(first: *const u32, row: usize, word: usize) -> Self {
        Self {
            first,
            group_rows: usize::MAX,
            group: 0,
            row,
            word,
        }
    }
}

/// Blocks of A, in the order in which a product uses them.
pub(super) trait Blocks {
    /// Number of elements of C for which a block should be used before the next one.
    fn serves(&self) -> usize;
    /// The block of `rows` and `words`, at most [`ROWS`] and [`BLOCK`].
    fn block(&mut self, rows: Range<usize>, words: Range<usize>) -> Left;
    /// The memory that [`Blocks::block`] will copy.
    fn upcoming(&self, rows: Range<usize>, words: Range<usize>) -> Upcoming;
}

/// Lines that will be read, in rows of the same length.
#[derive(Clone, Copy)]
pub(super) struct Upcoming {
    first: *const u8,
    /// Bytes from a row to the next.
    stride: usize,
    rows: usize,
    /// Lines of a row.
    lines: usize,
    /// Rows to prefetch with every tile.
    share: usize,
}

impl Upcoming {
    const NONE: Self = Self {
        first: std::ptr::null(),
        stride: 0,
        rows: 0,
        lines: 0,
        share: 0,
    };

    /// Divides the rows among this number of tiles.
    fn among(self, tiles: usize) -> Self {
        let share = self.rows.div_ceil(tiles.max(1));
        Self { share, ..self }
    }

    /// Prefetches the share of one tile.
    fn prefetch_share(&mut self) {
        let rows = self.share.min(self.rows);
        for row in 0..rows {
            for line in 0..self.lines {
                let at = row * self.stride + line * size_of::<Line>();
                prefetch_second(self.first.wrapping_add(at));
            }
        }
        self.first = self.first.wrapping_add(rows * self.stride);
        self.rows -= rows;
    }
}

/// The address of a block of a panel of B. A panel is made of parts of [`Kernels::cols`] columns.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub first: *const u32,
    /// Words from a part to the next.
    pub part: usize,
    /// Words from an inner position to the next.
    pub word: usize,
    /// Factors of the columns; null if there are none.
    pub scales: *const [f32; PANEL],
    /// Where the block comes from, if the next one can be prefetched from there.
    pub memory: Option<Memory>,
}

/// The address of a block of B as it is stored: as the kernels read it, or narrower.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub first: *const u32,
    /// Words from a part to the next.
    pub part: usize,
    /// Words from a panel to the next.
    pub panel: usize,
    /// Words of an inner position of a part.
    pub position: usize,
}

/// Lines of B that will be read soon.
#[derive(Clone, Copy)]
struct Next {
    first: *const u32,
    lines: usize,
}

/// The output: `rows × cols` elements, rows `row_stride` apart.
pub(super) struct Output {
    pub first: *mut f32,
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
}

/// `c = scale · A·B (+ c)` with `k` inner positions. `left` and `right(cols, words)` return blocks of at
/// most [`ROWS`] rows, one panel of columns, and [`BLOCK`] words. If a block of B has factors for its columns, they are multiplied with `scale`.
///
/// # Safety
/// The elements of `c` must be valid for reads and writes, and no other code may access them during the call. A block
/// must be valid for reads (of whole panels in the case of B) until the next one is requested.
pub(super) unsafe fn product<P: Element>(
    c: Output,
    write: Write,
    k: usize,
    mut left: impl Blocks,
    mut right: impl FnMut(Range<usize>, Range<usize>) -> Right,
    scale: f32,
) {
    let (kernels, is_few) = (P::kernels(c.rows), c.rows < FEW_ROWS);
    let k_words = k.div_ceil(P::PER_WORD);
    if k_words == 0 && write == Write::Replace {
        for row in 0..c.rows {
            // SAFETY: a row of the output.
            unsafe { c.first.add(row * c.row_stride).write_bytes(0, c.cols) };
        }
    }
    let scales = [scale; PANEL];
    for rows in pieces(0..c.rows, ROWS) {
        let width = (left.serves() / rows.len()).next_multiple_of(PANEL);
        for tile in pieces(0..c.cols, width) {
            for words in pieces(0..k_words, BLOCK) {
                let write = if words.start == 0 { write } else { Write::Add };
                let a = left.block(rows.clone(), words.clone());
                let mut upcoming = Upcoming::NONE;
                if kernels.prefetches > 0 {
                    let following = words.end..k_words.min(words.end + BLOCK);
                    let tiles = tile.len().div_ceil(kernels.cols) * rows.len().div_ceil(STRIP);
                    upcoming = left.upcoming(rows.clone(), following).among(tiles);
                }
                let mut first_panel = std::ptr::null();
                for panel in pieces(tile.clone(), PANEL) {
                    let b = right(panel.clone(), words.clone());
                    let memory = b.memory;
                    if panel.start == tile.start {
                        first_panel = memory.map_or(std::ptr::null(), |m| m.first);
                    }
                    // What is read after this panel: the next one, or the first one's next block; with few rows, after
                    // the last block, the next panel's first one.
                    let is_last = panel.end == tile.end;
                    let after = |m: Memory| match (is_last, is_few && words.end == k_words) {
                        (false, _) => m.first.wrapping_add(m.panel),
                        (true, false) => first_panel.wrapping_add(words.len() * m.position),
                        (true, true) => {
                            (m.first.wrapping_add(m.panel)).wrapping_sub(words.start * m.position)
                        }
                    };
                    // SAFETY: valid as long as the block, or null.
                    let own = unsafe { b.scales.as_ref() }.map(|own| own.map(|own| scale * own));
                    let scales = own.as_ref().unwrap_or(&scales);
                    let parts = panel.len().div_ceil(kernels.cols);
                    for (part, cols) in pieces(panel, kernels.cols).enumerate() {
                        let next = memory.map(|m| Next {
                            first: match part + 1 < parts {
                                true => m.first.wrapping_add((part + 1) * m.part),
                                false => after(m),
                            },
                            lines: words.len() * m.position / LINE,
                        });
                        let first = Tile {
                            words: words.len(),
                            a: a.first,
                            a_row: a.row,
                            a_word: a.word,
                            b: b.first.wrapping_add(part * b.part),
                            b_word: b.word,
                            c: c.first.wrapping_add(rows.start * c.row_stride + cols.start),
                            c_row: c.row_stride,
                            scales: scales[part * kernels.cols..].as_ptr(),
                            write,
                            ahead: b.first,
                            ahead_step: 0,
                        };
                        // SAFETY: rows, columns and words are within the caller's guarantee.
                        unsafe {
                            let size = [rows.len(), cols.len()];
                            column(kernels, first, &a, size, next, &mut upcoming);
                        }
                    }
                }
            }
        }
    }
}

/// The tiles of `rows` rows over a block of the inner dimension, `cols` columns of each; `first` is the first row's. At
/// the same time the columns of B at `next` are prefetched, a share with every tile, since the processor does not
/// prefetch that far by itself.
///
/// # Safety
/// As for [`product`].
unsafe fn column(
    kernels: &Kernels,
    first: Tile,
    a: &Left,
    [rows, cols]: [usize; 2],
    next: Option<Next>,
    upcoming: &mut Upcoming,
) {
    let Next { first: next, lines } = next.unwrap_or(Next {
        first: first.b,
        lines: 0,
    });
    // Lines to prefetch with every row.
    let share = lines.div_ceil(rows.max(1));
    let (mut row, mut group) = (0, a.first);
    while row < rows {
        let end = rows.min(row.saturating_add(a.group_rows));
        let mut tile = Tile {
            a: group,
            c: first.c.wrapping_add(row * first.c_row),
            ..first
        };
        group = group.wrapping_add(a.group);
        while row < end {
            let height = kernels.height(end - row, rows < FEW_ROWS);
            let kernel = kernels.by_rows[height - 1];
            upcoming.prefetch_share();
            if kernels.prefetches > 0 {
                // With few rows, the kernels leave out lines; the processor fetches many of them with their neighbours.
                let times = kernels.prefetches * (first.words / UNROLLED);
                tile.ahead = next.wrapping_add(row * share * LINE);
                tile.ahead_step = height * share * LINE / times.max(1);
            } else {
                for line in row * share..lines.min((row + height) * share) {
                    prefetch(next.wrapping_add(line * LINE));
                }
            }
            // SAFETY: the caller guarantees it.
            unsafe {
                if cols == kernels.cols {
                    kernel(&tile);
                } else {
                    narrow(kernel, &tile, height, cols);
                }
            }
            tile.a = tile.a.wrapping_add(height * a.row);
            tile.c = tile.c.wrapping_add(height * tile.c_row);
            row += height;
        }
    }
}

/// Runs a kernel of `rows` rows for a C with fewer columns than the kernel.
///
/// # Safety
/// As for the kernel, but only `cols` columns of C need be valid.
unsafe fn narrow(kernel: Kernel, tile: &Tile, rows: usize, cols: usize) {
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
        ..*tile
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

/// Blocks of `a`, read in place if the kernels can do that efficiently, or else copied to `work` ([`A_WORDS`]).
/// Without `work`, all f32 are read in place, which suits small matrices that lie in the first caches.
pub(super) fn left<'a, P: Element, S: Source<P>>(
    a: Mat<'a, S>,
    work: &'a mut [u32],
) -> impl Blocks + 'a {
    // Rows at such distances all lie in the same few lines of the first-level cache and evict each other.
    let collide = |row: usize| row.is_multiple_of(COLLIDING);
    LeftBlocks::<P, S> {
        in_place: S::in_place(a)
            .filter(|&(row, word)| work.is_empty() || (word == 1 && !collide(row))),
        a,
        work,
        element: PhantomData,
    }
}

/// See [`left`].
struct LeftBlocks<'a, P, S> {
    a: Mat<'a, S>,
    /// Words between rows and between columns, if `a` is read in place.
    in_place: Option<(usize, usize)>,
    work: &'a mut [u32],
    element: PhantomData<P>,
}

impl<P: Element, S: Source<P>> LeftBlocks<'_, P, S> {
    /// The inner positions of `words`.
    fn positions(&self, words: Range<usize>) -> Range<usize> {
        words.start * P::PER_WORD..(words.end * P::PER_WORD).min(self.a.cols)
    }
}

impl<P: Element, S: Source<P>> Blocks for LeftBlocks<'_, P, S> {
    fn serves(&self) -> usize {
        let is_near = self.in_place.is_some() && self.a.rows.min(ROWS) * self.a.cols <= NEAR_A;
        // As [`NEAR_C`] if blocks are copied or far, so that a block should be used for longer.
        if is_near { NEAR_C } else { blocking().wide }
    }

    fn block(&mut self, rows: Range<usize>, words: Range<usize>) -> Left {
        let (a, depth) = (self.a, words.len());
        if let Some((row, word)) = self.in_place {
            let first = a.data.as_ptr().cast::<u32>();
            let first = first.wrapping_add(rows.start * row + words.start * word);
            return Left::even(first, row, word);
        }
        if a.col_stride == 1 {
            let k = self.positions(words);
            for (row, to) in rows.zip(self.work.chunks_exact_mut(depth)) {
                S::along(to, &a.data[row * a.row_stride..][k.clone()]);
            }
            return Left::even(self.work.as_ptr(), depth, 1);
        }
        let strip = P::strip();
        let to = &mut self.work[..rows.len().next_multiple_of(strip) * depth];
        // SAFETY: `work` has that many rows of words.
        unsafe {
            match strip {
                4 => pack_strips::<P, S, 4>(to, a.t(), rows, words),
                6 => pack_strips::<P, S, 6>(to, a.t(), rows, words),
                8 => pack_strips::<P, S, 8>(to, a.t(), rows, words),
                _ => unreachable!("kernels have tiles of 4, 6 or 8 rows"),
            }
        };
        Left {
            first: self.work.as_ptr(),
            group_rows: strip,
            group: strip * depth,
            row: 1,
            word: strip,
        }
    }

    fn upcoming(&self, rows: Range<usize>, words: Range<usize>) -> Upcoming {
        let (a, k) = (self.a, self.positions(words));
        if self.in_place.is_some() || k.is_empty() || a.row_stride != 1 {
            return Upcoming::NONE;
        }
        let first: *const S = &raw const a.data[k.start * a.col_stride + rows.start];
        Upcoming {
            first: first.cast(),
            stride: a.col_stride * size_of::<S>(),
            rows: k.len(),
            lines: (rows.len() * size_of::<S>()).div_ceil(size_of::<Line>()),
            share: 0,
        }
    }
}

/// Packs columns of `b` as panels of `W`, one after the other in `to`.
///
/// # Safety
/// `to` must have whole panels for all of `cols`.
unsafe fn pack_strips<P: Element, S: Source<P>, const W: usize>(
    to: &mut [u32],
    b: Mat<'_, S>,
    cols: Range<usize>,
    words: Range<usize>,
) {
    let panels = Panels {
        first: to.as_mut_ptr().cast(),
        panel: words.len(),
    };
    // SAFETY: the caller guarantees it.
    unsafe { pack_panels::<P, S, W>(panels, b, cols, words) }
}

/// Number of rows of A from which on it is worth copying columns of B.
const MANY_ROWS: usize = 32;

/// Blocks of `b` for a product of this number of rows. They are copied to `work` ([`B_LINES`]) unless the kernels can read
/// whole panels in place and there are few rows.
pub(super) fn right<'a, P: Element, S: Source<P>>(
    b: Mat<'a, S>,
    rows: usize,
    work: &'a mut [u32],
) -> impl FnMut(Range<usize>, Range<usize>) -> Right + 'a {
    let in_place = S::in_place(b.t()).filter(|_| rows < MANY_ROWS);
    move |cols, words| {
        if let Some((1, word)) = in_place
            && cols.len() == PANEL
        {
            let first = b.data.as_ptr().cast::<u32>();
            return Right {
                first: first.wrapping_add(words.start * word + cols.start),
                part: P::cols(),
                word,
                scales: std::ptr::null(),
                memory: None,
            };
        }
        let to = &mut work[..words.len() * PANEL];
        // SAFETY: one panel of `to`.
        unsafe { pack_parts::<P, S>(to.as_mut_ptr(), words.len(), b, cols, words.clone()) };
        Right {
            memory: None,
            ..packed_block::<P>(to, words.len(), 0)
        }
    }
}

/// Packs the columns `cols` of `b` at the words `words` as parts of [`Kernels::cols`] columns, each of
/// which has `depth` words for each column; `to` is where the first of those words goes.
///
/// # Safety
/// `words` of all parts must be valid for writes and not accessed by other code.
pub(super) unsafe fn pack_parts<P: Element, S: Source<P>>(
    to: *mut u32,
    depth: usize,
    b: Mat<'_, S>,
    cols: Range<usize>,
    words: Range<usize>,
) {
    // SAFETY: the caller guarantees it.
    unsafe {
        match P::cols() {
            16 => {
                let (first, panel) = (to.cast(), depth);
                pack_panels::<P, S, 16>(Panels { first, panel }, b, cols, words);
            }
            32 => {
                let (first, panel) = (to.cast(), depth);
                pack_panels::<P, S, 32>(Panels { first, panel }, b, cols, words);
            }
            _ => unreachable!("kernels have tiles of 16 or 32 columns"),
        }
    }
}

/// The words from `start` on of a panel that [`pack_parts`] has packed with `depth` words for each column.
pub(super) fn packed_block<P: Element>(panel: &[u32], depth: usize, start: usize) -> Right {
    let width = P::cols();
    let memory = Memory {
        first: panel[start * width..].as_ptr(),
        part: depth * width,
        panel: depth * PANEL,
        position: width,
    };
    Right {
        first: memory.first,
        part: memory.part,
        word: width,
        scales: std::ptr::null(),
        memory: Some(memory),
    }
}

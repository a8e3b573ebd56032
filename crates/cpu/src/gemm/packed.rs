//! Matrices that are packed once and used for many products.

use super::blocking::blocking;
use super::driver::{
    A_WORDS, Output, ROWS, Right, WHOLE_TILES, left, pack_parts, packed_block, product,
};
use super::kernel::PANEL;
use super::pack::{Element, Source};
use super::{Mat, MatMut, Write, words_of, words_of_floats};
use crate::exec::{Disjoint, Exec, Pieces};
use crate::line::{LINE, Line};
use std::marker::PhantomData;
use std::ops::Range;

/// The right factor `B` `[K, N]` of a product, packed as `P` (f32 or [`super::Bf16`]).
///
/// A weight `[N, D]` has two uses: as `Kᵀ` in `X·Kᵀ`, packed from `Mat::new(w, n, d).t()`, and as `V`
/// in `Σ·V`, packed from `Mat::new(w, n, d)`.
pub struct Packed<'a, P> {
    lines: &'a [Line],
    k: usize,
    /// Words from a panel to the next, for each of its columns.
    depth: usize,
    n: usize,
    element: PhantomData<P>,
}

impl<P> Clone for Packed<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for Packed<'_, P> {}

/// Number of lines of one panel.
fn panel_lines<P: Element>(k: usize) -> usize {
    k.div_ceil(P::PER_WORD) * (PANEL / LINE)
}

/// Number of lines that a packed `[k, n]` takes.
pub fn packed_lines<P: Element>(k: usize, n: usize) -> usize {
    n.div_ceil(PANEL) * panel_lines::<P>(k)
}

impl<'a, P: Element> Packed<'a, P> {
    /// The matrix that [`pack`] has written to `lines`.
    pub fn new(lines: &'a [Line], k: usize, n: usize) -> Self {
        assert_eq!(lines.len(), packed_lines::<P>(k, n));
        Self {
            lines,
            k,
            depth: k.div_ceil(P::PER_WORD),
            n,
            element: PhantomData,
        }
    }

    /// Inner dimension `K` and columns `N`.
    pub fn shape(self) -> [usize; 2] {
        [self.k, self.n]
    }

    /// The columns `cols`, which start at a multiple of [`Packed::COLS`].
    pub fn columns(self, cols: Range<usize>) -> Self {
        assert!(cols.start.is_multiple_of(PANEL) && cols.start <= cols.end && cols.end <= self.n);
        let lines = self.panel_lines();
        let panels = cols.start / PANEL..cols.end.div_ceil(PANEL);
        Self {
            lines: &self.lines[panels.start * lines..panels.end * lines],
            n: cols.len(),
            ..self
        }
    }

    /// The first `k` rows, an even number in bfloat16 if not all.
    pub fn first_rows(self, k: usize) -> Self {
        assert!(k == self.k || (k < self.k && k.is_multiple_of(P::PER_WORD)));
        Self { k, ..self }
    }

    /// Columns that are packed together.
    pub const COLS: usize = PANEL;

    /// Lines of one panel.
    fn panel_lines(&self) -> usize {
        self.depth * (PANEL / LINE)
    }

    /// The words of the panel with column `col`.
    fn panel(&self, col: usize) -> &'a [u32] {
        let lines = self.panel_lines();
        words_of(&self.lines[col / PANEL * lines..][..lines])
    }

    fn right(self) -> impl FnMut(Range<usize>, Range<usize>) -> Right {
        move |cols, words| packed_block::<P>(self.panel(cols.start), self.depth, words.start)
    }
}

/// Packs `b` `[K, N]` into `to` ([`packed_lines`]) on the calling thread.
pub fn pack<'a, P: Element, S: Source<P>>(to: &'a mut [Line], b: Mat<'_, S>) -> Packed<'a, P> {
    let (k, n) = (b.rows, b.cols);
    assert_eq!(to.len(), packed_lines::<P>(k, n));
    let words = k.div_ceil(P::PER_WORD);
    // SAFETY: `to` has the panels of all columns, of all words.
    unsafe { pack_parts::<P, S>(to.as_mut_ptr().cast(), words, b, 0..n, 0..words) };
    Packed::new(to, k, n)
}

/// As [`pack`], shared by the threads.
pub fn par_pack<'a, P: Element, S: Source<P>>(
    exec: &mut Exec<'_>,
    to: &'a mut [Line],
    b: Mat<'_, S>,
) -> Packed<'a, P> {
    let (k, n) = (b.rows, b.cols);
    assert_eq!(to.len(), packed_lines::<P>(k, n));
    let words = k.div_ceil(P::PER_WORD);
    // The pieces are long in the direction that is contiguous in memory.
    let [long, short] = [PACK_WORDS * LINE, PACK_WORDS];
    let (rows, cols) = if b.col_stride == 1 {
        (Pieces::new(words, short), Pieces::new(n, long))
    } else {
        (Pieces::new(words, long), Pieces::new(n, short))
    };
    {
        let to = Disjoint::new(&mut *to);
        exec.run(rows.count() * cols.count(), 0, |task, _| {
            let (words_here, cols) = (
                rows.range(task % rows.count()),
                cols.range(task / rows.count()),
            );
            let first = cols.start * words + words_here.start * P::cols();
            // SAFETY: tasks own disjoint words of disjoint panels, all of them inside of `to`.
            unsafe {
                let to = to.pointer(first / LINE).cast();
                pack_parts::<P, S>(to, words, b, cols, words_here);
            }
        });
    }
    Packed::new(to, k, n)
}

/// The shorter side of the piece that a task of [`par_pack`] packs; the longer side is [`LINE`] times that.
const PACK_WORDS: usize = 2 * PANEL;

/// Floats of scratch memory that [`gemm_packed`] needs.
pub const SCRATCH: usize = A_WORDS;

/// `C = scale · A·B (+ C)` on the calling thread, with [`SCRATCH`] floats of scratch memory.
pub fn gemm_packed<P: Element, S: Source<P>>(
    c: MatMut<'_>,
    write: Write,
    a: Mat<'_, S>,
    b: Packed<'_, P>,
    scale: f32,
    scratch: &mut [f32],
) {
    assert_eq!((a.rows, a.cols, b.n), (c.rows, b.k, c.cols));
    // SAFETY: `c` is a live exclusive slice that holds rows × cols at its strides.
    unsafe { packed_product(c.output(), write, a, b, scale, scratch) }
}

/// As [`gemm_packed`], with an output between whose rows other tasks may write: `a.rows × b.n` elements from `c` on, rows
/// `row_stride` apart.
///
/// # Safety
/// The elements of the output must be valid for reads and writes, and no other code may access them during the call.
pub(crate) unsafe fn gemm_packed_among<P: Element, S: Source<P>>(
    (c, row_stride): (*mut f32, usize),
    write: Write,
    a: Mat<'_, S>,
    b: Packed<'_, P>,
    scale: f32,
    scratch: &mut [f32],
) {
    assert_eq!(a.cols, b.k);
    let output = Output {
        first: c,
        rows: a.rows,
        cols: b.n,
        row_stride,
    };
    // SAFETY: the caller guarantees it.
    unsafe { packed_product(output, write, a, b, scale, scratch) }
}

/// # Safety
/// The elements of `c` must be valid for reads and writes, and no other code may access them during the call.
unsafe fn packed_product<P: Element, S: Source<P>>(
    c: Output,
    write: Write,
    a: Mat<'_, S>,
    b: Packed<'_, P>,
    scale: f32,
    scratch: &mut [f32],
) {
    let work = words_of_floats(&mut scratch[..SCRATCH]);
    // SAFETY: `left` and `right` return blocks inside `a`, `work` and `b`, which are borrowed here.
    unsafe { product::<P>(c, write, a.cols, left::<P, S>(a, work), b.right(), scale) }
}

/// As [`gemm_packed`], with the output divided into tiles for several threads.
pub fn par_gemm_packed<P: Element, S: Source<P>>(
    exec: &mut Exec<'_>,
    c: MatMut<'_>,
    write: Write,
    a: Mat<'_, S>,
    b: Packed<'_, P>,
    scale: f32,
) {
    assert_eq!((a.rows, a.cols, b.n), (c.rows, b.k, c.cols));
    let grid = Grid::new(a.rows, b.n, a.cols, exec.pool.threads());
    let row_stride = c.row_stride;
    let c = Disjoint::new(c.data);
    exec.run(grid.count(), SCRATCH, |task, scratch| {
        let (rows, cols) = grid.tile(task);
        let output = Output {
            // SAFETY: tiles of different tasks do not overlap.
            first: unsafe { c.pointer(rows.start * row_stride + cols.start) },
            rows: rows.len(),
            cols: cols.len(),
            row_stride,
        };
        let a = a.row_block(rows.start, rows.len());
        // SAFETY: as above; `MatMut` guarantees that the tile is in bounds.
        unsafe { packed_product(output, write, a, b.columns(cols), scale, scratch) };
    });
}

/// How a product is divided into tasks. This changes only the speed, since each element is one chain in one task.
pub(super) struct Grid {
    rows: Pieces,
    cols: Pieces,
    rows_first: bool,
}

impl Grid {
    /// Tasks for each thread, so that all end at about the same time.
    const TASKS: usize = 8;
    /// Multiply-adds below which smaller tasks are not faster; up to 16 rows take the same time.
    const WORK: usize = 1 << 20;

    /// The grid of a product `[m, k]·[k, n]`; tasks start at multiples of [`WHOLE_TILES`] rows and at whole panels.
    pub fn new(m: usize, n: usize, k: usize, threads: usize) -> Self {
        let tasks = threads * Self::TASKS;
        let even = |len: usize, most: usize, unit: usize| {
            len.div_ceil(len.div_ceil(most).max(1))
                .next_multiple_of(unit)
                .max(unit)
        };
        let (mut rows, mut cols) = (
            even(m, ROWS, WHOLE_TILES),
            even(n, blocking().task_cols, PANEL),
        );
        // Rows are divided first: tasks of other rows read B again, which is packed, but tasks of other columns read A
        // again, which is not.
        let least = |other: usize| (Self::WORK / (other.max(16) * k.max(1))).max(PANEL);
        let wanted = tasks.div_ceil(n.div_ceil(cols).max(1));
        rows = rows.min(even(m, m.div_ceil(wanted).max(least(cols)), WHOLE_TILES));
        let wanted = tasks.div_ceil(m.div_ceil(rows).max(1));
        cols = cols.min(even(n, n.div_ceil(wanted).max(least(rows.min(m))), PANEL));
        Self {
            rows: Pieces::new(m, rows),
            cols: Pieces::new(n, cols),
            // Consecutive tasks share the longer side in the cache.
            rows_first: n > m,
        }
    }

    pub fn count(&self) -> usize {
        self.rows.count() * self.cols.count()
    }

    /// Rows and columns of a task.
    pub fn tile(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let (row, col) = if self.rows_first {
            (task % self.rows.count(), task / self.rows.count())
        } else {
            (task / self.cols.count(), task % self.cols.count())
        };
        (self.rows.range(row), self.cols.range(col))
    }
}

//! Matrix products: checked, strided views, `C = scale · A·B (+ C)`, and factors that are packed once and used for many
//! products.
//!
//! | | |
//! |---|---|
//! | [`gemm`], [`par_gemm`] | f32 factors in place; B is copied block by block if it is a transpose, or for many rows |
//! | [`gemm_packed`], [`par_gemm_packed`] | B packed beforehand by [`pack`] or [`par_pack`], in f32 or [`Bf16`] |
//! | [`par_matmul`] | any of the above: B is packed in stripes unless there are only a few rows of f32 |
//! | [`par_products`], [`gemm_weights`] | B as [`PackedWeights`] for inference, in f32, bfloat16 or 8-bit integers |
//! | [`few_rows_dot`], [`few_rows_sum`] | [`par_gemm`] for weights and a handful of rows |
//!
//! # Rounding
//!
//! Every element of `C` is computed separately, in an order that depends only on the inner dimension `K`:
//!
//! 1. `K` is cut into blocks of 256 (f32) or 512 (bfloat16) positions.
//! 2. In a block, products are added one after the other to a sum that starts at 0, each by one fused
//!    multiply-add in f32. f32 products are added in ascending order; of each pair of bfloat16 `2i, 2i + 1` the second
//!    comes first, as in AVX512-BF16.
//! 3. Sums of blocks are added to `C` in order, as `C = fma(scale, sum, C)`. With [`Write::Replace`] the first
//!    block sets `C = scale · sum`, and `K = 0` sets 0.
//!
//! So the bits do not depend on the other rows and columns, on layouts, packing, tiles or threads: a token that is
//! decoded alone gets the same result as in a prefill. They do not depend on the instruction set either (AVX-512, AVX2
//! with FMA, or portable code), with one exception: AVX512-BF16 treats bfloat16 inputs and running sums that are not
//! zero but below 2⁻¹²⁶ in magnitude as 0.

mod bf16;
mod blocking;
mod driver;
mod kept;
mod kernel;
mod matmul;
mod pack;
mod packed;
mod pieces;
mod vector;
mod weights;

use crate::exec::{Disjoint, Exec};
use crate::line::LINE;
use driver::{B_LINES, Output, Right, left, product, right};
use packed::Grid;
use std::cell::RefCell;
use tokenformer_device::Write;

pub use crate::line::Line;
pub use bf16::{Bf16, round_to_bf16, widen_bf16};
pub use blocking::{Blocking, blocking};
pub use kept::Kept;
pub use matmul::par_matmul;
pub(crate) use matmul::stripes;
pub use pack::{Element, Source};
pub(crate) use packed::gemm_packed_among;
pub use packed::{Packed, SCRATCH, gemm_packed, pack, packed_lines, par_gemm_packed, par_pack};
pub use weights::{Job, PackedWeights, WEIGHTS_SCRATCH, gemm_weights, par_products};

/// Whether `len` elements hold a matrix; false instead of an overflow for absurd sizes.
fn fits(len: usize, rows: usize, cols: usize, row_stride: usize) -> bool {
    let end = |last: usize| last.checked_mul(row_stride)?.checked_add(cols);
    rows == 0 || cols == 0 || end(rows - 1).is_some_and(|end| end <= len)
}

/// Whether they hold a matrix whose rows do not overlap, so that threads may write different ones.
fn fits_apart(len: usize, rows: usize, cols: usize, row_stride: usize) -> bool {
    fits(len, rows, cols, row_stride) && (rows <= 1 || cols <= row_stride)
}

/// A read-only matrix inside a slice.
#[derive(Clone, Copy)]
pub struct Mat<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// `rows × cols`, row-major without gaps.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `rows × cols`, row-major, rows `row_stride` apart.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, cols, row_stride));
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// Rows and columns.
    pub fn shape(self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// The transpose, without copying.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Columns `start..start + cols`.
    pub fn col_block(self, start: usize, cols: usize) -> Self {
        self.t().row_block(start, cols).t()
    }

    /// Rows `start..start + rows`.
    pub fn row_block(self, start: usize, rows: usize) -> Self {
        assert!(start + rows <= self.rows);
        // An empty matrix may have less data than the offset of the rows.
        let empty = rows == 0 || self.cols == 0;
        let offset = if empty { 0 } else { start * self.row_stride };
        Self {
            data: &self.data[offset..],
            rows,
            ..self
        }
    }
}

/// A matrix to write, with rows `row_stride` apart.
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// `rows × cols`, row-major without gaps.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `rows × cols`, row-major, rows `row_stride` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(fits_apart(data.len(), rows, cols, row_stride));
        Self {
            data,
            rows,
            cols,
            row_stride,
        }
    }
}

impl MatMut<'_> {
    /// Columns `start..start + cols`.
    pub fn col_block(&mut self, start: usize, cols: usize) -> MatMut<'_> {
        assert!(start + cols <= self.cols);
        // An empty matrix may have less data than the offset of the columns.
        let is_empty = self.rows == 0 || cols == 0;
        MatMut {
            data: &mut self.data[if is_empty { 0 } else { start }..],
            cols,
            ..*self
        }
    }

    fn output(self) -> Output {
        Output {
            first: self.data.as_mut_ptr(),
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
        }
    }
}

fn words_of(lines: &[Line]) -> &[u32] {
    // SAFETY: a line is `LINE` words without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LINE) }
}

fn words_of_mut(lines: &mut [Line]) -> &mut [u32] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LINE) }
}

fn words_of_floats(floats: &mut [f32]) -> &mut [u32] {
    // SAFETY: both have the same size and alignment, and no invalid bits.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

thread_local! {
    /// Memory for a block of a panel of B in [`gemm`], which has no scratch memory.
    static PANEL_BLOCK: RefCell<[Line; B_LINES]> = const { RefCell::new([Line::ZERO; B_LINES]) };
}

/// `C = scale · A·B (+ C)` on the calling thread.
pub fn gemm(c: MatMut<'_>, write: Write, a: Mat<'_>, b: Mat<'_>, scale: f32) {
    assert_eq!((a.rows, a.cols, b.cols), (c.rows, b.rows, c.cols));
    // SAFETY: `c` is a live exclusive slice that holds rows × cols at its strides.
    unsafe { gemm_among((c.data.as_mut_ptr(), c.row_stride), write, a, b, scale) }
}

/// As [`gemm`], with an output between whose rows other tasks may write: `a.rows × b.cols` elements from `c` on, rows
/// `row_stride` apart.
///
/// # Safety
/// The elements of the output must be valid for reads and writes, and no other code may access them during the call.
pub(crate) unsafe fn gemm_among(
    (c, row_stride): (*mut f32, usize),
    write: Write,
    a: Mat<'_>,
    b: Mat<'_>,
    scale: f32,
) {
    assert_eq!(a.cols, b.rows);
    let output = Output {
        first: c,
        rows: a.rows,
        cols: b.cols,
        row_stride,
    };
    PANEL_BLOCK.with_borrow_mut(|work| {
        let right = right::<f32, f32>(b, a.rows, words_of_mut(work));
        let left = left::<f32, f32>(a, &mut []);
        // SAFETY: the caller guarantees it for the output; the blocks lie in `a`, `b` and `work`.
        unsafe { product::<f32>(output, write, a.cols, left, right, scale) };
    });
}

/// As [`gemm`], with the output divided into tiles for several threads. `c` is row-major without gaps.
pub fn par_gemm(
    exec: &mut Exec<'_>,
    c: &mut [f32],
    write: Write,
    a: Mat<'_>,
    b: Mat<'_>,
    scale: f32,
) {
    assert_eq!(c.len(), a.rows * b.cols);
    par_product(exec, MatMut::new(c, a.rows, b.cols), write, a, b, scale);
}

fn par_product(
    exec: &mut Exec<'_>,
    c: MatMut<'_>,
    write: Write,
    a: Mat<'_>,
    b: Mat<'_>,
    scale: f32,
) {
    assert_eq!((a.rows, a.cols, b.cols), (c.rows, b.rows, c.cols));
    let grid = Grid::new(a.rows, b.cols, a.cols, exec.pool.threads());
    let row_stride = c.row_stride;
    let c = Disjoint::new(c.data);
    exec.run(grid.count(), (B_LINES + 1) * LINE, |task, scratch| {
        let (rows, cols) = grid.tile(task);
        let output = Output {
            // SAFETY: tiles of different tasks do not overlap.
            first: unsafe { c.pointer(rows.start * row_stride + cols.start) },
            rows: rows.len(),
            cols: cols.len(),
            row_stride,
        };
        let a = a.row_block(rows.start, rows.len());
        let b = b.col_block(cols.start, cols.len());
        let work = words_of_floats(scratch);
        let start = work.as_ptr().align_offset(align_of::<Line>());
        let right = right::<f32, f32>(b, a.rows, &mut work[start..]);
        let left = left::<f32, f32>(a, &mut []);
        // SAFETY: as above; the blocks lie in `a`, `b` and `scratch`.
        unsafe { product::<f32>(output, write, a.cols, left, right, scale) };
    });
}

/// `Y[R, N] = scale · X[R, D] · W[N, D]ᵀ`, with rows of `Y` at a distance of `y_stride`, starting at `y[0]`.
pub fn few_rows_dot(
    exec: &mut Exec<'_>,
    y: &mut [f32],
    y_stride: usize,
    x: &[f32],
    w: &[f32],
    d: usize,
    scale: f32,
) {
    let (r, n) = (x.len() / d, w.len() / d);
    let (x, w) = (Mat::new(x, r, d), Mat::new(w, n, d));
    let y = MatMut::strided(y, r, n, y_stride);
    par_product(exec, y, Write::Replace, x, w.t(), scale);
}

/// `Y[R, D] = S[R, N] · W[N, D] (+ Y)`, with rows of `S` at a distance of `s_stride`.
pub fn few_rows_sum(
    exec: &mut Exec<'_>,
    y: &mut [f32],
    write: Write,
    s: &[f32],
    s_stride: usize,
    w: &[f32],
    d: usize,
) {
    let (r, n) = (y.len() / d, w.len() / d);
    let s = Mat::strided(s, r, n, s_stride);
    par_gemm(exec, y, write, s, Mat::new(w, n, d), 1.0);
}

//! Matrix products: a checked, strided view and `C = A·B (+ C)`.

mod bf16;
mod driver;
mod kernel;
mod pack;
mod packed;

use crate::exec::{Disjoint, Exec, Pieces};
use crate::simd::{lane_dot, simd};
use driver::{A_WORDS, B_LINES, Output, left, product, right};
use pack::LINE;
use packed::Grid;
use std::cell::RefCell;

pub use bf16::{Bf16, round_to_bf16, widen_bf16};
pub use pack::{Line, Precision, Source};
pub use packed::{Packed, SCRATCH, gemm_packed, pack, packed_lines, par_gemm_packed, par_pack};

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
        assert!(rows == 0 || cols == 0 || (rows - 1) * row_stride + cols <= data.len());
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Rows `start..start + rows`.
    pub fn row_block(self, start: usize, rows: usize) -> Self {
        assert!(start + rows <= self.rows);
        let offset = if rows == 0 {
            0
        } else {
            start * self.row_stride
        };
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
        assert!(rows == 0 || cols == 0 || (rows - 1) * row_stride + cols <= data.len());
        Self {
            data,
            rows,
            cols,
            row_stride,
        }
    }
}

impl MatMut<'_> {
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

/// What happens to the old content of the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// `C = A·B`.
    Replace,
    /// `C = C + A·B`.
    Add,
}

impl Write {
    /// `Replace` for the first of several contributions, `Add` for the others.
    pub fn nth(index: usize) -> Self {
        if index == 0 { Self::Replace } else { Self::Add }
    }
}

thread_local! {
    /// A block of a panel of B for [`gemm`], which has no scratch memory.
    static PANEL_BLOCK: RefCell<[Line; B_LINES]> = const { RefCell::new([Line::ZERO; B_LINES]) };
}

/// `C = scale · A·B (+ C)` on the calling thread.
pub fn gemm(c: MatMut<'_>, write: Write, a: Mat<'_>, b: Mat<'_>, scale: f32) {
    assert_eq!((a.rows, a.cols, b.cols), (c.rows, b.rows, c.cols));
    let k = a.cols;
    PANEL_BLOCK.with_borrow_mut(|work| {
        let right = right::<f32, f32>(b, words_of_mut(work), a.rows);
        // SAFETY: `c` is a live exclusive slice that holds rows × cols at its strides; the blocks lie
        // in `a`, `b` and `work`.
        unsafe {
            product::<f32>(
                c.output(),
                write,
                k,
                left::<f32, f32>(a, None),
                right,
                scale,
            )
        };
    });
}

/// As [`gemm`], the output cut into tiles that threads share. `c` is row-major without gaps.
pub fn par_gemm(
    exec: &mut Exec<'_>,
    c: &mut [f32],
    write: Write,
    a: Mat<'_>,
    b: Mat<'_>,
    scale: f32,
) {
    let (m, n) = (a.rows, b.cols);
    assert_eq!((c.len(), a.cols), (m * n, b.rows));
    let grid = Grid::new(m, n, a.cols);
    let c = Disjoint::new(c);
    exec.run(
        grid.count(),
        A_WORDS + (B_LINES + 1) * LINE,
        |task, scratch| {
            let (rows, cols) = grid.tile(task);
            let output = Output {
                // SAFETY: tiles of different tasks do not overlap.
                first: unsafe { c.pointer(rows.start * n + cols.start) },
                rows: rows.len(),
                cols: cols.len(),
                row_stride: n,
            };
            let a = a.row_block(rows.start, rows.len());
            let b = b.t().row_block(cols.start, cols.len()).t();
            let (a_work, b_work) = words_of_floats(scratch).split_at_mut(A_WORDS);
            let start = b_work.as_ptr().align_offset(align_of::<Line>());
            let right = right::<f32, f32>(b, &mut b_work[start..], rows.len());
            let left = left::<f32, f32>(a, Some(a_work));
            // SAFETY: as above; the blocks lie in `a`, `b` and `scratch`.
            unsafe { product::<f32>(output, write, a.cols, left, right, scale) };
        },
    );
}

/// Rows of weights per task of the few-row products below.
const FEW_ROWS_TASK: usize = 64;

/// `Y[R, N] = scale · X[R, D] · W[N, D]ᵀ` for few rows `R`: each row of `W` is read once, as dot
/// products. `Y` has rows `y_stride` apart, starting at `y[0]`.
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
    assert!(r == 0 || (r - 1) * y_stride + n <= y.len());
    let pieces = Pieces::new(n, FEW_ROWS_TASK);
    let y = Disjoint::new(y);
    exec.run(pieces.count(), 0, |task, _| {
        let range = pieces.range(task);
        for row in 0..r {
            let start = row * y_stride;
            // SAFETY: each task owns its own columns of every row.
            let out = unsafe { y.part(start + range.start..start + range.end) };
            dots(
                out,
                &x[row * d..(row + 1) * d],
                &w[range.start * d..range.end * d],
                scale,
            );
        }
    });
}

simd! {
    /// `out_i = scale · x·w_i` for the rows `w_i` of `w`.
    fn dots(out: &mut [f32], x: &[f32], w: &[f32], scale: f32) {
        for (out, w) in out.iter_mut().zip(w.chunks_exact(x.len())) {
            *out = scale * lane_dot(x, w);
        }
    }
}

/// Columns of weights per task of [`few_rows_sum`].
const FEW_ROWS_COLS: usize = 64;

/// `Y[R, D] = S[R, N] · W[N, D] (+ Y)` for few rows `R`; `S` has rows `s_stride` apart.
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
    assert!(r == 0 || (r - 1) * s_stride + n <= s.len());
    let pieces = Pieces::new(d, FEW_ROWS_COLS);
    let y = Disjoint::new(y);
    exec.run(pieces.count(), 0, |task, _| {
        let cols = pieces.range(task);
        for row in 0..r {
            // SAFETY: each task owns its own columns of every row.
            let out = unsafe { y.part(row * d + cols.start..row * d + cols.end) };
            if write == Write::Replace {
                out.fill(0.0);
            }
            weighted_sum(
                out,
                &s[row * s_stride..row * s_stride + n],
                w,
                d,
                cols.start,
            );
        }
    });
}

simd! {
    /// `out += Σ_i s_i · w_i[first..first + out.len()]` for the rows `w_i` (width `d`) of `w`.
    fn weighted_sum(out: &mut [f32], s: &[f32], w: &[f32], d: usize, first: usize) {
        const BLOCK: usize = FEW_ROWS_COLS;
        let mut sum = [0.0f32; BLOCK];
        if out.len() == BLOCK {
            for (&s, w) in s.iter().zip(w.chunks_exact(d)) {
                let w = &w[first..first + BLOCK];
                for j in 0..BLOCK {
                    sum[j] = s.mul_add(w[j], sum[j]);
                }
            }
        } else {
            for (&s, w) in s.iter().zip(w.chunks_exact(d)) {
                for (sum, &w) in sum.iter_mut().zip(&w[first..first + out.len()]) {
                    *sum = s.mul_add(w, *sum);
                }
            }
        }
        for (out, sum) in out.iter_mut().zip(sum) {
            *out += sum;
        }
    }
}

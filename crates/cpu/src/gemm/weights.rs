//! Weights that are packed once, when a model is loaded, and then used for many products.
//!
//! A right factor `B` `[K, N]` is stored in panels of 32 columns, and a panel in two parts of 16, which a product reads
//! sequentially. A number is stored as
//!
//! | [`WeightFormat`] | bytes | value |
//! |---|---|---|
//! | `F32` | 4 | as it was |
//! | `Bf16` | 2 | rounded to bfloat16 |
//! | `Int8` | 1 | `q·s`, with `q` in −127..127 and one f32 `s` for each column of a block of 256 positions |
//!
//! and is widened to f32 when it is loaded into registers. Products follow the rounding contract of [`super`] for f32,
//! applied to the widened weights; for `Int8` it is applied to the integers `q`, and the factor of a block's sum is
//! `scale · s`. So products have the same bits for any number of rows and threads and with every instruction set, and
//! in `F32` they have the bits of [`super::gemm`].

mod direct;
mod format;

use super::driver::{B_LINES, Output, left, product};
use super::kernel::PANEL;
use super::pack::{Element, Panels, pack_panels};
use super::packed::Grid;
use super::pieces::pieces;
use super::{Mat, Right, Write};
use crate::arena::Lines;
use crate::exec::{Disjoint, Exec, Pieces};
use crate::line::{LINE, Line};
use direct::{DIRECT_ROWS, is_direct};
use format::{BLOCK, Block, narrow, panel_lines, widen};
use std::ops::Range;
use tokenformer_device::WeightFormat;

/// Number of weights of a task in a product of few rows.
const DIRECT_TASK: usize = 32 << 10;

/// A right factor `[K, N]` in one of the [`WeightFormat`]s.
pub struct PackedWeights {
    format: WeightFormat,
    k: usize,
    n: usize,
    lines: Lines,
}

impl std::fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PackedWeights({:?}, {} x {})",
            self.format, self.k, self.n
        )
    }
}

impl PackedWeights {
    /// Packs `b` `[K, N]`. Keys `[N, D]` are packed as `Mat::new(keys, n, d).t()`, values as they are.
    pub fn new(exec: &mut Exec<'_>, format: WeightFormat, b: Mat<'_>) -> Self {
        let (k, n) = (b.rows, b.cols);
        let panel = panel_lines(format, k);
        let mut lines = exec.scratch.take_lines(n.div_ceil(PANEL) * panel);
        {
            let lines = Disjoint::new(&mut lines);
            let scratch = (B_LINES + 1) * LINE;
            exec.run(n.div_ceil(PANEL), scratch, |task, scratch| {
                // SAFETY: tasks own disjoint panels.
                let lines = unsafe { lines.part(task * panel..(task + 1) * panel) };
                let wide = aligned(scratch);
                let cols = task * PANEL..n.min((task + 1) * PANEL);
                for depth in pieces(0..k, BLOCK) {
                    let wide = &mut wide[..depth.len() * PANEL];
                    let panels = Panels {
                        first: wide.as_mut_ptr().cast(),
                        panel: depth.len(),
                    };
                    // SAFETY: `wide` is one panel of that depth.
                    unsafe {
                        pack_panels::<f32, f32, PANEL>(panels, b, cols.clone(), depth.clone())
                    };
                    narrow(format, lines, k, depth.start, wide.as_chunks().0);
                }
            });
        }
        Self {
            format,
            k,
            n,
            lines,
        }
    }

    /// Inner dimension `K` and columns `N`.
    pub fn shape(&self) -> [usize; 2] {
        [self.k, self.n]
    }

    /// The format of the numbers.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Number of bytes that a product reads.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    /// `to` `[K]` = column `col`, widened.
    pub fn column(&self, col: usize, to: &mut [f32]) {
        assert!(col < self.n && to.len() == self.k);
        for (positions, to) in pieces(0..self.k, BLOCK).zip(to.chunks_mut(BLOCK)) {
            format::column(self.block(col / PANEL, positions), col % PANEL, to);
        }
    }

    /// A block of a panel.
    fn block(&self, panel: usize, positions: Range<usize>) -> Block<'_> {
        let lines = panel_lines(self.format, self.k);
        let panel = &self.lines[panel * lines..][..lines];
        Block::new(self.format, panel, self.k, positions)
    }

    /// Blocks for the micro-kernels: in place, or widened into `work` ([`B_LINES`]) as parts with the number of columns
    /// that the kernels read best.
    fn right<'a>(
        &'a self,
        first: usize,
        work: &'a mut [f32],
    ) -> impl FnMut(Range<usize>, Range<usize>) -> Right + 'a {
        let width = <f32 as Element>::cols();
        move |cols, words| {
            let block = self.block((first + cols.start) / PANEL, words.clone());
            let memory = block.memory(panel_lines(self.format, self.k));
            if let (Block::F32(_), LINE) = (block, width) {
                return Right {
                    first: memory.first,
                    part: memory.part,
                    word: LINE,
                    scales: std::ptr::null(),
                    memory: Some(memory),
                };
            }
            let wide = &mut work[..words.len() * PANEL];
            let scales = match width {
                16 => widen::<16>(wide, block),
                32 => widen::<32>(wide, block),
                _ => unreachable!("kernels have tiles of 16 or 32 columns"),
            };
            Right {
                first: wide.as_ptr().cast(),
                part: words.len() * width,
                word: width,
                memory: Some(memory),
                scales: scales.map_or(std::ptr::null(), std::ptr::from_ref),
            }
        }
    }
}

/// The part of a task's scratch memory that begins at a cache line.
fn aligned(scratch: &mut [f32]) -> &mut [f32] {
    let start = scratch.as_ptr().align_offset(align_of::<Line>());
    &mut scratch[start..]
}

/// One product `Y = scale · X·B (+ Y)` of [`par_products`].
pub struct Job<'a> {
    /// `Y` `[R, N]`, rows `y_stride` apart.
    pub y: &'a mut [f32],
    /// Elements from a row of `y` to the next.
    pub y_stride: usize,
    /// Whether `y` is replaced or added to.
    pub write: Write,
    /// `X` `[R, K]`.
    pub x: Mat<'a>,
    /// `B` `[K, N]`.
    pub weights: &'a PackedWeights,
    /// Factor of the product.
    pub scale: f32,
}

/// How one product is divided into tasks.
enum Cut {
    /// Each task has all rows and some panels.
    Stream(Pieces),
    Tiles(Grid),
}

impl Cut {
    fn new(x: Mat<'_>, n: usize, threads: usize) -> Self {
        let [m, k] = x.shape();
        if is_direct(x) {
            let panels = (DIRECT_TASK / PANEL / k.max(1)).max(1);
            Self::Stream(Pieces::new(n, panels * PANEL))
        } else {
            Self::Tiles(Grid::new(m, n, k, threads))
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Stream(cols) => cols.count(),
            Self::Tiles(grid) => grid.count(),
        }
    }
}

/// Computes several products in one run of the pool, so that the threads share all their tasks.
pub fn par_products(exec: &mut Exec<'_>, jobs: &mut [Job<'_>]) {
    struct Task<'a> {
        first: usize,
        cut: Cut,
        y: Disjoint<'a, f32>,
        y_stride: usize,
        write: Write,
        x: Mat<'a>,
        weights: &'a PackedWeights,
        scale: f32,
    }
    let mut count = 0;
    let tasks: Vec<Task<'_>> = jobs
        .iter_mut()
        .map(|job| {
            let [m, k] = job.x.shape();
            let [weights_k, n] = job.weights.shape();
            assert!(k == weights_k && super::fits_apart(job.y.len(), m, n, job.y_stride));
            let first = count;
            let cut = Cut::new(job.x, n, exec.pool.threads());
            count += if m == 0 { 0 } else { cut.count() };
            Task {
                first,
                cut,
                y: Disjoint::new(job.y),
                y_stride: job.y_stride,
                write: job.write,
                x: job.x,
                weights: job.weights,
                scale: job.scale,
            }
        })
        .collect();
    exec.run(count, (B_LINES + 1) * LINE, |index, scratch| {
        let at = tasks.partition_point(|task| task.first <= index) - 1;
        let task = &tasks[at];
        let index = index - task.first;
        match &task.cut {
            Cut::Stream(cols) => {
                let cols = cols.range(index);
                let mut rows: [&mut [f32]; DIRECT_ROWS] = Default::default();
                for (i, row) in rows[..task.x.rows].iter_mut().enumerate() {
                    let start = i * task.y_stride;
                    // SAFETY: tasks own disjoint columns.
                    *row = unsafe { task.y.part(start + cols.start..start + cols.end) };
                }
                let rows = &mut rows[..task.x.rows];
                direct::product(rows, task.write, task.x, task.weights, cols, task.scale);
            }
            Cut::Tiles(grid) => {
                let (rows, cols) = grid.tile(index);
                let x = task.x.row_block(rows.start, rows.len());
                let output = Output {
                    // SAFETY: tiles of different tasks do not overlap.
                    first: unsafe { task.y.pointer(rows.start * task.y_stride + cols.start) },
                    rows: rows.len(),
                    cols: cols.len(),
                    row_stride: task.y_stride,
                };
                let right = task.weights.right(cols.start, aligned(scratch));
                // SAFETY: `fits` above; the blocks lie in `x`, the weights and `scratch`.
                unsafe {
                    product::<f32>(
                        output,
                        task.write,
                        x.cols,
                        left::<f32, f32>(x, &mut []),
                        right,
                        task.scale,
                    );
                }
            }
        }
    });
}

/// Floats of scratch memory that [`gemm_weights`] needs.
pub const WEIGHTS_SCRATCH: usize = (B_LINES + 1) * LINE;

/// `C = scale · A·B (+ C)` on the calling thread, with [`WEIGHTS_SCRATCH`] floats of scratch memory.
pub fn gemm_weights(
    c: super::MatMut<'_>,
    write: Write,
    a: Mat<'_>,
    b: &PackedWeights,
    scale: f32,
    scratch: &mut [f32],
) {
    assert_eq!((a.rows, a.cols, b.n), (c.rows, b.k, c.cols));
    let right = b.right(0, aligned(&mut scratch[..WEIGHTS_SCRATCH]));
    let left = left::<f32, f32>(a, &mut []);
    // SAFETY: `c` is a live exclusive slice that holds rows × cols at its strides; the blocks lie in `a`,
    // `b` and `scratch`.
    unsafe { product::<f32>(c.output(), write, a.cols, left, right, scale) }
}

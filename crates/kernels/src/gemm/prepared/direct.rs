//! Products of a few rows: each weight is read once, widened in registers and used at once.

use super::super::kernel::PANEL;
use super::super::pack::Line;
use super::super::{Mat, Write};
use super::Prepared;
use super::format::{BLOCK, Format, Row, block_lines, floats, from_half, halves, scaled};
use crate::simd::{prefetch, simd};
use std::ops::Range;

/// Most rows that are multiplied as the weights stream by.
pub(super) const DIRECT_ROWS: usize = 4;
/// Bytes from the weights in use to those that are asked for. The processor looks ahead by itself as far as its window
/// of instructions goes: far enough for f32, while the fewer bytes a weight has, the less memory a window spans.
const AHEAD_HALVES: usize = 1 << 10;
/// The same for int8.
const AHEAD_BYTES: usize = 4 << 10;

/// Whether `x` is multiplied as the weights stream by: few rows, whose numbers are adjacent. All others share
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
    b: &Prepared,
    cols: Range<usize>,
    scale: f32,
) {
    assert!(x.rows == y.len() && is_direct(x) && cols.start.is_multiple_of(PANEL));
    if x.cols == 0 && write == Write::Replace {
        y.iter_mut().for_each(|y| y.fill(0.0));
    }
    let mut chains = [[0.0; PANEL]; DIRECT_ROWS];
    for start in cols.clone().step_by(PANEL) {
        let to = start - cols.start..(start + PANEL).min(cols.end) - cols.start;
        let blocks = b.panel(start / PANEL).chunks(block_lines(b.format, BLOCK));
        for (index, block) in blocks.enumerate() {
            let depth = index * BLOCK..x.cols.min((index + 1) * BLOCK);
            let mut rows = [&[][..]; DIRECT_ROWS];
            for (i, row) in rows[..x.rows].iter_mut().enumerate() {
                *row = &x.data[i * x.row_stride..][depth.clone()];
            }
            let write = if index == 0 { write } else { Write::Add };
            let mut at = 0;
            while at < x.rows {
                at += match x.rows - at {
                    1 => chain::<1>(&mut chains[at..], &rows[at..], b.format, block),
                    _ => chain::<2>(&mut chains[at..], &rows[at..], b.format, block),
                };
            }
            for (y, chain) in y.iter_mut().zip(&chains) {
                let y = &mut y[to.clone()];
                match write {
                    Write::Replace => y.iter_mut().zip(chain).for_each(|(y, c)| *y = scale * c),
                    Write::Add => add(y, chain, scale),
                }
            }
        }
    }
}

simd! {
    fn add(y: &mut [f32], chain: &Row<f32>, scale: f32) {
        y.iter_mut().zip(chain).for_each(|(y, &c)| *y = scale.mul_add(c, *y));
    }
}

/// The first `R` chains over a block; returns `R`.
fn chain<const R: usize>(
    chains: &mut [Row<f32>],
    rows: &[&[f32]],
    format: Format,
    block: &[Line],
) -> usize {
    let (Some(chains), Some(rows)) = (chains.first_chunk_mut(), rows.first_chunk()) else {
        unreachable!("as many chains and rows as the caller counts");
    };
    match format {
        Format::F32 => chain_floats::<R>(chains, rows, floats(block)),
        Format::Bf16 => chain_halves::<R>(chains, rows, halves(block)),
        Format::Int8 => {
            let (scales, bytes) = scaled(block);
            chain_bytes::<R>(chains, rows, scales, bytes);
        }
    }
    R
}

/// Adds position `k` to the sums.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Columns outside: a weight is widened once for all rows.
fn step<const R: usize, T>(
    sums: &mut [Row<f32>; R],
    x: &[&[f32]; R],
    k: usize,
    row: &Row<T>,
    wide: &impl Fn(&Row<T>, usize) -> f32,
) {
    let x: [f32; R] = std::array::from_fn(|i| x[i][k]);
    for col in 0..PANEL {
        let w = wide(row, col);
        for i in 0..R {
            sums[i][col] = x[i].mul_add(w, sums[i][col]);
        }
    }
}

/// Sums `x·w` over the positions of a block, each chain on its own.
#[inline(always)]
fn sum<const R: usize, T>(
    chains: &mut [Row<f32>; R],
    x: &[&[f32]; R],
    rows: &[Row<T>],
    ahead: Option<usize>,
    wide: impl Fn(&Row<T>, usize) -> f32,
) {
    let depth = x[0].len();
    assert!(x.iter().all(|x| x.len() == depth) && rows.len() >= depth);
    let mut sums = [[0.0f32; PANEL]; R];
    // Two rows fill a cache line at least.
    let (pairs, last) = rows[..depth].as_chunks::<2>();
    for (i, pair) in pairs.iter().enumerate() {
        if let Some(ahead) = ahead {
            let ahead = pair.as_ptr().cast::<u8>().wrapping_add(ahead);
            for line in (0..size_of_val(pair)).step_by(size_of::<Line>()) {
                prefetch(ahead.wrapping_add(line));
            }
        }
        step(&mut sums, x, 2 * i, &pair[0], &wide);
        step(&mut sums, x, 2 * i + 1, &pair[1], &wide);
    }
    for row in last {
        step(&mut sums, x, depth - 1, row, &wide);
    }
    *chains = sums;
}

simd! {
    fn chain_floats<const R: usize>(chains: &mut [Row<f32>; R], x: &[&[f32]; R], rows: &[Row<f32>]) {
        sum(chains, x, rows, None, |row, col| row[col]);
    }
}
simd! {
    fn chain_halves<const R: usize>(chains: &mut [Row<f32>; R], x: &[&[f32]; R], rows: &[Row<u16>]) {
        sum(chains, x, rows, Some(AHEAD_HALVES), |row, col| from_half(row[col]));
    }
}
simd! {
    fn chain_bytes<const R: usize>(
        chains: &mut [Row<f32>; R], x: &[&[f32]; R], scales: &Row<f32>, rows: &[Row<i8>],
    ) {
        sum(chains, x, rows, Some(AHEAD_BYTES), |row, col| f32::from(row[col]) * scales[col]);
    }
}

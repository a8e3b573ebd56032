//! Operations on whole buffers, element by element or row by row.

use crate::exec::{Disjoint, Exec, Pieces};
use crate::math;
use crate::simd::{LANES, add_lanes, lane_dot, simd};
use tokenformer_device::Write;

/// Elements per task.
const PIECE: usize = 1 << 14;
/// Columns per task of a sum over rows.
const COLUMNS: usize = 64;
/// Elements whose squares are added in f32; the partial sums are added in f64.
const F32_RUN: usize = 1 << 10;

/// `y += x`.
pub fn add(exec: &mut Exec<'_>, y: &mut [f32], x: &[f32]) {
    assert_eq!(x.len(), y.len());
    let pieces = Pieces::new(x.len(), PIECE);
    let y = Disjoint::new(y);
    exec.run(pieces.count(), 0, |task, _| {
        let part = pieces.range(task);
        // SAFETY: tasks own disjoint parts.
        add_part(unsafe { y.part(part.clone()) }, &x[part]);
    });
}

/// `y += weight · (x − y)`.
pub fn lerp(exec: &mut Exec<'_>, weight: f32, y: &mut [f32], x: &[f32]) {
    assert_eq!(x.len(), y.len());
    let pieces = Pieces::new(x.len(), PIECE);
    let y = Disjoint::new(y);
    exec.run(pieces.count(), 0, |task, _| {
        let part = pieces.range(task);
        // SAFETY: tasks own disjoint parts.
        lerp_part(unsafe { y.part(part.clone()) }, &x[part], weight);
    });
}

/// Adds `bias` `[D]` to each row of `y` `[R, D]`.
pub fn add_to_rows(exec: &mut Exec<'_>, y: &mut [f32], bias: &[f32]) {
    let d = bias.len();
    assert!(y.is_empty() || y.len().is_multiple_of(d));
    let blocks = Pieces::new(y.len() / d.max(1), (PIECE / d.max(1)).max(1));
    let y = Disjoint::new(y);
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        // SAFETY: tasks own disjoint rows.
        let y = unsafe { y.part(rows.start * d..rows.end * d) };
        y.chunks_exact_mut(d).for_each(|y| add_part(y, bias));
    });
}

/// Adds the rows of `dy` `[R, D]` to `d_bias` `[D]`, one after the other.
pub fn sum_rows(exec: &mut Exec<'_>, d_bias: &mut [f32], dy: &[f32]) {
    let stride = d_bias.len();
    sum_rows_at(exec, d_bias, dy, stride);
}

/// As [`sum_rows`], for rows `stride` apart, the last one with as many elements after it.
pub(crate) fn sum_rows_at(exec: &mut Exec<'_>, d_bias: &mut [f32], dy: &[f32], stride: usize) {
    let d = d_bias.len();
    assert!(d <= stride && (dy.is_empty() || dy.len().is_multiple_of(stride)));
    let pieces = Pieces::new(d, COLUMNS);
    let d_bias = Disjoint::new(d_bias);
    exec.run(pieces.count(), 0, |task, _| {
        let cols = pieces.range(task);
        // SAFETY: tasks own disjoint columns.
        let d_bias = unsafe { d_bias.part(cols.clone()) };
        for dy in dy.chunks_exact(stride) {
            add_part(d_bias, &dy[cols.clone()]);
        }
    });
}

/// `y[r] = factors[r] · x[r]`, or added to `y`, for as many rows as there are factors.
pub fn scale_rows(exec: &mut Exec<'_>, y: &mut [f32], x: &[f32], factors: &[f32], write: Write) {
    let d = x.len() / factors.len().max(1);
    assert_eq!((x.len(), y.len()), (factors.len() * d, x.len()));
    // A piece lies in one row, so that it has one factor.
    let pieces = Pieces::new(d, PIECE);
    let y = Disjoint::new(y);
    exec.run(factors.len() * pieces.count(), 0, |task, _| {
        let (row, piece) = (task / pieces.count(), pieces.range(task % pieces.count()));
        let part = row * d + piece.start..row * d + piece.end;
        // SAFETY: tasks own disjoint parts.
        let y = unsafe { y.part(part.clone()) };
        let products = x[part].iter().map(|x| factors[row] * x);
        match write {
            Write::Replace => y.iter_mut().zip(products).for_each(|(y, p)| *y = p),
            Write::Add => y.iter_mut().zip(products).for_each(|(y, p)| *y += p),
        }
    });
}

/// Exact GELU: `y = x·Φ(x)`.
pub fn gelu(exec: &mut Exec<'_>, y: &mut [f32], x: &[f32]) {
    assert_eq!(x.len(), y.len());
    let pieces = Pieces::new(x.len(), PIECE);
    let y = Disjoint::new(y);
    exec.run(pieces.count(), 0, |task, _| {
        let part = pieces.range(task);
        // SAFETY: tasks own disjoint parts.
        gelu_part(unsafe { y.part(part.clone()) }, &x[part]);
    });
}

/// `dx = dy · gelu'(x)`.
pub fn gelu_backward(exec: &mut Exec<'_>, dx: &mut [f32], x: &[f32], dy: &[f32]) {
    assert_eq!((x.len(), dy.len()), (dx.len(), dx.len()));
    let pieces = Pieces::new(x.len(), PIECE);
    let dx = Disjoint::new(dx);
    exec.run(pieces.count(), 0, |task, _| {
        let part = pieces.range(task);
        // SAFETY: tasks own disjoint parts.
        let dx = unsafe { dx.part(part.clone()) };
        gelu_backward_part(dx, &x[part.clone()], &dy[part]);
    });
}

/// `Σ x²`, in f64 over fixed runs.
pub fn sum_of_squares(exec: &mut Exec<'_>, x: &[f32]) -> f64 {
    let pieces = Pieces::new(x.len(), PIECE);
    // Two f32 slots hold each piece's f64 for the ordered sum below.
    let mut sums = exec.scratch.take_shared(pieces.count() * 2);
    {
        let sums = Disjoint::new(&mut sums);
        exec.run(pieces.count(), 0, |task, _| {
            let part = &x[pieces.range(task)];
            let sum: f64 = part
                .chunks(F32_RUN)
                .map(|run| f64::from(squares(run)))
                .sum();
            let bits = sum.to_bits();
            // SAFETY: tasks own disjoint slots.
            let slot = unsafe { sums.part(task * 2..task * 2 + 2) };
            slot[0] = f32::from_bits((bits >> 32) as u32);
            slot[1] = f32::from_bits(bits as u32);
        });
    }
    sums.chunks_exact(2)
        .map(|s| f64::from_bits(u64::from(s[0].to_bits()) << 32 | u64::from(s[1].to_bits())))
        .sum()
}

simd! {
    /// `y = y + x`.
    pub(crate) fn add_part(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}
simd! {
    fn lerp_part(y: &mut [f32], x: &[f32], weight: f32) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = weight.mul_add(x - *y, *y);
        }
    }
}
simd! {
    fn gelu_part(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = math::gelu(x);
        }
    }
}
simd! {
    fn gelu_backward_part(dx: &mut [f32], x: &[f32], dy: &[f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = dy * math::gelu_and_derivative(x).1;
        }
    }
}
simd! {
    /// `Σ x²` in four times the lanes of [`lane_dot`], so that an addition does not wait for the previous one; the
    /// lanes are added in a fixed order.
    fn squares(x: &[f32]) -> f32 {
        const WIDE: usize = 4 * LANES;
        let mut sums = [0.0f32; WIDE];
        let (chunks, tail) = x.as_chunks::<WIDE>();
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum = x.mul_add(*x, *sum);
            }
        }
        let mut lanes = [0.0f32; LANES];
        for part in sums.as_chunks::<LANES>().0 {
            for (lane, sum) in lanes.iter_mut().zip(part) {
                *lane += sum;
            }
        }
        add_lanes(lanes) + lane_dot(tail, tail)
    }
}

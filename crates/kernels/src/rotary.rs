//! Rotary position embedding on the first channels of each head.
//!
//! The released models rotate the first quarter of a head's channels, pairing channel `i` with channel
//! `i + n/2` of the `n` rotated ones; the rest passes through.

use crate::exec::{Disjoint, Exec, Pieces};

const ROWS: usize = 32;

/// Cosines and sines for positions `0..len`.
#[derive(Clone, Debug)]
pub struct Table {
    /// Rotated channels per head, even.
    pub dims: usize,
    /// `[len, dims/2]` cosines.
    pub cos: Vec<f32>,
    /// `[len, dims/2]` sines.
    pub sin: Vec<f32>,
}

impl Table {
    /// Angles `position · base^(−2i/dims)`, the product rounded to f32 as in the released code.
    pub fn new(len: usize, dims: usize, base: f64) -> Self {
        assert!(dims.is_multiple_of(2));
        let half = dims / 2;
        let frequency = |i: usize| (1.0 / base.powf(2.0 * i as f64 / dims as f64)) as f32;
        let angles = (0..len * half).map(|at| f64::from((at / half) as f32 * frequency(at % half)));
        let (sin, cos) = angles.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
        Self { dims, cos, sin }
    }
}

/// Rotates `x` `[B·T, H·C]` in place; row `r` stands at position `first + r % t`. `inverse` turns the
/// other way, which is the backward pass.
pub fn rotate(
    exec: &mut Exec<'_>,
    x: &mut [f32],
    table: &Table,
    [t, heads, channels]: [usize; 3],
    first: usize,
    inverse: bool,
) {
    let (d, half) = (heads * channels, table.dims / 2);
    assert!(table.dims <= channels && (first + t) * half <= table.cos.len());
    let blocks = Pieces::new(x.len() / d, ROWS);
    let x = Disjoint::new(x);
    let sign = if inverse { -1.0 } else { 1.0 };
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        // SAFETY: tasks own disjoint rows.
        let x = unsafe { x.part(rows.start * d..rows.end * d) };
        for (row, x) in rows.zip(x.chunks_exact_mut(d)) {
            let at = (first + row % t) * half;
            let (cos, sin) = (&table.cos[at..at + half], &table.sin[at..at + half]);
            for head in x.chunks_exact_mut(channels) {
                let (a, b) = head[..table.dims].split_at_mut(half);
                for i in 0..half {
                    let (x, y, s) = (a[i], b[i], sign * sin[i]);
                    a[i] = x * cos[i] - y * s;
                    b[i] = y * cos[i] + x * s;
                }
            }
        }
    });
}

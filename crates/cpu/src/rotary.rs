//! Rotary position embedding on the first channels of each head.
//!
//! The released models rotate the first quarter of a head's channels, pairing channel `i` with channel
//! `i + n/2` of the `n` rotated ones; the rest passes through.

use crate::exec::{Disjoint, Exec, Pieces};
use tokenformer_device::RotaryDims;

const ROWS: usize = 32;

/// Cosines and sines as slices, see [`tokenformer_device::RotaryTable`].
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Rotated channels per head, even.
    pub dims: usize,
    /// `[positions, dims/2]` cosines.
    pub cos: &'a [f32],
    /// `[positions, dims/2]` sines.
    pub sin: &'a [f32],
}

/// Rotates `x` `[B·T, H·C]` in place; `inverse` turns the other way, which is the backward pass.
pub fn rotate(
    exec: &mut Exec<'_>,
    x: &mut [f32],
    table: Table<'_>,
    dims: RotaryDims,
    inverse: bool,
) {
    let RotaryDims {
        length,
        heads,
        channels,
        first,
    } = dims;
    let (d, half) = (heads * channels, table.dims / 2);
    assert!(table.dims <= channels && (first + length) * half <= table.cos.len());
    let blocks = Pieces::new(x.len() / d, ROWS);
    let x = Disjoint::new(x);
    let sign = if inverse { -1.0 } else { 1.0 };
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        // SAFETY: tasks own disjoint rows.
        let x = unsafe { x.part(rows.start * d..rows.end * d) };
        for (row, x) in rows.zip(x.chunks_exact_mut(d)) {
            let at = (first + row % length) * half;
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

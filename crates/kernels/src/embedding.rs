//! Looking up rows of the embedding table.

use crate::exec::{Disjoint, Exec, Pieces};

const ROWS: usize = 64;
const COLUMNS: usize = 64;

/// `y` `[R, D]`: row `tokens[r]` of `table` `[V, D]`.
pub fn forward(exec: &mut Exec<'_>, table: &[f32], tokens: &[u32], y: &mut [f32], d: usize) {
    assert_eq!(y.len(), tokens.len() * d);
    let blocks = Pieces::new(tokens.len(), ROWS);
    let y = Disjoint::new(y);
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        // SAFETY: tasks own disjoint rows.
        let y = unsafe { y.part(rows.start * d..rows.end * d) };
        for (y, &token) in y.chunks_exact_mut(d).zip(&tokens[rows]) {
            y.copy_from_slice(&table[token as usize * d..][..d]);
        }
    });
}

/// Adds `dy` `[R, D]` to the rows `tokens` of `dtable` `[V, D]`, in the order of the tokens.
pub fn backward(exec: &mut Exec<'_>, dtable: &mut [f32], tokens: &[u32], dy: &[f32], d: usize) {
    assert_eq!(dy.len(), tokens.len() * d);
    let pieces = Pieces::new(d, COLUMNS);
    let dtable = Disjoint::new(dtable);
    exec.run(pieces.count(), 0, |task, _| {
        let cols = pieces.range(task);
        for (dy, &token) in dy.chunks_exact(d).zip(tokens) {
            let start = token as usize * d;
            // SAFETY: tasks own disjoint columns.
            let to = unsafe { dtable.part(start + cols.start..start + cols.end) };
            for (to, dy) in to.iter_mut().zip(&dy[cols.clone()]) {
                *to += dy;
            }
        }
    });
}

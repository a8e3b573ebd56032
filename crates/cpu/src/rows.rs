//! Looking up rows of a table.

use crate::exec::{Disjoint, Exec, Pieces};

const ROWS: usize = 64;
const COLUMNS: usize = 64;

/// `y` `[R, D]`: row `index[r]` of `table` `[V, D]`.
pub fn gather(exec: &mut Exec<'_>, table: &[f32], index: &[u32], y: &mut [f32], d: usize) {
    assert_eq!(y.len(), index.len() * d);
    let blocks = Pieces::new(index.len(), ROWS);
    let y = Disjoint::new(y);
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        // SAFETY: tasks own disjoint rows.
        let y = unsafe { y.part(rows.start * d..rows.end * d) };
        for (y, &row) in y.chunks_exact_mut(d).zip(&index[rows]) {
            y.copy_from_slice(&table[row as usize * d..][..d]);
        }
    });
}

/// Adds `dy` `[R, D]` to the rows `index` of `d_table` `[V, D]`, in the order of the index.
pub fn scatter_add(exec: &mut Exec<'_>, d_table: &mut [f32], index: &[u32], dy: &[f32], d: usize) {
    assert_eq!(dy.len(), index.len() * d);
    let pieces = Pieces::new(d, COLUMNS);
    let d_table = Disjoint::new(d_table);
    exec.run(pieces.count(), 0, |task, _| {
        let cols = pieces.range(task);
        for (dy, &row) in dy.chunks_exact(d).zip(index) {
            let start = row as usize * d;
            // SAFETY: tasks own disjoint columns.
            let to = unsafe { d_table.part(start + cols.start..start + cols.end) };
            for (to, dy) in to.iter_mut().zip(&dy[cols.clone()]) {
                *to += dy;
            }
        }
    });
}

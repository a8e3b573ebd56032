//! Sizes of blocks that suit the processor's caches. They decide which block is computed when, never the order of the
//! terms of a sum, so results do not depend on them.

use super::kernel::PANEL;
use crate::cache::caches;

/// How products are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// Widest tile of the output that a task computes, in columns.
    pub task_cols: usize,
    /// Elements of the output for which a copied block of the left factor is used before the next block.
    pub wide: usize,
}

/// Blockings by the least size of the second-level cache, largest first. A block of 144 rows of the left factor takes
/// 144 KiB, the output that it serves 4 bytes per element, and a block of 256 positions of the right factor 1 KiB per
/// column.
const TABLE: [(usize, Blocking); 2] = [
    (
        1 << 20,
        Blocking {
            task_cols: 24 * PANEL,
            wide: 108 << 10,
        },
    ),
    (
        0,
        Blocking {
            task_cols: 16 * PANEL,
            wide: 64 << 10,
        },
    ),
];

/// The blocking for this processor.
pub fn blocking() -> Blocking {
    let second = caches().second;
    let fits = |(least, _): &&(usize, Blocking)| *least <= second;
    // The last row fits every size.
    TABLE
        .iter()
        .find(fits)
        .map_or(TABLE[1].1, |(_, blocking)| *blocking)
}

//! Transposes blocks of 16 by 16 bytes.

/// Rows and columns of a block.
pub(crate) const SIDE: usize = 16;

/// A block, row by row.
pub(crate) type Block = [[u8; SIDE]; SIDE];

/// The transposed block.
#[inline(always)]
pub(crate) fn transpose(rows: &Block) -> Block {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE2.
    return unsafe { with_vectors(rows) };
    #[cfg(not(target_arch = "x86_64"))]
    one_by_one(rows)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(rows: &Block) -> Block {
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

/// Four rounds in which the rows `i` and `i + 8` are interleaved to `2i` and `2i + 1`. The number of a byte is its row and its
/// column, four bits each; a round turns these eight bits by one place, so that four of them swap row and column. SSE2
/// interleaves 16 bytes in an instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn with_vectors(rows: &Block) -> Block {
    use std::arch::x86_64::{
        __m128i, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_unpackhi_epi8, _mm_unpackhi_epi64,
        _mm_unpacklo_epi8,
    };
    let load = |row: &[u8; SIDE]| {
        let both = u128::from_le_bytes(*row);
        _mm_set_epi64x((both >> 64) as i64, both as i64)
    };
    let store = |row: __m128i| {
        let low = _mm_cvtsi128_si64(row) as u64;
        let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(row, row)) as u64;
        (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
    };
    let mut block = rows.each_ref().map(load);
    for _ in 0..4 {
        block = std::array::from_fn(|row| {
            let (a, b) = (block[row / 2], block[row / 2 + SIDE / 2]);
            match row % 2 {
                0 => _mm_unpacklo_epi8(a, b),
                _ => _mm_unpackhi_epi8(a, b),
            }
        });
    }
    block.map(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let rows: Block =
            std::array::from_fn(|row| std::array::from_fn(|column| (row * SIDE + column) as u8));
        assert_eq!(transpose(&rows), one_by_one(&rows));
        assert_eq!(transpose(&transpose(&rows)), rows);
    }
}

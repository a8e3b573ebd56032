//! A shuffled order that is computed instead of stored.
//!
//! A Feistel network permutes a grid of at least `len` cells and is applied until the result is below `len`, so every
//! index below `len` has exactly one place in the order. An epoch of any length needs no memory, any position can be
//! computed directly, and resuming needs only the position.

/// Keys from which one order is made.
pub(crate) type Keys = [u64; ROUNDS];

pub(crate) const ROUNDS: usize = 8;

/// An order of the numbers below `len`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    len: u64,
    rows: u64,
    columns: u64,
    keys: Keys,
}

impl Permutation {
    /// `len` is at least 1.
    pub(crate) fn new(len: u64, keys: Keys) -> Self {
        let rows = len.isqrt().max(1);
        Self {
            len,
            rows,
            columns: len.div_ceil(rows),
            keys,
        }
    }

    /// The number at `position`, which is below `len`.
    pub(crate) fn at(&self, position: u64) -> u64 {
        let mut number = self.step(position);
        // The iteration follows the cycle that `position` lies on, so it returns to a number below `len`.
        while number >= self.len {
            number = self.step(number);
        }
        number
    }

    fn step(&self, number: u64) -> u64 {
        let (mut row, mut column) = (number / self.columns, number % self.columns);
        for (round, key) in self.keys.iter().enumerate() {
            if round % 2 == 0 {
                row = (row + mix(column ^ key) % self.rows) % self.rows;
            } else {
                column = (column + mix(row ^ key) % self.columns) % self.columns;
            }
        }
        row * self.columns + column
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_comes_once(len in 1_u64..2000, keys in any::<Keys>()) {
            let order = Permutation::new(len, keys);
            let mut seen = vec![false; len as usize];
            for position in 0..len {
                let number = order.at(position) as usize;
                prop_assert!(!std::mem::replace(&mut seen[number], true));
            }
        }
    }

    #[test]
    fn the_order_is_far_from_sorted() {
        let order = Permutation::new(1000, [1, 2, 3, 4, 5, 6, 7, 8]);
        let numbers: Vec<u64> = (0..1000).map(|position| order.at(position)).collect();
        let rises = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((430..570).contains(&rises), "{rises} of 999 steps rise");
        let fixed = numbers.iter().zip(0..).filter(|&(&n, at)| n == at).count();
        assert!(fixed < 10, "{fixed} numbers stay in place");
    }
}

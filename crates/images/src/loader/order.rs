//! The order of training: epoch after epoch, each shuffled with its number.

use std::sync::{Arc, Mutex, PoisonError};

use crate::random::{Draws, Purpose};

/// The picture at each position.
pub(super) struct Order {
    seed: u64,
    count: usize,
    /// The orders of the epochs used last; a few suffice because workers are at most a few batches apart.
    recent: Mutex<Vec<(u64, Arc<Vec<u32>>)>>,
}

const KEPT: usize = 2;

impl Order {
    /// `count` is at least 1.
    pub(super) fn new(seed: u64, count: usize) -> Self {
        Self {
            seed,
            count: count.max(1),
            recent: Mutex::default(),
        }
    }

    pub(super) fn at(&self, position: u64) -> usize {
        let (epoch, place) = (position / self.count as u64, position % self.count as u64);
        self.epoch(epoch)[place as usize] as usize
    }

    fn epoch(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = recent.iter().find(|(known, _)| *known == epoch) {
            return Arc::clone(order);
        }
        let order = Draws::new(self.seed, Purpose::Order, epoch).permutation(self.count);
        let order = Arc::new(order);
        if recent.len() == KEPT {
            recent.remove(0);
        }
        recent.push((epoch, Arc::clone(&order)));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_holds_every_picture_and_the_next_has_another_order() {
        let order = Order::new(3, 50);
        let epoch =
            |number: u64| -> Vec<usize> { (0..50).map(|p| order.at(50 * number + p)).collect() };
        let (first, second) = (epoch(0), epoch(1));
        let sorted = |mut numbers: Vec<usize>| {
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(sorted(first.clone()), (0..50).collect::<Vec<_>>());
        assert_eq!(sorted(second.clone()), (0..50).collect::<Vec<_>>());
        assert_ne!(first, second);
        // Jumps far ahead and back.
        assert_eq!(epoch(1_000_000_007), epoch(1_000_000_007));
        assert_eq!(epoch(0), first);
        assert_ne!(Order::new(4, 50).epoch(0), order.epoch(0));
    }
}

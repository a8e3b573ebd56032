//! Stochastic depth (Huang et al. 2016): in training a sample skips a branch of a block now and then.

use crate::init;
use rand::Rng;

/// What a training graph drops. The draws are a pure function of the seed, the sample's number, the block and the branch:
/// recomputation repeats them, and a run that is resumed needs no state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropPath {
    /// Share of samples that skip a branch of the last block, from 0 on, below 1; it grows in equal steps from 0 in the
    /// first block.
    pub rate: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the batch's first sample in the run.
    pub first: u64,
}

/// Which branch of which block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Branch {
    /// Number of the block.
    pub block: usize,
    /// Blocks of the network.
    pub blocks: usize,
    /// 0 for attention, 1 for the feed-forward network.
    pub number: usize,
}

impl DropPath {
    /// Share of samples that keep a branch.
    fn kept(&self, branch: Branch) -> f64 {
        let depth = branch.block as f64 / (branch.blocks.max(2) - 1) as f64;
        1.0 - self.rate * depth
    }

    /// Puts the factors of a branch for `batch` samples into `factors`: 0, or the inverse of the share that is kept.
    /// Returns false, and does nothing, if all samples keep the branch.
    pub(crate) fn fill(&self, branch: Branch, batch: usize, factors: &mut Vec<f32>) -> bool {
        let kept = self.kept(branch);
        if kept >= 1.0 {
            return false;
        }
        // Every sample has its own stream, in which every branch has a block of 16 words.
        let mut rng = init::seeded(self.seed, "drop path");
        let word = 16 * (2 * branch.block + branch.number) as u128;
        factors.clear();
        factors.extend((0..batch as u64).map(|sample| {
            rng.set_stream(self.first.wrapping_add(sample));
            rng.set_word_pos(word);
            let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            if uniform < kept {
                (1.0 / kept) as f32
            } else {
                0.0
            }
        }));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(drop: DropPath, block: usize, number: usize, batch: usize) -> Vec<f32> {
        let mut factors = Vec::new();
        let blocks = 5;
        let branch = Branch {
            block,
            blocks,
            number,
        };
        match drop.fill(branch, batch, &mut factors) {
            true => factors,
            false => vec![1.0; batch],
        }
    }

    #[test]
    fn the_share_grows_with_depth_and_the_mean_stays() {
        let drop = DropPath {
            rate: 0.4,
            seed: 3,
            first: 0,
        };
        for (block, share) in [(0, 0.0), (1, 0.1), (2, 0.2), (4, 0.4)] {
            let found = factors(drop, block, 1, 40_000);
            let dropped = found.iter().filter(|f| **f == 0.0).count() as f64 / 40_000.0;
            // Four standard deviations of a share of 40,000 draws are at most 0.01.
            assert!((dropped - share).abs() <= 0.01, "block {block}: {dropped}");
            assert!(
                found
                    .iter()
                    .all(|f| *f == 0.0 || *f == (1.0 / (1.0 - share)) as f32)
            );
        }
    }

    #[test]
    fn a_sample_meets_the_same_draws_in_any_batch() {
        let at = |seed, first| DropPath {
            rate: 0.5,
            seed,
            first,
        };
        let all = factors(at(1, 0), 4, 0, 64);
        assert_eq!(factors(at(1, 48), 4, 0, 16), all[48..]);
        assert_ne!(factors(at(2, 0), 4, 0, 64), all, "another seed");
        assert_ne!(factors(at(1, 0), 4, 1, 64), all, "the other branch");
        assert_ne!(factors(at(1, 64), 4, 0, 64), all, "other samples");
    }
}

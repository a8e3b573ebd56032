//! What a model forgets of the first text when it learns a second one.

use super::{Ends, MARGIN};
use crate::arms::{ARMS, Kind};
use crate::stats::mean;
use serde::Serialize;
use tokenformer_core::config::Family;

/// An arm that was trained on with the second text.
#[derive(Clone, Debug, Serialize)]
pub struct Shifted {
    /// Its name.
    pub arm: &'static str,
    /// Its family.
    pub family: Family,
    /// Whether it has grown.
    pub grown: bool,
    /// Number of parameters.
    pub params: u64,
    /// Seeds with a result.
    pub seeds: Vec<u64>,
    /// Held-out losses on the first text, in nats per token, by seed.
    pub old: Vec<f64>,
    /// The same on the second text.
    pub new: Vec<f64>,
    /// Means of both in bits per byte.
    pub bits_per_byte: [f64; 2],
    /// Both in bits per byte, by seed.
    #[serde(skip)]
    bits: [Vec<f64>; 2],
}

impl Shifted {
    /// The same of some of the seeds alone.
    pub fn of_seeds(&self, seeds: &[u64]) -> Self {
        let of = |losses: &[f64]| -> Vec<f64> {
            let by_seed = self.seeds.iter().zip(losses);
            let kept = by_seed.filter(|(seed, _)| seeds.contains(seed));
            kept.map(|(_, loss)| *loss).collect()
        };
        let [old, new] = &self.bits;
        let bits = [of(old), of(new)];
        Self {
            seeds: (self.seeds.iter().copied())
                .filter(|seed| seeds.contains(seed))
                .collect(),
            old: of(&self.old),
            new: of(&self.new),
            bits_per_byte: [mean(&bits[0]), mean(&bits[1])],
            bits,
            ..*self
        }
    }

    /// Whether another arm of the same seeds is nowhere worse by more than 0.5 % of perplexity, and somewhere better by more than that.
    pub fn is_dominated_by(&self, other: &Self) -> bool {
        let differences = [(&self.old, &other.old), (&self.new, &other.new)];
        let differences = differences.map(|(own, others)| mean(others) - mean(own));
        differences.iter().all(|&d| d <= MARGIN) && differences.iter().any(|&d| d < -MARGIN)
    }
}

/// All arms of the second text with a result.
pub(super) fn shifted(ends: &Ends<'_>) -> Vec<Shifted> {
    let mut found = Vec::new();
    for arm in &ARMS {
        let Kind::Shift(family, growth) = arm.kind else {
            continue;
        };
        let (mut seeds, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bits, mut params) = ([Vec::new(), Vec::new()], 0);
        for size in ends.sizes(arm.name) {
            for seed in ends.seeds() {
                let Some(result) = ends.of(arm.name, &size, seed) else {
                    continue;
                };
                let (Some(first), Some(second)) = (&result.held_out, &result.second_held_out)
                else {
                    continue;
                };
                seeds.push(seed);
                old.push(first.loss);
                new.push(second.loss);
                bits[0].push(first.bits_per_byte);
                bits[1].push(second.bits_per_byte);
                params = result.params;
            }
        }
        if !old.is_empty() {
            found.push(Shifted {
                arm: arm.name,
                family,
                grown: growth.is_some(),
                params,
                seeds,
                bits_per_byte: [mean(&bits[0]), mean(&bits[1])],
                bits,
                old,
                new,
            });
        }
    }
    found
}

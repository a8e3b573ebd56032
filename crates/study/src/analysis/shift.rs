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
    /// Held-out losses on the first text, in nats per token, by seed.
    pub old: Vec<f64>,
    /// The same on the second text.
    pub new: Vec<f64>,
    /// Means of both in bits per byte.
    pub bits_per_byte: [f64; 2],
}

impl Shifted {
    /// Whether another arm is nowhere worse by more than 0.5 % of perplexity, and somewhere better by more than that.
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
        let (mut old, mut new, mut bits, mut params) =
            (Vec::new(), Vec::new(), [Vec::new(), Vec::new()], 0);
        for size in ends.sizes(arm.name) {
            for seed in ends.seeds() {
                let Some(result) = ends.of(arm.name, &size, seed) else {
                    continue;
                };
                let (Some(first), Some(second)) = (&result.held_out, &result.second_held_out)
                else {
                    continue;
                };
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
                bits_per_byte: bits.map(|bits| mean(&bits)),
                old,
                new,
            });
        }
    }
    found
}

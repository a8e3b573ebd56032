//! The report of a growth.

use super::{Birth, Growth, GrowthMap, Promise};
use crate::config::{ModelConfig, SiteKind};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// How one kind of layer grew in all blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteGrowth {
    /// Kind of layer.
    pub site: SiteKind,
    /// Parameter tokens (hidden width of an MLP) per block before; the fewest, where blocks differ.
    pub tokens_before: usize,
    /// Parameter tokens per block after; the fewest, where blocks differ.
    pub tokens_after: usize,
    /// The most per block before, where blocks differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_before: Option<usize>,
    /// The most per block after, where blocks differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_after: Option<usize>,
    /// Parameters in all blocks before.
    pub params_before: u64,
    /// Parameters in all blocks after.
    pub params_after: u64,
}

/// The effect of a growth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrowthReport {
    /// Training stage that begins.
    pub stage: u32,
    /// Training step at which it happened.
    pub step: u64,
    /// The requested growth.
    pub growth: Growth,
    /// Parameters before.
    pub params_before: u64,
    /// Parameters after.
    pub params_after: u64,
    /// Blocks before.
    pub layers_before: usize,
    /// Blocks after.
    pub layers_after: usize,
    /// By kind of layer.
    pub sites: Vec<SiteGrowth>,
    /// Whether the function was guaranteed to stay the same, up to `tolerance`.
    pub preserving: bool,
    /// The guaranteed limit of `relative_logit_diff`; 0 means the same bits.
    #[serde(default)]
    pub tolerance: f64,
    /// Largest absolute difference of a logit on the probe tokens.
    pub max_logit_diff: f64,
    /// Root mean square of the logits' differences on the probe tokens, over that of the logits.
    pub relative_logit_diff: f64,
    /// Floating-point operations of the passes over the probe tokens.
    #[serde(default)]
    pub probe_flops: u64,
}

/// How much the logits changed.
#[derive(Clone, Copy)]
pub(super) struct Movement {
    /// Largest absolute difference; NaN if a logit is not finite.
    pub largest: f64,
    /// Root mean square of the differences over that of the logits before.
    pub relative: f64,
}

impl Movement {
    pub fn between(before: &[f32], after: &[f32]) -> Self {
        let pairs = before.iter().zip(after);
        let differences = || pairs.clone().map(|(a, b)| f64::from(*a) - f64::from(*b));
        let larger = |m: f64, d: f64| {
            if d.abs() > m || d.is_nan() {
                d.abs()
            } else {
                m
            }
        };
        let scale: f64 = before.iter().map(|a| f64::from(*a).powi(2)).sum();
        let squares: f64 = differences().map(|d| d * d).sum();
        Self {
            largest: differences().fold(0.0, larger),
            relative: (squares / scale.max(f64::MIN_POSITIVE)).sqrt(),
        }
    }

    /// Returns an error if the logits changed more than guaranteed.
    pub fn check(self, promise: Promise) -> Result<()> {
        let (kept, expected, help) = match promise {
            Promise::Exact => (
                self.largest == 0.0,
                "the same logits bit for bit".into(),
                "this should not happen; please report it with the model's configuration",
            ),
            Promise::Within(tolerance) => (
                self.relative <= tolerance,
                format!("a relative difference of at most {tolerance:e}"),
                "grow in f32 precision: rounding in a shorter format moves more than the method does",
            ),
            Promise::Nothing => return Ok(()),
        };
        if kept {
            return Ok(());
        }
        let Self { largest, relative } = self;
        Err(Error::GrowthMoved {
            expected,
            got: format!("a largest difference of {largest:e}, a relative one of {relative:e}"),
            help,
        })
    }
}

/// The fewest tokens of a layer in a block, and the most if that is another number.
fn tokens_per_block(config: &ModelConfig, kind: SiteKind) -> (usize, Option<usize>) {
    let tokens = || config.blocks.iter().map(|block| block.layer(kind).hidden());
    let fewest = tokens().min().unwrap_or(0);
    (fewest, tokens().max().filter(|most| *most != fewest))
}

pub(super) fn report(
    growth: &Growth,
    birth: Birth,
    map: &GrowthMap,
    before: &ModelConfig,
    movement: Movement,
) -> GrowthReport {
    let after = &map.target;
    let sites = SiteKind::ALL.map(|kind| {
        let (tokens_before, most_before) = tokens_per_block(before, kind);
        let (tokens_after, most_after) = tokens_per_block(after, kind);
        let params = |c: &ModelConfig| {
            let layers = c.blocks.iter().map(|b| b.layer(kind));
            layers.map(|layer| layer.params(c.width)).sum()
        };
        SiteGrowth {
            site: kind,
            tokens_before,
            tokens_after,
            most_before,
            most_after,
            params_before: params(before),
            params_after: params(after),
        }
    });
    GrowthReport {
        stage: birth.stage,
        step: birth.step,
        growth: growth.clone(),
        params_before: before.params(),
        params_after: after.params(),
        layers_before: before.layers(),
        layers_after: after.layers(),
        sites: sites.into(),
        preserving: map.promise != Promise::Nothing,
        tolerance: match map.promise {
            Promise::Within(tolerance) => tolerance,
            Promise::Exact | Promise::Nothing => 0.0,
        },
        probe_flops: 0,
        max_logit_diff: movement.largest,
        relative_logit_diff: movement.relative,
    }
}

//! Settings of a model that only training needs: stored with a run's state, not in its configuration.

use super::check::{POSITIVE, is_positive};
use crate::error::{Result, config_error};
use crate::path::{ParamPath, ParamRole, Place, SiteKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A site's `τ` moving between two values over training steps, geometrically.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anneal {
    /// `τ` at `start_step`.
    pub from: f64,
    /// `τ` from `start_step + steps` on.
    pub to: f64,
    /// Training step at which it begins to move.
    pub start_step: u64,
    /// Steps it takes.
    pub steps: u64,
}

impl Anneal {
    /// `τ` at a training step.
    pub fn at(&self, step: u64) -> f64 {
        let done = step.saturating_sub(self.start_step);
        if done >= self.steps {
            return self.to;
        }
        let share = done as f64 / self.steps as f64;
        self.from * (self.to / self.from).powf(share)
    }
}

/// A site's `τ` that follows the sizes of old and new scores, so that the old tokens' weights stay as they are:
/// `τ = from·√(1 + new/old)`, at most `from·√(all tokens / old tokens)`.
///
/// Under a joint norm the new scores shrink the old tokens' normalised ones by `√(1 + E_new/E_old)`, where `E` is a sum
/// of squared scores. Both sums are running means with the same weights, so that their quotient needs no correction for
/// the few measurements of the beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracked {
    /// `τ` at the growth.
    pub from: f64,
    /// Segments that were there before the growth.
    pub old_segments: usize,
    /// Running mean of the squared scores of a row, added up over the old tokens.
    pub old: f64,
    /// The same of the new tokens.
    pub new: f64,
}

impl Tracked {
    /// What is left of a running mean after an update.
    const DECAY: f64 = 0.9;

    /// Before the first measurement.
    pub fn new(from: f64, old_segments: usize) -> Self {
        Self {
            from,
            old_segments,
            old: 0.0,
            new: 0.0,
        }
    }

    /// Takes in the squared scores of a row, added up over old and new tokens.
    pub fn observe(&mut self, old: f64, new: f64) {
        // A step whose numbers are not finite is skipped, and leaves no trace here either.
        if old.is_finite() && new.is_finite() {
            self.old = Self::DECAY * self.old + (1.0 - Self::DECAY) * old;
            self.new = Self::DECAY * self.new + (1.0 - Self::DECAY) * new;
        }
    }

    /// `τ` of a site with the given numbers of old tokens and of all tokens.
    pub fn tau(&self, old_tokens: usize, all_tokens: usize) -> f64 {
        if self.old <= 0.0 {
            return self.from;
        }
        let most = all_tokens as f64 / old_tokens.max(1) as f64;
        self.from * (1.0 + self.new / self.old).min(most).sqrt()
    }
}

/// Sizes of the model at which a learning rate was found. In a model of other sizes a matrix with fan-in `f` learns at
/// `f_base/f` of it: the inputs of the sums that an update moves in one direction. 0 leaves what reads that size as it
/// is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BaseSizes {
    /// Width: fan-in of linear layers.
    pub width: usize,
    /// Hidden width of MLPs: fan-in of their second projection.
    pub mlp_hidden: usize,
    /// Parameter tokens of query, key and value each: fan-in of their values.
    pub qkv: usize,
    /// Parameter tokens of the output projection.
    pub proj: usize,
    /// Parameter tokens of the feed-forward network.
    pub ffn: usize,
}

impl BaseSizes {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Factor of the learning rate of an array with this fan-in. Keys, tables, norms and biases keep theirs.
    pub fn factor(&self, path: &ParamPath, fan_in: usize) -> f32 {
        let base = match (path.role, path.place) {
            (ParamRole::Values, Place::Segment { kind, .. }) => match kind {
                SiteKind::Query | SiteKind::Key | SiteKind::Value => self.qkv,
                SiteKind::Proj => self.proj,
                SiteKind::Ffn => self.ffn,
            },
            (
                ParamRole::Weight,
                Place::Linear { name: "down", .. } | Place::Part { name: "down", .. },
            ) => self.mlp_hidden,
            // The pixels of a patch are as many at any width.
            (ParamRole::Weight, Place::Image(_)) => 0,
            (ParamRole::Weight, _) => self.width,
            _ => 0,
        };
        match base {
            0 => 1.0,
            base => base as f32 / fan_in.max(1) as f32,
        }
    }
}

/// How an array is trained. The default is what every array of a fresh model has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParamTraining {
    /// Whether training changes it.
    pub trainable: bool,
    /// Factor of the learning rate.
    pub lr_scale: f32,
    /// A further one, of growths for which the array was an old one.
    #[serde(skip_serializing_if = "is_one")]
    pub old_lr: f32,
    /// Growths before its birth. The gradients of each generation are clipped by their own norm, so that those of
    /// new arrays, which are large at first, do not shrink the updates of old ones.
    pub generation: u32,
    /// Number of updates, counted from the growth, over which the learning rate rises linearly from 0, for arrays that are younger than the
    /// run: see `docs/growth.md`.
    pub warmup: u64,
}

impl Default for ParamTraining {
    fn default() -> Self {
        Self {
            trainable: true,
            lr_scale: 1.0,
            old_lr: 1.0,
            generation: 0,
            warmup: 0,
        }
    }
}

fn is_one(factor: &f32) -> bool {
    *factor == 1.0
}

/// What differs from a fresh model's training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingSettings {
    /// By name of the array, where it differs from the default.
    pub params: BTreeMap<String, ParamTraining>,
    /// `τ`s that are moving, by name of the site (`blocks.0.ffn`).
    pub anneals: BTreeMap<String, Anneal>,
    /// `τ`s that follow the scores, by name of the site.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tracked: BTreeMap<String, Tracked>,
    /// Sizes at which the learning rate was found: tokens and blocks of later growths take their rates from them, too.
    #[serde(skip_serializing_if = "BaseSizes::is_none")]
    pub base: BaseSizes,
}

impl TrainingSettings {
    /// Whether nothing differs.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        for (name, param) in &self.params {
            for (part, factor) in [("lr_scale", param.lr_scale), ("old_lr", param.old_lr)] {
                if !(factor.is_finite() && factor >= 0.0) {
                    let field = format!("{name}: {part}");
                    let help = "1 is the usual factor of the learning rate";
                    return Err(config_error(field, "a number from 0 on", factor, help));
                }
            }
        }
        for (name, anneal) in &self.anneals {
            for (part, tau) in [("from", anneal.from), ("to", anneal.to)] {
                if !is_positive(tau) {
                    let field = format!("{name}: anneal.{part}");
                    let help = "a fresh site has the root of its tokens";
                    return Err(config_error(field, POSITIVE, tau, help));
                }
            }
        }
        for (name, tracked) in &self.tracked {
            let Tracked { from, old, new, .. } = *tracked;
            let fine = is_positive(from) && [old, new].iter().all(|e| e.is_finite() && *e >= 0.0);
            if !fine {
                let field = format!("{name}: tracked");
                let expected = "a positive tau, and sums of squares from 0 on";
                let got = format!("{tracked:?}");
                let help = "a growth with tau = \"tracked\" writes these numbers";
                return Err(config_error(field, expected, got, help));
            }
        }
        Ok(())
    }

    /// The same settings in a network whose block `b` is called `number(b)`.
    pub(crate) fn renumbered(&self, number: impl Fn(usize) -> usize) -> Self {
        fn renamed<T: Clone>(
            map: &BTreeMap<String, T>,
            number: &impl Fn(usize) -> usize,
        ) -> BTreeMap<String, T> {
            map.iter()
                .map(|(name, value)| (in_block(name, number), value.clone()))
                .collect()
        }
        Self {
            params: renamed(&self.params, &number),
            anneals: renamed(&self.anneals, &number),
            tracked: renamed(&self.tracked, &number),
            base: self.base,
        }
    }
}

/// The name of an array or a site with another number of its block; one of the trunk has none.
pub(crate) fn in_block(name: &str, number: impl Fn(usize) -> usize) -> String {
    let parts = name.strip_prefix("blocks.").and_then(|rest| {
        let (block, rest) = rest.split_once('.')?;
        Some((block.parse().ok()?, rest))
    });
    match parts {
        Some((block, rest)) => format!("blocks.{}.{rest}", number(block)),
        None => name.into(),
    }
}

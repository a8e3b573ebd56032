//! Growing a model by appending parameter tokens, and blocks.
//!
//! What keeps the function, bit for bit, and still learns:
//!
//! | norm | new keys | new values | τ | why |
//! |---|---|---|---|---|
//! | `joint` | 0 | random | pinned | new scores are 0: they add nothing to the norm, and gelu(0) = 0 |
//! | `segment` | random | 0 | own | new weights meet values of 0; old tokens have a norm of their own |
//! | new block | random | 0 in `proj` and `ffn` | fresh | both branches add 0 to the residual stream |
//!
//! What keeps it over the first updates: new arrays warm up over their own first updates, and those that start from zero
//! learn at a rate that does not grow with their number (`docs/growth.md`).
//!
//! The released code's way (random keys and values, τ = √N of the grown site) is `joint`, `random`, `random`, `sqrt-n`;
//! it moves the function, and the report says how far.
//!
//! A [`Growth`] is what is asked for, a [`GrowthMap`] what every new array starts from, a [`GrowthReport`] what happened.
//! Each way to grow is a file that writes into the map.

mod amount;
mod blocks;
mod map;
mod report;
mod tokens;

pub use amount::{Amount, Fill, NewBlocks, Rate, TauRule};
pub use map::{GrowthMap, Origin, Promise};
pub use report::{GrowthReport, SiteGrowth};

use crate::config::{ModelConfig, NormSpan, SiteKind};
use crate::error::{Error, Result};
use crate::model::Model;
use serde::{Deserialize, Serialize};

/// Updates over which new arrays warm up, unless the growth says otherwise.
pub const DEFAULT_WARMUP: u64 = 100;

/// A growth to carry out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Growth {
    /// Of query, key and value each.
    pub qkv: Amount,
    /// Of the output projection.
    pub proj: Amount,
    /// Of the feed-forward network.
    pub ffn: Amount,
    /// More blocks, behind the last.
    pub layers: usize,
    /// What new blocks start from.
    pub blocks: NewBlocks,
    /// Start of new keys; by default what keeps the function under the norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Fill>,
    /// Start of new values; likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Fill>,
    /// Span of the norm in grown sites; by default what the site has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<NormSpan>,
    /// What happens to `τ`.
    pub tau: TauRule,
    /// Updates of their own over which new arrays warm up; [`DEFAULT_WARMUP`] if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<u64>,
    /// Learning rate of new tokens' arrays that start from zero.
    pub rate: Rate,
    /// Whether everything that was there before stops training.
    pub freeze_old: bool,
}

impl Growth {
    fn amount(&self, kind: SiteKind) -> Amount {
        match kind {
            SiteKind::Query | SiteKind::Key | SiteKind::Value => self.qkv,
            SiteKind::Proj => self.proj,
            SiteKind::Ffn => self.ffn,
        }
    }

    fn warmup(&self) -> u64 {
        self.warmup.unwrap_or(DEFAULT_WARMUP)
    }

    /// A short description, for example `+512 ffn, +2 layers`.
    pub fn summary(&self) -> String {
        let sites = [("qkv", self.qkv), ("proj", self.proj), ("ffn", self.ffn)];
        let mut parts: Vec<String> = (sites.into_iter())
            .filter(|(_, amount)| *amount != Amount::Add(0))
            .map(|(name, amount)| format!("{amount} {name}"))
            .collect();
        if self.layers > 0 {
            parts.push(format!("+{} layers", self.layers));
        }
        if parts.is_empty() {
            "nothing".into()
        } else {
            parts.join(", ")
        }
    }

    /// What the growth does to `model`; nothing is changed.
    ///
    /// # Errors
    /// [`Error::Config`] for a growth that cannot be done or could never learn.
    pub fn map(&self, model: &Model, birth: Birth) -> Result<GrowthMap> {
        let mut map = GrowthMap::identity(model);
        let before = map.target.params();
        tokens::append(&mut map, self, birth)?;
        blocks::append(&mut map, self, birth)?;
        map.target.validate()?;
        if self.freeze_old && map.target.params() > before {
            for param in model.each_param() {
                let how = map.training.params.entry(param.name().into());
                how.or_default().trainable = false;
            }
        }
        Ok(map)
    }
}

/// When and from which random numbers new arrays are born.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Training stage that begins.
    pub stage: u32,
    /// Training steps done so far.
    pub step: u64,
    /// Seed of the run.
    pub seed: u64,
}

/// Grows `model` and compares its logits on `probe` `[batch, T]` before and after.
///
/// # Errors
/// [`Error::Config`] for a growth that cannot be done or could never learn (the model is then unchanged);
/// [`Error::GrowthMoved`] if the function should have been kept and was not (the model must then be
/// thrown away); memory.
pub fn grow(
    model: &mut Model,
    growth: &Growth,
    birth: Birth,
    probe: &[u32],
    batch: usize,
) -> Result<GrowthReport> {
    let map = growth.map(model, birth)?;
    let before = model.config();
    let old_logits = model.infer(probe, batch)?;
    map.apply(model, birth.seed)?;
    let new_logits = model.infer(probe, batch)?;
    let movement = report::Movement::between(&old_logits, &new_logits);
    if map.promise == Promise::Exact && movement.largest != 0.0 {
        return Err(Error::GrowthMoved {
            max_logit_diff: movement.largest,
        });
    }
    Ok(report::report(growth, birth, &map, &before, movement))
}

/// Parameters that `model` would have after `growth`; nothing is changed.
///
/// # Errors
/// As [`Growth::map`].
pub fn params_after(model: &Model, growth: &Growth) -> Result<u64> {
    let birth = Birth {
        stage: 0,
        step: 0,
        seed: 0,
    };
    Ok(config_after(model, growth, birth)?.params())
}

/// The configuration that `model` would have after `growth`; nothing is changed.
///
/// # Errors
/// As [`Growth::map`].
pub fn config_after(model: &Model, growth: &Growth, birth: Birth) -> Result<ModelConfig> {
    Ok(growth.map(model, birth)?.target)
}

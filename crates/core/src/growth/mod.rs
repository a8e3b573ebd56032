//! Growing a model by appending parameter tokens, and blocks.
//!
//! What keeps the function, bit for bit, and still learns:
//!
//! | norm | new keys | new values | τ | why |
//! |---|---|---|---|---|
//! | `joint` | 0 | random | pinned | new scores are 0: they add nothing to the norm, and gelu(0) = 0 |
//! | `segment` | random | 0 | own | new weights meet values of 0; old tokens have a separate norm |
//! | new block | random | 0 in `proj` and `ffn` | fresh | both branches add 0 to the residual stream |
//!
//! What keeps it over the first updates: new arrays warm up over their own first updates, and those that start from zero
//! learn at a rate that does not grow with their number (`docs/growth.md`).
//!
//! The released code's way (random keys and values, τ = √N of the grown site) is `joint`, `random`, `random`, `sqrt-n`;
//! it moves the function, and the report says how far.
//!
//! Other ways, by name, are in [`Method`]: hidden units, blocks, and a larger width for plain Transformers.
//!
//! A [`Growth`] is the request, a [`GrowthMap`] the start of every new array, a [`GrowthReport`] the result.
//! Each way to grow is a file that writes into the map.

mod amount;
mod arrays;
mod blocks;
mod hidden;
mod map;
mod method;
mod numbers;
mod origin;
mod probe;
mod report;
mod tokens;
mod width;

pub use amount::{Amount, At, Fill, Moments, NewBlocks, Rate, TauRule};
pub use map::{GrowthMap, Promise};
pub use method::Method;
pub use origin::{Origin, Split};
pub use probe::Probe;
pub use report::{GrowthReport, SiteGrowth};

use crate::config::{ModelConfig, NormSpan, SiteKind, TrainingSettings};
use crate::error::{Result, config_error};
use crate::graph::Graph;
use crate::model::{Model, site_name};
use method::Grows;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Updates over which new arrays warm up, unless the growth says otherwise.
pub const DEFAULT_WARMUP: u64 = 100;

/// A growth to carry out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Growth {
    /// The way to grow; without one, tokens follow the norm of their site, or what `keys`, `values`, `norm` and `tau` say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Growth of the query, key and value projections, each.
    pub qkv: Amount,
    /// Growth of the query projection, instead of `qkv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Amount>,
    /// Growth of the key projection, instead of `qkv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Amount>,
    /// Growth of the value projection, instead of `qkv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Amount>,
    /// Growth of the output projection.
    pub proj: Amount,
    /// Growth of the feed-forward network: tokens, or hidden units of an MLP.
    pub ffn: Amount,
    /// Growth of single layers by name, `blocks.0.ffn`, instead of all of the above.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sites: BTreeMap<String, Amount>,
    /// More blocks.
    pub layers: usize,
    /// What new blocks start from, where the method does not say it.
    pub blocks: NewBlocks,
    /// Where new blocks are inserted that are not copies of others; after the last one, unless the method says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
    /// Width of a plain Transformer.
    #[serde(skip_serializing_if = "is_default")]
    pub width: Amount,
    /// Noise of a method that adds some: relative to the weights for `clone` (0.316 by default), to fresh ones for
    /// `shrink-pad` (1 by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// What `shrink-pad` leaves of the weights; 0.4 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrink: Option<f64>,
    /// Start of new keys; by default what keeps the function under the norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Fill>,
    /// Start of new values; by default what keeps the function.
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
    /// Learning rate of new tokens' arrays that start from zero, and of widened matrices.
    pub rate: Rate,
    /// What happens to the optimizer's moments of arrays that stay.
    #[serde(skip_serializing_if = "is_default")]
    pub moments: Moments,
    /// Whether everything that was there before stops training.
    pub freeze_old: bool,
    /// Factor of the learning rate of everything that was there before.
    #[serde(skip_serializing_if = "is_one")]
    pub old_lr: f32,
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            method: None,
            qkv: Amount::default(),
            query: None,
            key: None,
            value: None,
            proj: Amount::default(),
            ffn: Amount::default(),
            sites: BTreeMap::new(),
            layers: 0,
            blocks: NewBlocks::default(),
            at: None,
            width: Amount::default(),
            noise: None,
            shrink: None,
            keys: None,
            values: None,
            norm: None,
            tau: TauRule::default(),
            warmup: None,
            rate: Rate::default(),
            moments: Moments::default(),
            freeze_old: false,
            old_lr: 1.0,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_one(value: &f32) -> bool {
    *value == 1.0
}

impl Growth {
    /// How much a layer of block `b` grows.
    fn amount(&self, b: usize, kind: SiteKind) -> Amount {
        let own = match self.sites.is_empty() {
            true => None,
            false => self.sites.get(&site_name(b, kind)),
        };
        own.copied().unwrap_or(self.amount_of(kind))
    }

    /// How much layers of a kind grow that have no amount of their own.
    fn amount_of(&self, kind: SiteKind) -> Amount {
        match kind {
            SiteKind::Query => self.query.unwrap_or(self.qkv),
            SiteKind::Key => self.key.unwrap_or(self.qkv),
            SiteKind::Value => self.value.unwrap_or(self.qkv),
            SiteKind::Proj => self.proj,
            SiteKind::Ffn => self.ffn,
        }
    }

    /// Whether it gives amounts to add, and some above 0, instead of amounts to reach.
    pub fn only_adds(&self) -> bool {
        let own = [self.query, self.key, self.value].into_iter().flatten();
        let all = [self.qkv, self.proj, self.ffn, self.width].into_iter();
        let amounts: Vec<Amount> = all.chain(own).chain(self.sites.values().copied()).collect();
        let more = |amount: &Amount| matches!(amount, Amount::Add(more) if *more > 0);
        let adds = |amount: &Amount| matches!(amount, Amount::Add(_));
        amounts.iter().all(adds) && (self.layers > 0 || amounts.iter().any(more))
    }

    fn warmup(&self) -> u64 {
        self.warmup.unwrap_or(DEFAULT_WARMUP)
    }

    /// A short description, for example `+512 ffn, +2 layers`. Query, key and value are one entry if they grow alike, and a
    /// single layer has one if it does not grow as the others of its kind.
    pub fn summary(&self) -> String {
        let kinds = SiteKind::ALL.map(|kind| (kind.name(), self.amount_of(kind)));
        let [query, key, value, proj, ffn] = kinds;
        let named = match query.1 == key.1 && key.1 == value.1 {
            true => vec![("qkv", query.1), proj, ffn],
            false => kinds.into(),
        };
        let mut parts: Vec<String> = (named.into_iter().chain([("width", self.width)]))
            .filter(|(_, amount)| *amount != Amount::default())
            .map(|(name, amount)| format!("{amount} {name}"))
            .collect();
        let as_others = |name: &str, amount: Amount| {
            kinds
                .into_iter()
                .any(|(kind, of_kind)| name.ends_with(&format!(".{kind}")) && amount == of_kind)
        };
        let sites = self
            .sites
            .iter()
            .filter(|(name, amount)| !as_others(name, **amount));
        parts.extend(sites.map(|(name, amount)| format!("{amount} {name}")));
        if self.layers > 0 {
            parts.push(format!("+{} layers", self.layers));
        }
        match (parts.is_empty(), self.method) {
            (true, _) => "nothing".into(),
            (false, None) => parts.join(", "),
            (false, Some(method)) => format!("{} ({method})", parts.join(", ")),
        }
    }

    /// What the growth does to `model`; nothing is changed.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a growth that cannot be done or could never learn.
    pub fn map(&self, model: &Model, birth: Birth) -> Result<GrowthMap> {
        self.map_of(&model.config(), &model.training_settings(), birth)
    }

    /// As [`Growth::map`], of the model that a configuration describes: what a growth does depends on no weights.
    ///
    /// # Errors
    /// As [`Growth::map`].
    pub fn map_of(
        &self,
        config: &ModelConfig,
        training: &TrainingSettings,
        birth: Birth,
    ) -> Result<GrowthMap> {
        self.check_settings()?;
        let mut map = GrowthMap::identity(config, training);
        self.check_names(&map.target)?;
        let before = map.target.params();
        match self.method {
            Some(method) if method.grows() == Grows::Width => {
                width::widen(&mut map, self, method, birth)?
            }
            _ => {
                let gained = tokens::append(&mut map, self, birth)?;
                hidden::append(&mut map, self, birth)?;
                blocks::insert(&mut map, self, birth)?;
                // What asks for sizes that are there already grows nothing, and may say how it would.
                if map.target.params() > before {
                    tokens::check_effect(self, gained)?;
                    blocks::check_effect(self)?;
                }
            }
        }
        map.target.validate()?;
        if map.target.params() > before {
            map.hold_back(self);
        }
        Ok(map)
    }

    /// Refuses amounts for layers that are not there.
    fn check_names(&self, config: &ModelConfig) -> Result<()> {
        let layers = config.layers();
        for name in self.sites.keys() {
            let is_there = (0..layers).any(|b| {
                SiteKind::ALL
                    .iter()
                    .any(|kind| site_name(b, *kind) == *name)
            });
            if !is_there {
                let expected = format!(
                    "blocks.N.query, key, value, proj or ffn, with N from 0 to {}",
                    layers - 1
                );
                let help = "`inspect` lists the layers of a model";
                return Err(config_error("growth: sites", expected, name, help));
            }
        }
        Ok(())
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

/// Grows `model` and compares its logits on `probe` before and after.
///
/// # Errors
/// [`crate::Error::Config`] for a growth that cannot be done or could never learn (the model is then unchanged);
/// [`crate::Error::GrowthMoved`] if the function should have been kept and was not (the model must then be
/// thrown away); memory.
pub fn grow(
    model: &mut Model,
    growth: &Growth,
    birth: Birth,
    probe: Probe<'_>,
) -> Result<GrowthReport> {
    let map = growth.map(model, birth)?;
    let before = model.config();
    let (old_logits, old_flops) = logits(model, probe)?;
    let measuring = map.apply(model, birth, probe)?;
    let (new_logits, new_flops) = logits(model, probe)?;
    let movement = report::Movement::between(&old_logits, &new_logits);
    movement.check(map.promise)?;
    Ok(GrowthReport {
        probe_flops: old_flops + measuring + new_flops,
        ..report::report(growth, birth, &map, &before, movement)
    })
}

/// Logits `[rows, V]` on the host, and the floating-point operations that they took.
fn logits(model: &Model, probe: Probe<'_>) -> Result<(Vec<f32>, u64)> {
    let device = model.device();
    let mut g = Graph::inference(device);
    let hidden = probe.features(model, &mut g)?;
    let logits = model.logits(&mut g, &hidden)?.to_host(&**device)?;
    Ok((logits, g.flops()))
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

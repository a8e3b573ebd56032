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
//! The released code's way (random keys and values, τ = √N of the grown site) is `joint`, `random`,
//! `random`, `sqrt-n`; it moves the function, and the report says how far.

use crate::config::{
    Anneal, MAX_LAYERS, MAX_SIZE, NormSpan, SegmentConfig, SiteConfig, SiteKind, Theta,
};
use crate::error::{Error, Result, config_error};
use crate::init;
use crate::model::{Builder, Model, fresh_weights, site_name};
use crate::site::Site;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How many tokens a site gains: `+512`, or `=2048` for a new total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many more.
    Add(usize),
    /// So many in all.
    To(usize),
}

impl Default for Amount {
    fn default() -> Self {
        Self::Add(0)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(n) => write!(f, "+{n}"),
            Self::To(n) => write!(f, "={n}"),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |digits: &str| {
            digits
                .parse()
                .map_err(|_| format!("\"{text}\" is neither +N nor =N with a whole number N"))
        };
        match text.split_at_checked(1) {
            Some(("+", digits)) => number(digits).map(Self::Add),
            Some(("=", digits)) => number(digits).map(Self::To),
            _ => Err(format!(
                "\"{text}\" is neither +N (more tokens) nor =N (a new total)"
            )),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// How the numbers of new tokens start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// All zero.
    Zero,
    /// As in a fresh model.
    Random,
}

/// What happens to the `τ` of a grown site under a joint norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TauRule {
    /// It stays.
    #[default]
    Pinned,
    /// It becomes the root of the new total at once, as in the released code.
    SqrtN,
    /// It moves there over so many training steps.
    Anneal(u64),
}

impl fmt::Display for TauRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::SqrtN => f.write_str("sqrt-n"),
            Self::Anneal(steps) => write!(f, "anneal:{steps}"),
        }
    }
}

impl FromStr for TauRule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.strip_prefix("anneal:").map(str::parse)) {
            ("pinned", _) => Ok(Self::Pinned),
            ("sqrt-n", _) => Ok(Self::SqrtN),
            (_, Some(Ok(steps))) if steps > 0 => Ok(Self::Anneal(steps)),
            _ => Err(format!(
                "\"{text}\" is none of pinned, sqrt-n, anneal:STEPS"
            )),
        }
    }
}

impl Serialize for TauRule {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TauRule {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

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
    /// Start of new keys; by default what keeps the function under the norm.
    pub keys: Option<Fill>,
    /// Start of new values; likewise.
    pub values: Option<Fill>,
    /// Span of the norm in grown sites; by default what the site has.
    pub norm: Option<NormSpan>,
    /// What happens to `τ`.
    pub tau: TauRule,
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

    fn fills(&self, norm: NormSpan) -> (Fill, Fill) {
        let (keys, values) = match norm {
            NormSpan::Joint => (Fill::Zero, Fill::Random),
            NormSpan::Segment => (Fill::Random, Fill::Zero),
        };
        (self.keys.unwrap_or(keys), self.values.unwrap_or(values))
    }

    /// Whether a site of this kind keeps its function exactly.
    fn preserves(&self, norm: NormSpan, theta: Theta) -> bool {
        let (keys, values) = self.fills(norm);
        match norm {
            NormSpan::Joint => {
                keys == Fill::Zero && self.tau != TauRule::SqrtN && theta != Theta::Softmax
            }
            NormSpan::Segment => values == Fill::Zero,
        }
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
}

/// When and from which random numbers new tokens are born.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Training stage that begins.
    pub stage: u32,
    /// Training steps done so far.
    pub step: u64,
    /// Seed of the run.
    pub seed: u64,
}

/// How one kind of site grew, added up over the blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteGrowth {
    /// Kind of site.
    pub site: SiteKind,
    /// Tokens per block before (of the first block).
    pub tokens_before: usize,
    /// Tokens per block after.
    pub tokens_after: usize,
    /// Parameters in all blocks before.
    pub params_before: u64,
    /// Parameters in all blocks after.
    pub params_after: u64,
}

/// What a growth did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrowthReport {
    /// Training stage that begins.
    pub stage: u32,
    /// Training step at which it happened.
    pub step: u64,
    /// What was asked for.
    pub growth: Growth,
    /// Parameters before.
    pub params_before: u64,
    /// Parameters after.
    pub params_after: u64,
    /// Blocks before.
    pub layers_before: usize,
    /// Blocks after.
    pub layers_after: usize,
    /// By kind of site.
    pub sites: Vec<SiteGrowth>,
    /// Whether the function was promised to stay the same.
    pub preserving: bool,
    /// Largest absolute difference of a logit on the probe tokens.
    pub max_logit_diff: f64,
    /// Root mean square of the logits' differences on the probe tokens, over that of the logits.
    pub relative_logit_diff: f64,
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
    let plan = Plan::new(model, growth)?;
    let before = model.config();
    let old_logits = model.infer(probe, batch)?;
    let device = Arc::clone(model.device());
    let mut config = model.config();
    plan.apply(&mut config, growth, birth);
    config.validate()?;

    if growth.freeze_old && plan.grows() {
        model
            .params_mut()
            .into_iter()
            .for_each(|p| p.trainable = false);
    }
    let mut next_id = *model.next_id_mut();
    for b in 0..config.layers() {
        let mut weights = |name: &str, shape: &[usize]| {
            new_weights(&config, growth, birth, name, shape, before.layers())
        };
        let mut builder = Builder {
            device: &device,
            next_id,
            weights: &mut weights,
            prepare: None,
        };
        if b >= before.layers() {
            let block = builder.block(b, &config.blocks[b], &config)?;
            model.blocks_vec_mut().push(block);
        } else {
            for kind in SiteKind::ALL {
                let wanted = config.blocks[b].site(kind);
                let site = model.blocks_mut()[b].site_mut(kind);
                let old = site.segments().len();
                for (s, segment) in wanted.segments.iter().enumerate().skip(old) {
                    let name = site_name(b, kind);
                    site.segments
                        .push(builder.segment(&name, s, segment, config.width)?);
                }
                settle(site, wanted);
            }
        }
        next_id = builder.next_id;
    }
    *model.next_id_mut() = next_id;
    device.clear();

    let new_logits = model.infer(probe, batch)?;
    let (max_logit_diff, relative_logit_diff) = difference(&old_logits, &new_logits);
    if plan.preserving && max_logit_diff != 0.0 {
        return Err(Error::GrowthMoved { max_logit_diff });
    }
    let after = model.config();
    let sites = SiteKind::ALL.map(|kind| {
        let tokens = |c: &crate::ModelConfig| c.blocks[0].site(kind).tokens();
        let params = |c: &crate::ModelConfig| -> u64 {
            let tokens: u64 = c.blocks.iter().map(|b| b.site(kind).tokens() as u64).sum();
            2 * c.width as u64 * tokens
        };
        SiteGrowth {
            site: kind,
            tokens_before: tokens(&before),
            tokens_after: tokens(&after),
            params_before: params(&before),
            params_after: params(&after),
        }
    });
    Ok(GrowthReport {
        stage: birth.stage,
        step: birth.step,
        growth: growth.clone(),
        params_before: before.params(),
        params_after: after.params(),
        layers_before: before.layers(),
        layers_after: after.layers(),
        sites: sites.into(),
        preserving: plan.preserving,
        max_logit_diff,
        relative_logit_diff,
    })
}

/// Parameters that `model` would have after `growth`; nothing is changed.
///
/// # Errors
/// As [`grow`].
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
/// As [`grow`].
pub fn config_after(model: &Model, growth: &Growth, birth: Birth) -> Result<crate::ModelConfig> {
    let mut config = model.config();
    Plan::new(model, growth)?.apply(&mut config, growth, birth);
    config.validate()?;
    Ok(config)
}

/// New tokens per block and kind, checked.
struct Plan {
    added: Vec<[usize; 5]>,
    layers: usize,
    preserving: bool,
}

impl Plan {
    fn new(model: &Model, growth: &Growth) -> Result<Self> {
        let config = model.config();
        let room = MAX_LAYERS.saturating_sub(config.layers());
        if growth.layers > room {
            let expected = format!("at most {room} more");
            let help = "is this the number you meant?";
            return Err(config_error(
                "growth of layers",
                expected,
                growth.layers,
                help,
            ));
        }
        let mut preserving = true;
        let mut added = Vec::new();
        for (b, block) in config.blocks.iter().enumerate() {
            let mut row = [0; 5];
            for (row, kind) in row.iter_mut().zip(SiteKind::ALL) {
                let site = block.site(kind);
                *row = new_tokens(site, growth.amount(kind), kind)?;
                if *row > 0 {
                    let norm = check_site(site, growth, &site_name(b, kind))?;
                    preserving &= growth.preserves(norm, config.theta);
                }
            }
            added.push(row);
        }
        Ok(Self {
            added,
            layers: growth.layers,
            preserving,
        })
    }

    fn grows(&self) -> bool {
        self.layers > 0 || self.added.iter().flatten().any(|&n| n > 0)
    }

    /// Writes the grown sites and blocks into `config`.
    fn apply(&self, config: &mut crate::ModelConfig, growth: &Growth, birth: Birth) {
        if growth.freeze_old && self.grows() {
            config.trunk_trainable = false;
            for block in &mut config.blocks {
                for kind in SiteKind::ALL {
                    let old = &mut block.site_mut(kind).segments;
                    old.iter_mut().for_each(|s| s.trainable = false);
                }
            }
        }
        for (block, added) in config.blocks.iter_mut().zip(&self.added) {
            for (kind, &added) in SiteKind::ALL.into_iter().zip(added) {
                if added > 0 {
                    grow_site(block.site_mut(kind), added, growth, birth);
                }
            }
        }
        let Some(last) = config.blocks.last().cloned() else {
            return;
        };
        let mut fresh = last;
        for kind in SiteKind::ALL {
            let site = fresh.site_mut(kind);
            *site = SiteConfig::fresh(site.tokens(), site.norm, birth.stage, birth.step);
        }
        config
            .blocks
            .extend(std::iter::repeat_n(fresh, self.layers));
    }
}

fn new_tokens(site: &SiteConfig, amount: Amount, kind: SiteKind) -> Result<usize> {
    let now = site.tokens();
    let added = match amount {
        Amount::Add(n) => Some(n),
        Amount::To(n) => n.checked_sub(now),
    };
    let (expected, help) = match added {
        Some(n) if n <= MAX_SIZE => return Ok(n),
        Some(_) => (
            format!("at most {MAX_SIZE} more tokens"),
            "is this the number you meant?",
        ),
        None => (
            format!("at least the {now} tokens that the site has"),
            "growing cannot take tokens away",
        ),
    };
    let field = format!("growth of {}", kind.name());
    Err(config_error(field, expected, amount, help))
}

/// The span of the norm that the grown site will have, if the growth is possible there.
fn check_site(site: &SiteConfig, growth: &Growth, name: &str) -> Result<NormSpan> {
    let norm = growth.norm.unwrap_or(site.norm);
    if norm != site.norm && site.segments.len() > 1 {
        let help = "a site of several segments keeps its norm: leave norm out";
        let (expected, got) = (format!("{:?}", site.norm), format!("{norm:?}"));
        return Err(config_error(
            format!("growth of {name}: norm"),
            expected,
            got,
            help,
        ));
    }
    match (growth.fills(norm), norm) {
        ((Fill::Zero, Fill::Zero), _) => Err(config_error(
            "growth: keys and values",
            "at least one of them random",
            "both zero",
            "tokens whose keys and values are all zero receive no gradient and never learn",
        )),
        ((Fill::Zero, _), NormSpan::Segment) => Err(config_error(
            "growth: keys",
            "random keys, with a norm per segment",
            "zero keys",
            "the scores of the new segment would all be zero and have no direction; use random keys \
             with zero values, or norm = joint",
        )),
        _ => Ok(norm),
    }
}

fn grow_site(site: &mut SiteConfig, added: usize, growth: &Growth, birth: Birth) {
    let norm = growth.norm.unwrap_or(site.norm);
    if norm != site.norm {
        // With one segment both spans are the same layer, if τ goes along.
        match norm {
            NormSpan::Segment => site.segments[0].tau = site.tau,
            NormSpan::Joint => site.tau = site.segments[0].tau,
        }
        site.norm = norm;
        site.anneal = None;
    }
    site.segments.push(SegmentConfig {
        tokens: added,
        tau: (added as f64).sqrt(),
        stage: birth.stage,
        born_step: birth.step,
        trainable: true,
        lr_scale: 1.0,
    });
    if norm == NormSpan::Joint {
        let to = (site.tokens() as f64).sqrt();
        match growth.tau {
            TauRule::Pinned => {}
            TauRule::SqrtN => (site.tau, site.anneal) = (to, None),
            TauRule::Anneal(steps) => {
                site.anneal = Some(Anneal {
                    from: site.tau,
                    to,
                    start_step: birth.step,
                    steps,
                });
            }
        }
    }
}

/// Brings a site's norm, `τ` and frozen segments to what its configuration says.
fn settle(site: &mut Site, config: &SiteConfig) {
    site.norm = config.norm;
    site.tau = config.tau;
    site.anneal.clone_from(&config.anneal);
    for (segment, config) in site.segments.iter_mut().zip(&config.segments) {
        segment.set_tau(config.tau);
        segment.set_trainable(config.trainable);
    }
}

fn new_weights(
    config: &crate::ModelConfig,
    growth: &Growth,
    birth: Birth,
    name: &str,
    shape: &[usize],
    old_layers: usize,
) -> Result<Vec<f32>> {
    let mut path = name.split('.');
    let block = path.nth(1).and_then(|b| b.parse().ok()).unwrap_or(0);
    let kind = path
        .next()
        .and_then(|k| SiteKind::ALL.into_iter().find(|s| s.name() == k));
    let (Some(kind), is_keys) = (kind, name.ends_with(".keys")) else {
        return fresh_weights(config, birth.seed, name, shape);
    };
    let len = shape.iter().product();
    let site: &SiteConfig = config.blocks[block].site(kind);
    let random = if block >= old_layers {
        // A new block starts by adding nothing to the residual stream.
        is_keys || !matches!(kind, SiteKind::Proj | SiteKind::Ffn)
    } else {
        let (keys, values) = growth.fills(site.norm);
        (if is_keys { keys } else { values }) == Fill::Random
    };
    let std = match (random, is_keys) {
        (false, _) => return init::constant_array(len, 0.0),
        (true, true) => init::key_std(config),
        (true, false) => init::value_std(config, site.tokens()),
    };
    init::normal_array(birth.seed, name, len, std)
}

/// Largest absolute difference, and RMS of the difference over RMS of `a`.
fn difference(a: &[f32], b: &[f32]) -> (f64, f64) {
    let diffs = || a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b));
    let max = diffs().fold(0.0, |m: f64, d| {
        if d.abs() > m || d.is_nan() {
            d.abs()
        } else {
            m
        }
    });
    let scale: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
    (
        max,
        (diffs().map(|d| d * d).sum::<f64>() / scale.max(f64::MIN_POSITIVE)).sqrt(),
    )
}

//! The configuration of a model: everything that is needed to rebuild it, apart from the weights.
//!
//! [`ModelConfig`] is stored as `config.json` in every model directory (`docs/formats.md`). It describes
//! each site with its segments, so a grown model needs no further information. A fresh one is made from a
//! [`ModelSpec`], the `[model]` table of a recipe.

use crate::device::Theta as KernelTheta;
use crate::error::{Error, Result, config_error};
use crate::version::Version;
use serde::{Deserialize, Serialize};

/// Version of the `config.json` format that this code writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The five Pattention sites of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteKind {
    /// Query projection.
    Query,
    /// Key projection.
    Key,
    /// Value projection.
    Value,
    /// Output projection.
    Proj,
    /// Feed-forward network.
    Ffn,
}

impl SiteKind {
    /// All five, in the order of files and reports.
    pub const ALL: [Self; 5] = [Self::Query, Self::Key, Self::Value, Self::Proj, Self::Ffn];

    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::Proj => "proj",
            Self::Ffn => "ffn",
        }
    }
}

/// The nonlinearity of a site; formulas in `tokenformer_kernels::pattention`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Theta {
    /// L2 norm, then GELU: the paper's choice.
    #[default]
    L2NormGelu,
    /// GELU, then L2 norm.
    GeluL2Norm,
    /// `τ²·softmax`.
    Softmax,
}

impl From<Theta> for KernelTheta {
    fn from(theta: Theta) -> Self {
        match theta {
            Theta::L2NormGelu => Self::L2NormGelu,
            Theta::GeluL2Norm => Self::GeluL2Norm,
            Theta::Softmax => Self::Softmax,
        }
    }
}

/// What a norm spans in a site of several segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormSpan {
    /// All tokens share one norm, as in the paper.
    #[default]
    Joint,
    /// Each segment has its own.
    Segment,
}

/// How positions enter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Positions {
    /// Rotary embedding on the first `fraction` of each head's channels.
    Rotary {
        /// Share of a head's channels that is rotated.
        fraction: f64,
        /// Base of the frequencies.
        base: f64,
    },
    /// None: only the causal mask tells positions apart.
    None,
}

/// The norm in front of the output head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FinalNorm {
    /// With gain and bias, as in the published language models.
    #[default]
    Affine,
    /// Without.
    Plain,
}

/// Factor of the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogitScale {
    /// 1, as in the published language models.
    #[default]
    One,
    /// 1/√width, as in the paper's growth study.
    InverseSqrtWidth,
}

/// How fresh tokens and embeddings are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// The released PyTorch code: keys and embedding N(0, 0.02²), values N(0, (2/(L·√D))²).
    #[default]
    Released,
    /// The paper's growth study: keys N(0, 1/D), values N(0, 1/N), embedding N(0, 1).
    FanIn,
}

/// Consecutive parameter tokens that were born together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentConfig {
    /// Tokens.
    pub tokens: usize,
    /// Scale used when the norm spans a segment.
    pub tau: f64,
    /// Training stage of birth, 0 for the first.
    pub stage: u32,
    /// Training step of birth.
    pub born_step: u64,
    /// Whether training changes it.
    pub trainable: bool,
    /// Factor of the learning rate.
    pub lr_scale: f32,
}

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

/// One Pattention site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConfig {
    /// What the norm spans.
    pub norm: NormSpan,
    /// Scale of the joint norm. Stored, never recomputed: see `docs/growth.md`.
    pub tau: f64,
    /// A change of `tau` that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anneal: Option<Anneal>,
    /// The tokens, in order.
    pub segments: Vec<SegmentConfig>,
}

impl SiteConfig {
    /// A fresh site of one segment with `τ = √tokens`.
    pub fn fresh(tokens: usize, norm: NormSpan, stage: u32, born_step: u64) -> Self {
        let tau = (tokens as f64).sqrt();
        let segment = SegmentConfig {
            tokens,
            tau,
            stage,
            born_step,
            trainable: true,
            lr_scale: 1.0,
        };
        Self {
            norm,
            tau,
            anneal: None,
            segments: vec![segment],
        }
    }

    /// Tokens of all segments.
    pub fn tokens(&self) -> usize {
        self.segments.iter().map(|s| s.tokens).sum()
    }
}

/// The sites of one block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BlockConfig {
    pub query: SiteConfig,
    pub key: SiteConfig,
    pub value: SiteConfig,
    pub proj: SiteConfig,
    pub ffn: SiteConfig,
}

impl BlockConfig {
    /// A site.
    pub fn site(&self, kind: SiteKind) -> &SiteConfig {
        match kind {
            SiteKind::Query => &self.query,
            SiteKind::Key => &self.key,
            SiteKind::Value => &self.value,
            SiteKind::Proj => &self.proj,
            SiteKind::Ffn => &self.ffn,
        }
    }

    /// A site, to change.
    pub fn site_mut(&mut self, kind: SiteKind) -> &mut SiteConfig {
        match kind {
            SiteKind::Query => &mut self.query,
            SiteKind::Key => &mut self.key,
            SiteKind::Value => &mut self.value,
            SiteKind::Proj => &mut self.proj,
            SiteKind::Ffn => &mut self.ffn,
        }
    }
}

/// A model's architecture, down to the segments of each site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Always `tokenformer`.
    pub format: String,
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// Tokens `V` of the vocabulary, padding included.
    pub vocab: usize,
    /// Width `D`.
    pub width: usize,
    /// Attention heads `H`; a head has `D/H` channels.
    pub heads: usize,
    /// Positions `T` that the model is trained for and can attend to.
    pub context: usize,
    /// Nonlinearity of all sites.
    pub theta: Theta,
    /// Added to the norm inside Theta.
    pub theta_eps: f64,
    /// ε of the LayerNorms.
    pub norm_eps: f64,
    /// How positions enter.
    pub positions: Positions,
    /// The last norm.
    pub final_norm: FinalNorm,
    /// Factor of the logits.
    pub logit_scale: LogitScale,
    /// How fresh tokens are drawn (growth uses it too).
    pub init: Init,
    /// Whether training changes the embedding and the final norm.
    pub trunk_trainable: bool,
    /// The blocks, first to last.
    pub blocks: Vec<BlockConfig>,
}

/// Largest value of any single size.
pub(crate) const MAX_SIZE: usize = 1 << 24;
/// Most blocks.
pub(crate) const MAX_LAYERS: usize = 1 << 14;
/// Most learnable numbers.
const MAX_PARAMS: u128 = 1 << 50;
/// Largest table of rotary angles, positions times rotated channels: 64 MB, made before any weight of as
/// many positions vouches for it.
const MAX_ANGLES: usize = 1 << 24;

impl ModelConfig {
    /// Reads and checks `config.json` text; `origin` names it in messages.
    ///
    /// # Errors
    /// [`Error::Format`] for an unknown version or key or malformed JSON, [`Error::Config`] for
    /// impossible settings.
    pub fn from_json(text: &str, origin: &str) -> Result<Self> {
        let format = |reason: String, help: &str| Error::Format {
            what: origin.into(),
            reason,
            help: help.into(),
        };
        // First alone, so that a later version is named as such and not by what it added.
        let Version(version) = serde_json::from_str(text)
            .map_err(|e| format(e.to_string(), "the file must be a JSON object"))?;
        if version != Some(FORMAT_VERSION.into()) {
            let got = version.map_or("no version".into(), |v| format!("version {v}"));
            let reason =
                format!("unknown format\n  expected: version {FORMAT_VERSION}\n  got:      {got}");
            return Err(format(
                reason,
                "use the program version that wrote this model",
            ));
        }
        let config: Self = serde_json::from_str(text)
            .map_err(|e| format(e.to_string(), "docs/formats.md lists the keys"))?;
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json`.
    pub fn to_json(&self) -> String {
        // Writing to memory fails for maps with other keys than strings alone, and there is no map in it.
        let mut text =
            serde_json::to_string_pretty(self).expect("plain data with string keys serialises");
        text.push('\n');
        text
    }

    /// Checks every setting and their relations; allocates nothing.
    ///
    /// # Errors
    /// [`Error::Config`] for the first contradiction.
    pub fn validate(&self) -> Result<()> {
        if self.format != "tokenformer" {
            let help = "is this a config.json of another program?";
            return Err(config_error(
                "format",
                "\"tokenformer\"",
                &self.format,
                help,
            ));
        }
        let sizes = [
            ("vocab", self.vocab, MAX_SIZE),
            ("width", self.width, MAX_SIZE),
            ("heads", self.heads, MAX_SIZE),
            ("context", self.context, MAX_SIZE),
            ("layers", self.blocks.len(), MAX_LAYERS),
        ];
        for (name, size, max) in sizes {
            check_size(name, size, max)?;
        }
        if !self.width.is_multiple_of(self.heads) {
            let help = "choose a width that is a multiple of the heads";
            let expected = format!("a divisor of the width {}", self.width);
            return Err(config_error("heads", expected, self.heads, help));
        }
        if let Positions::Rotary { fraction, base } = self.positions {
            if !(fraction > 0.0 && fraction <= 1.0) {
                let help = "0.25 is what the published models use; positions = none turns it off";
                return Err(config_error(
                    "positions.fraction",
                    "above 0, at most 1",
                    fraction,
                    help,
                ));
            }
            if !(base.is_finite() && base > 1.0) {
                let help = "10000 is what the published models use";
                return Err(config_error(
                    "positions.base",
                    "a number above 1",
                    base,
                    help,
                ));
            }
            let dims = self.rotary_dims();
            if dims == 0 || !dims.is_multiple_of(2) {
                let channels = self.width / self.heads;
                let expected = "an even number of rotated channels per head, at least 2";
                let got =
                    format!("{dims} (= {channels} channels per head x {fraction}, rounded down)");
                let help = "change the width, the heads or the fraction";
                return Err(config_error("positions.fraction", expected, got, help));
            }
            if self.context > MAX_ANGLES / dims {
                let expected = format!(
                    "at most {} positions, with {dims} rotated channels",
                    MAX_ANGLES / dims
                );
                let help = "choose a shorter context, or a smaller positions.fraction";
                return Err(config_error("context", expected, self.context, help));
            }
        }
        for (name, eps, max) in [
            ("theta_eps", self.theta_eps, 1e-3),
            ("norm_eps", self.norm_eps, 1.0),
        ] {
            if !(eps > 0.0 && eps <= max) {
                let expected = format!("above 0, at most {max}");
                return Err(config_error(name, expected, eps, "a small positive number"));
            }
        }
        for (b, block) in self.blocks.iter().enumerate() {
            for kind in SiteKind::ALL {
                validate_site(block.site(kind), &format!("blocks.{b}.{}", kind.name()))?;
            }
        }
        // Each size is small enough; so must be their products, which the counts below rely on.
        let tokens: u128 = self.site_tokens().map(|n| n as u128).sum();
        let params = self.width as u128 * (2 * tokens + self.vocab as u128);
        if params > MAX_PARAMS {
            let expected = format!("at most {MAX_PARAMS} learnable numbers");
            return Err(config_error(
                "model",
                expected,
                params,
                "are these the sizes you meant?",
            ));
        }
        Ok(())
    }

    /// Blocks `L`.
    pub fn layers(&self) -> usize {
        self.blocks.len()
    }

    /// Rotated channels per head; 0 without rotary positions.
    pub fn rotary_dims(&self) -> usize {
        match self.positions {
            Positions::Rotary { fraction, .. } => {
                ((self.width / self.heads) as f64 * fraction) as usize
            }
            Positions::None => 0,
        }
    }

    /// The factor of the logits.
    pub fn logit_factor(&self) -> f32 {
        match self.logit_scale {
            LogitScale::One => 1.0,
            LogitScale::InverseSqrtWidth => 1.0 / (self.width as f32).sqrt(),
        }
    }

    /// Learnable numbers in all key and value tokens: `2·D·ΣN`.
    pub fn body_params(&self) -> u64 {
        let tokens: u64 = self.site_tokens().map(|n| n as u64).sum();
        2 * self.width as u64 * tokens
    }

    /// Parameter tokens of each site.
    fn site_tokens(&self) -> impl Iterator<Item = usize> {
        let sites = |b| SiteKind::ALL.map(|kind| BlockConfig::site(b, kind).tokens());
        self.blocks.iter().flat_map(sites)
    }

    /// Learnable numbers in all: body, embedding (tied with the head) and final norm.
    pub fn params(&self) -> u64 {
        let norm = match self.final_norm {
            FinalNorm::Affine => 2 * self.width as u64,
            FinalNorm::Plain => 0,
        };
        self.body_params() + (self.vocab * self.width) as u64 + norm
    }

    /// Floating-point operations of one token's forward pass at context length `t`, two per
    /// multiply-add: `2·body + 4·L·D·t + 2·V·D` (paper, Table 3; no credit for the causal mask).
    pub fn forward_flops_per_token(&self, t: usize) -> f64 {
        let (d, v) = (self.width as f64, self.vocab as f64);
        let attention = 4.0 * self.layers() as f64 * d * t as f64;
        2.0 * self.body_params() as f64 + attention + 2.0 * v * d
    }
}

fn check_size(name: &str, size: usize, max: usize) -> Result<()> {
    if size == 0 || size > max {
        let expected = format!("between 1 and {max}");
        return Err(config_error(
            name,
            expected,
            size,
            "is this the number you meant?",
        ));
    }
    Ok(())
}

fn validate_site(site: &SiteConfig, name: &str) -> Result<()> {
    let positive = |field: String, value: f64| {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        Err(config_error(
            field,
            "a positive number",
            value,
            "a fresh site has the root of its tokens",
        ))
    };
    positive(format!("{name}.tau"), site.tau)?;
    if let Some(anneal) = &site.anneal {
        positive(format!("{name}.anneal.from"), anneal.from)?;
        positive(format!("{name}.anneal.to"), anneal.to)?;
    }
    check_size(&format!("{name}.segments"), site.segments.len(), 1 << 16)?;
    for (s, segment) in site.segments.iter().enumerate() {
        let name = format!("{name}.segments.{s}");
        check_size(&format!("{name}.tokens"), segment.tokens, MAX_SIZE)?;
        positive(format!("{name}.tau"), segment.tau)?;
        if !(segment.lr_scale.is_finite() && segment.lr_scale >= 0.0) {
            let help = "1 is the usual factor of the learning rate";
            let field = format!("{name}.lr_scale");
            return Err(config_error(
                field,
                "a number from 0 on",
                segment.lr_scale,
                help,
            ));
        }
    }
    Ok(())
}

/// Parameter tokens per site of a fresh model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// Of query, key and value each.
    pub qkv: usize,
    /// Of the output projection.
    pub proj: usize,
    /// Of the feed-forward network.
    pub ffn: usize,
}

/// A fresh model, before any growth: the `[model]` table of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Tokens of the vocabulary; 0 takes the tokenizer's.
    pub vocab: usize,
    /// Width `D`.
    pub width: usize,
    /// Blocks `L`.
    pub layers: usize,
    /// Attention heads `H`.
    pub heads: usize,
    /// Positions `T`.
    pub context: usize,
    /// Parameter tokens per site.
    pub slots: Slots,
    /// Nonlinearity.
    pub theta: Theta,
    /// Span of the norms.
    pub norm: NormSpan,
    /// How positions enter.
    pub positions: Positions,
    /// The last norm.
    pub final_norm: FinalNorm,
    /// Factor of the logits.
    pub logit_scale: LogitScale,
    /// How weights are drawn.
    pub init: Init,
}

impl ModelSpec {
    /// The configuration of the fresh model.
    ///
    /// # Errors
    /// [`Error::Config`] for impossible settings.
    pub fn build(&self) -> Result<ModelConfig> {
        check_size("layers", self.layers, MAX_LAYERS)?;
        let site = |tokens| SiteConfig::fresh(tokens, self.norm, 0, 0);
        let block = BlockConfig {
            query: site(self.slots.qkv),
            key: site(self.slots.qkv),
            value: site(self.slots.qkv),
            proj: site(self.slots.proj),
            ffn: site(self.slots.ffn),
        };
        let config = ModelConfig {
            format: "tokenformer".into(),
            version: FORMAT_VERSION,
            vocab: self.vocab,
            width: self.width,
            heads: self.heads,
            context: self.context,
            theta: self.theta,
            theta_eps: 1e-6,
            norm_eps: 1e-5,
            positions: self.positions,
            final_norm: self.final_norm,
            logit_scale: self.logit_scale,
            init: self.init,
            trunk_trainable: true,
            blocks: vec![block; self.layers],
        };
        config.validate()?;
        Ok(config)
    }
}

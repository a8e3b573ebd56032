//! The layers of a block: Pattention sites, linear projections, MLPs.

use crate::path::SiteKind;
use serde::{Deserialize, Serialize};
use tokenformer_device::{NormSpan, Theta};

/// Consecutive parameter tokens that were born together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentConfig {
    /// Number of the segment within its site, never used again. Arrays are named by it.
    pub id: u32,
    /// Parameter tokens.
    pub tokens: usize,
    /// Scale used when the norm spans a segment.
    pub tau: f64,
    /// Training stage of birth, 0 for the first.
    #[serde(default)]
    pub stage: u32,
    /// Training step of birth.
    #[serde(default)]
    pub born_step: u64,
}

/// One Pattention site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConfig {
    /// Nonlinearity.
    #[serde(default)]
    pub theta: Theta,
    /// Added to the norm inside Theta.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// What the norm spans.
    pub norm: NormSpan,
    /// Scale of the joint norm. Stored, never recomputed: see `docs/growth.md`.
    pub tau: f64,
    /// The tokens, in order.
    pub segments: Vec<SegmentConfig>,
}

fn default_eps() -> f64 {
    SiteConfig::EPS
}

impl SiteConfig {
    /// The usual ε. The published weights were made without one; it moves no logit by more than 3e-6.
    pub const EPS: f64 = 1e-6;

    /// A fresh site of one segment with `τ = √tokens`.
    pub fn fresh(tokens: usize, theta: Theta, norm: NormSpan, stage: u32, born_step: u64) -> Self {
        let tau = (tokens as f64).sqrt();
        let segment = SegmentConfig {
            id: 0,
            tokens,
            tau,
            stage,
            born_step,
        };
        Self {
            theta,
            eps: Self::EPS,
            norm,
            tau,
            segments: vec![segment],
        }
    }

    /// Parameter tokens of all segments.
    pub fn tokens(&self) -> usize {
        self.segments.iter().map(|s| s.tokens).sum()
    }

    /// A number that no segment of the site has had.
    pub fn next_id(&self) -> u32 {
        self.segments.iter().map(|s| s.id + 1).max().unwrap_or(0)
    }
}

/// What maps a row of a block to a row: a Pattention site, or one of the layers that it replaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LayerConfig {
    /// `Θ(X·Kᵀ)·V`.
    Pattention(SiteConfig),
    /// `X·Wᵀ`, plus a bias.
    Linear {
        /// Whether there is a bias.
        #[serde(default)]
        bias: bool,
    },
    /// `gelu(X·W₁ᵀ)·W₂ᵀ`, plus biases; and the same of every part that it has grown by, added up.
    Mlp {
        /// Width between the two projections, of what was there first.
        hidden: usize,
        /// Whether there are biases.
        #[serde(default)]
        bias: bool,
        /// Hidden units that came later, oldest first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<MlpPart>,
    },
}

/// Hidden units of an MLP that were born together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpPart {
    /// Number of the part within its MLP, from 1 on. Arrays are named by it.
    pub id: u32,
    /// Hidden units.
    pub hidden: usize,
    /// Training stage of birth.
    pub stage: u32,
    /// Training step of birth.
    pub born_step: u64,
}

impl LayerConfig {
    /// The site, if it is one.
    pub fn site(&self) -> Option<&SiteConfig> {
        match self {
            Self::Pattention(site) => Some(site),
            Self::Linear { .. } | Self::Mlp { .. } => None,
        }
    }

    /// The site, to change.
    pub fn site_mut(&mut self) -> Option<&mut SiteConfig> {
        match self {
            Self::Pattention(site) => Some(site),
            Self::Linear { .. } | Self::Mlp { .. } => None,
        }
    }

    /// Numbers per row between the layer's two products: parameter tokens of a site, hidden width of an MLP.
    pub fn hidden(&self) -> usize {
        match self {
            Self::Pattention(site) => site.tokens(),
            Self::Linear { .. } => 0,
            Self::Mlp { hidden, parts, .. } => {
                let parts = parts.iter().map(|part| part.hidden);
                parts.fold(*hidden, usize::saturating_add)
            }
        }
    }

    /// Learnable numbers of the layer in a model of this width.
    pub fn params(&self, width: usize) -> u64 {
        let (d, hidden) = (width as u64, self.hidden() as u64);
        let biases = match self {
            Self::Linear { bias: true } => d,
            Self::Mlp { bias: true, .. } => d + hidden,
            _ => 0,
        };
        self.matrix_params(width) + biases
    }

    /// Numbers of the layer's matrices: the multiply-adds of a row.
    pub fn matrix_params(&self, width: usize) -> u64 {
        let (d, hidden) = (width as u64, self.hidden() as u64);
        match self {
            Self::Pattention(_) | Self::Mlp { .. } => 2 * d * hidden,
            Self::Linear { .. } => d * d,
        }
    }
}

/// The layers of one block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BlockConfig {
    /// Training stage in which the block was added, or got another width; 0 for the first.
    #[serde(default, skip_serializing_if = "is_first")]
    pub stage: u32,
    pub query: LayerConfig,
    pub key: LayerConfig,
    pub value: LayerConfig,
    pub proj: LayerConfig,
    pub ffn: LayerConfig,
}

fn is_first(stage: &u32) -> bool {
    *stage == 0
}

impl BlockConfig {
    /// A layer.
    pub fn layer(&self, kind: SiteKind) -> &LayerConfig {
        match kind {
            SiteKind::Query => &self.query,
            SiteKind::Key => &self.key,
            SiteKind::Value => &self.value,
            SiteKind::Proj => &self.proj,
            SiteKind::Ffn => &self.ffn,
        }
    }

    /// A layer, to change.
    pub fn layer_mut(&mut self, kind: SiteKind) -> &mut LayerConfig {
        match kind {
            SiteKind::Query => &mut self.query,
            SiteKind::Key => &mut self.key,
            SiteKind::Value => &mut self.value,
            SiteKind::Proj => &mut self.proj,
            SiteKind::Ffn => &mut self.ffn,
        }
    }

    /// All layers, in the order of [`SiteKind::ALL`].
    pub fn layers(&self) -> [&LayerConfig; 5] {
        SiteKind::ALL.map(|kind| self.layer(kind))
    }

    /// A layer, if it is a Pattention site.
    pub fn site(&self, kind: SiteKind) -> Option<&SiteConfig> {
        self.layer(kind).site()
    }

    /// A layer, to change, if it is a Pattention site.
    pub fn site_mut(&mut self, kind: SiteKind) -> Option<&mut SiteConfig> {
        self.layer_mut(kind).site_mut()
    }
}

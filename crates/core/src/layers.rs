//! The layers of a block: norms, linear projections, MLPs, Pattention sites.

use crate::config::{LayerConfig, MlpPart};
use crate::graph::Graph;
use crate::param::Param;
use crate::site::Site;
use crate::tensor::Tensor;
use tokenformer_device::Result;

/// A LayerNorm.
#[derive(Debug)]
pub struct Norm {
    pub(crate) affine: Option<[Param; 2]>,
    pub(crate) eps: f32,
}

impl Norm {
    pub(crate) fn forward<'m>(&'m self, g: &mut Graph<'m>, x: &Tensor) -> Result<Tensor> {
        let affine = self.affine.as_ref().map(|[gain, bias]| [gain, bias]);
        g.layer_norm(x, affine, self.eps)
    }
}

/// A linear projection `X·Wᵀ + b`.
#[derive(Debug)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Param,
    /// `[outputs]`.
    pub bias: Option<Param>,
}

impl Linear {
    pub(crate) fn forward<'m>(&'m self, g: &mut Graph<'m>, x: Tensor) -> Result<Tensor> {
        g.linear(x, &self.weight, self.bias.as_ref())
    }

    fn params(&self) -> impl Iterator<Item = &Param> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    fn params_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        std::iter::once(&mut self.weight).chain(&mut self.bias)
    }
}

/// `gelu(X·W₁ᵀ + b₁)·W₂ᵀ + b₂`.
fn mlp<'m>(g: &mut Graph<'m>, x: Tensor, up: &'m Linear, down: &'m Linear) -> Result<Tensor> {
    let hidden = up.forward(g, x)?;
    let hidden = g.gelu(hidden)?;
    down.forward(g, hidden)
}

/// What maps a row of a block to a row.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are five of them in a block"
)]
pub enum Layer {
    /// `Θ(X·Kᵀ)·V`: the TokenFormer.
    Pattention(Site),
    /// `X·Wᵀ + b`: a projection of a plain Transformer.
    Linear(Linear),
    /// `gelu(X·W₁ᵀ + b₁)·W₂ᵀ + b₂`: the feed-forward network of a plain Transformer.
    Mlp {
        /// From the width to the hidden width.
        up: Linear,
        /// Back.
        down: Linear,
        /// Hidden units that were added later, oldest first. Their outputs are added one after the other, so that a
        /// part that gives zero changes no bit.
        parts: Vec<Part>,
    },
}

/// Hidden units of an MLP that were added together: `gelu(X·W₁ᵀ + b₁)·W₂ᵀ`.
#[derive(Debug)]
pub struct Part {
    pub(crate) config: MlpPart,
    /// From the width to the part's hidden width.
    pub up: Linear,
    /// Back, without a bias.
    pub down: Linear,
}

impl Layer {
    /// `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn forward<'m>(&'m self, g: &mut Graph<'m>, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Pattention(site) => g.pattention(x, site),
            Self::Linear(linear) => linear.forward(g, x),
            Self::Mlp { up, down, parts } => {
                let newest = g.newest_stage();
                let is_used =
                    |part: &&Part| newest.is_none_or(|newest| part.config.stage <= newest);
                let used = parts.iter().take_while(is_used).count();
                let Some((last, parts)) = parts[..used].split_last() else {
                    return mlp(g, x, up, down);
                };
                let mut y = mlp(g, x.clone(), up, down)?;
                for part in parts {
                    let more = mlp(g, x.clone(), &part.up, &part.down)?;
                    y = g.add(y, more)?;
                }
                let more = mlp(g, x, &last.up, &last.down)?;
                g.add(y, more)
            }
        }
    }

    /// One input through three layers, at once if all of them are sites.
    pub(crate) fn forward_three<'m>(
        layers: [&'m Self; 3],
        g: &mut Graph<'m>,
        x: Tensor,
    ) -> Result<[Tensor; 3]> {
        if let [
            Self::Pattention(a),
            Self::Pattention(b),
            Self::Pattention(c),
        ] = layers
        {
            return g.pattention_group(x, [a, b, c]);
        }
        let [a, b, c] = layers;
        let (a, b) = (a.forward(g, x.clone())?, b.forward(g, x.clone())?);
        Ok([a, b, c.forward(g, x)?])
    }

    /// Its description.
    pub fn config(&self) -> LayerConfig {
        match self {
            Self::Pattention(site) => LayerConfig::Pattention(site.config()),
            Self::Linear(linear) => LayerConfig::Linear {
                bias: linear.bias.is_some(),
            },
            Self::Mlp { up, parts, .. } => LayerConfig::Mlp {
                hidden: up.weight.shape()[0],
                bias: up.bias.is_some(),
                parts: parts.iter().map(|part| part.config.clone()).collect(),
            },
        }
    }

    /// The site, if it is one.
    pub fn site(&self) -> Option<&Site> {
        match self {
            Self::Pattention(site) => Some(site),
            Self::Linear(_) | Self::Mlp { .. } => None,
        }
    }

    /// The site, mutable, if it is one.
    pub fn site_mut(&mut self) -> Option<&mut Site> {
        match self {
            Self::Pattention(site) => Some(site),
            Self::Linear(_) | Self::Mlp { .. } => None,
        }
    }

    /// Its arrays, in the order of files.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        let segments = self.site().into_iter().flat_map(Site::segments);
        let (first, second, parts): (_, _, &[Part]) = match self {
            Self::Pattention(_) => (None, None, &[]),
            Self::Linear(linear) => (Some(linear), None, &[]),
            Self::Mlp { up, down, parts } => (Some(up), Some(down), parts),
        };
        let parts = parts.iter().flat_map(|part| [&part.up, &part.down]);
        let linears = first.into_iter().chain(second).chain(parts);
        segments
            .flat_map(|s| [&s.keys, &s.values])
            .chain(linears.flat_map(Linear::params))
    }

    /// Its arrays, mutable.
    pub fn params_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        let (segments, first, second, parts): (&mut [_], _, _, &mut [Part]) = match self {
            Self::Pattention(site) => (site.segments_mut(), None, None, &mut []),
            Self::Linear(linear) => (&mut [], Some(linear), None, &mut []),
            Self::Mlp { up, down, parts } => (&mut [], Some(up), Some(down), parts),
        };
        let parts = parts
            .iter_mut()
            .flat_map(|part| [&mut part.up, &mut part.down]);
        let linears = first.into_iter().chain(second).chain(parts);
        segments
            .iter_mut()
            .flat_map(|s| [&mut s.keys, &mut s.values])
            .chain(linears.flat_map(Linear::params_mut))
    }
}

//! The layers of a block: norms, linear projections, MLPs, Pattention sites.

use crate::config::LayerConfig;
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
    fn forward<'m>(&'m self, g: &mut Graph<'m>, x: Tensor) -> Result<Tensor> {
        g.linear(x, &self.weight, self.bias.as_ref())
    }

    fn params(&self) -> impl Iterator<Item = &Param> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    fn params_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        std::iter::once(&mut self.weight).chain(&mut self.bias)
    }
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
    },
}

impl Layer {
    /// `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn forward<'m>(&'m self, g: &mut Graph<'m>, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Pattention(site) => g.pattention(x, site),
            Self::Linear(linear) => linear.forward(g, x),
            Self::Mlp { up, down } => {
                let hidden = up.forward(g, x)?;
                let hidden = g.gelu(hidden)?;
                down.forward(g, hidden)
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
            Self::Mlp { up, .. } => LayerConfig::Mlp {
                hidden: up.weight.shape()[0],
                bias: up.bias.is_some(),
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

    /// The site, to change, if it is one.
    pub fn site_mut(&mut self) -> Option<&mut Site> {
        match self {
            Self::Pattention(site) => Some(site),
            Self::Linear(_) | Self::Mlp { .. } => None,
        }
    }

    /// Its arrays, in the order of files.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        let segments = self.site().into_iter().flat_map(Site::segments);
        let (first, second) = match self {
            Self::Pattention(_) => (None, None),
            Self::Linear(linear) => (Some(linear), None),
            Self::Mlp { up, down } => (Some(up), Some(down)),
        };
        segments
            .flat_map(|s| [&s.keys, &s.values])
            .chain(first.into_iter().chain(second).flat_map(Linear::params))
    }

    /// Its arrays, to change.
    pub fn params_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        let (segments, first, second): (&mut [_], _, _) = match self {
            Self::Pattention(site) => (site.segments_mut(), None, None),
            Self::Linear(linear) => (&mut [], Some(linear), None),
            Self::Mlp { up, down } => (&mut [], Some(up), Some(down)),
        };
        segments
            .iter_mut()
            .flat_map(|s| [&mut s.keys, &mut s.values])
            .chain(first.into_iter().chain(second).flat_map(Linear::params_mut))
    }
}

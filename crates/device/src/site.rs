//! A Pattention site: its nonlinearity, its norm and its parameter tokens, as used by operations.

use crate::Buffer;
use serde::{Deserialize, Serialize};

/// The nonlinearity `Θ` along the parameter tokens of a row (paper, section 3.2 and table 4). With scores `a` of
/// a row, and `‖·‖` the L2 norm and `‖·‖₁` the L1 norm over a group of tokens ([`NormSpan`]):
///
/// | | weights |
/// |---|---|
/// | [`Theta::L2NormGelu`] | `gelu(τ·a / (‖a‖ + ε))`, the paper's choice |
/// | [`Theta::L1NormGelu`] | `gelu(τ²·a / (‖a‖₁ + ε))`: with `τ² = N` the mean of `\|a\|` becomes 1, as its mean square does above |
/// | [`Theta::GeluL2Norm`] | `τ·gelu(a) / (‖gelu(a)‖ + ε)` |
/// | [`Theta::Softmax`] | `τ²·softmax(a)` |
/// | [`Theta::Gelu`] | `gelu(a)`: the site is a plain two-layer MLP without biases |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Theta {
    /// L2 normalisation, then exact GELU.
    #[default]
    L2NormGelu,
    /// L1 normalisation, then exact GELU: the middle row of the paper's table 4.
    L1NormGelu,
    /// Exact GELU, then L2 normalisation.
    GeluL2Norm,
    /// Softmax times `τ²`.
    Softmax,
    /// Exact GELU without a norm; `τ` is not used.
    Gelu,
}

impl Theta {
    /// All nonlinearities.
    pub const ALL: [Self; 5] = [
        Self::L2NormGelu,
        Self::GeluL2Norm,
        Self::Softmax,
        Self::Gelu,
        Self::L1NormGelu,
    ];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2NormGelu => "l2-norm-gelu",
            Self::L1NormGelu => "l1-norm-gelu",
            Self::GeluL2Norm => "gelu-l2-norm",
            Self::Softmax => "softmax",
            Self::Gelu => "gelu",
        }
    }

    /// Whether tokens with zero scores contribute neither to the output nor to the norm.
    pub fn ignores_zero_scores(self) -> bool {
        !matches!(self, Self::Softmax)
    }
}

impl std::fmt::Display for Theta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The tokens that a norm spans in a site with several segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormSpan {
    /// All tokens share one norm and the site's `τ`, as in the paper.
    #[default]
    Joint,
    /// Each segment has a separate norm and a separate `τ`.
    Segment,
}

/// Consecutive parameter tokens of a site that were added together. `W` is a matrix: a buffer of a device, or numbers
/// in memory.
#[derive(Clone, Copy, Debug)]
pub struct Segment<W> {
    /// Keys `[N_s, D_in]`.
    pub keys: W,
    /// Values `[N_s, D_out]`.
    pub values: W,
    /// Parameter tokens `N_s`.
    pub tokens: usize,
    /// Scale under [`NormSpan::Segment`].
    pub tau: f32,
}

/// A Pattention site `Y = Θ(X·Kᵀ)·V` whose tokens are in an ordered list of segments.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a, W> {
    /// Nonlinearity.
    pub theta: Theta,
    /// Span of the norm.
    pub norm: NormSpan,
    /// Scale under [`NormSpan::Joint`].
    pub tau: f32,
    /// Added to each norm.
    pub eps: f32,
    /// The tokens, oldest segment first.
    pub segments: &'a [Segment<W>],
}

/// A site whose matrices are buffers of a device.
pub type SiteRef<'a> = Site<'a, &'a Buffer>;

/// Gradients of a segment's keys and values, which are added to; `None` if the segment is frozen.
pub type SegmentGradient<'a> = Option<[&'a mut Buffer; 2]>;

/// Sizes of a Pattention: `rows` inputs of width `d_in` give outputs of width `d_out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteDims {
    /// Rows `R`.
    pub rows: usize,
    /// Width of the input.
    pub d_in: usize,
    /// Width of the output.
    pub d_out: usize,
}

impl<W> Site<'_, W> {
    /// Parameter tokens `N` of all segments.
    pub fn tokens(&self) -> usize {
        self.segments.iter().map(|s| s.tokens).sum()
    }

    /// Norms per row: 1 under [`NormSpan::Joint`], the number of segments under [`NormSpan::Segment`].
    pub fn groups(&self) -> usize {
        match self.norm {
            NormSpan::Joint => 1,
            NormSpan::Segment => self.segments.len(),
        }
    }

    /// The segments of a norm group, and its `τ`.
    pub fn group(&self, group: usize) -> (std::ops::Range<usize>, f32) {
        match self.norm {
            NormSpan::Joint => (0..self.segments.len(), self.tau),
            NormSpan::Segment => (group..group + 1, self.segments[group].tau),
        }
    }

    /// First column of a segment in scores `[R, N]`.
    pub fn offset(&self, segment: usize) -> usize {
        self.segments[..segment].iter().map(|s| s.tokens).sum()
    }

    /// Columns of a segment in scores `[R, N]`.
    pub fn columns(&self, segment: usize) -> std::ops::Range<usize> {
        let start = self.offset(segment);
        start..start + self.segments[segment].tokens
    }
}

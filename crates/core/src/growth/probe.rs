//! What a model is shown before and after a growth.

use crate::error::Result;
use crate::graph::Graph;
use crate::model::Model;
use crate::tensor::Tensor;

/// Inputs on which a growth compares the outputs before and after, and measures scores.
#[derive(Clone, Copy, Debug)]
pub enum Probe<'a> {
    /// Tokens for a language model.
    Tokens {
        /// `[batch, T]`.
        tokens: &'a [u32],
        /// Sequences.
        batch: usize,
    },
    /// Images for an image model.
    Images {
        /// `[batch, C, H, W]`.
        pixels: &'a [f32],
        /// Images.
        batch: usize,
    },
}

impl<'a> Probe<'a> {
    /// One sequence of tokens.
    pub fn text(tokens: &'a [u32]) -> Self {
        Self::Tokens { tokens, batch: 1 }
    }

    /// What the head reads of the inputs: `[batch, T, D]`, or `[batch, 1, D]` of images.
    pub(super) fn features<'m>(self, model: &'m Model, g: &mut Graph<'m>) -> Result<Tensor> {
        match self {
            Self::Tokens { tokens, batch } => model.hidden(g, tokens, batch, None),
            Self::Images { pixels, batch } => model.pooled(g, pixels, batch),
        }
    }
}

//! Sequences of different lengths in one pass, each with a separate cache: the weights are read once for all.

use super::Model;
use crate::cache::{Cache, EachCache};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::input_layer::InputLayer;
use crate::tensor::Tensor;
use std::sync::Arc;

/// New tokens of a sequence.
#[derive(Debug)]
pub struct Feed<'a> {
    /// What the sequence has seen.
    pub cache: &'a mut Cache,
    /// The tokens that follow, at least one.
    pub tokens: &'a [u32],
}

impl Model {
    /// Hidden states `[1, R, D]` after the final norm for the new tokens of each sequence, one sequence after the other.
    /// The caches take the tokens in.
    ///
    /// Everything but the attention between tokens is computed for all rows at once, and that for each sequence by
    /// itself: what a sequence gets does not depend on the others, on the CPU to the last bit.
    ///
    /// # Errors
    /// If the model reads images, a token is not in the vocabulary, a cache is full, or the device fails; the caches then stay as they were.
    ///
    /// # Panics
    /// If there is no sequence, one has no new token, or a cache holds more than one sequence.
    pub fn hidden_each<'m>(&'m self, g: &mut Graph<'m>, feeds: &mut [Feed<'_>]) -> Result<Tensor> {
        let InputLayer::Tokens(input_layer) = &self.input_layer else {
            let (expected, got) = ("images", "tokens");
            return Err(Error::OtherInput { expected, got });
        };
        assert!(!feeds.is_empty(), "at least one sequence");
        for feed in &mut *feeds {
            assert!(!feed.tokens.is_empty() && feed.cache.batch() == 1);
            self.check_tokens(feed.tokens)?;
            let needed = feed.cache.len() + feed.tokens.len();
            if needed > feed.cache.capacity() {
                return Err(Error::ContextFull {
                    context: feed.cache.capacity(),
                    needed,
                });
            }
        }
        let tokens: Vec<u32> = feeds.iter().flat_map(|f| f.tokens).copied().collect();
        let positions = |f: &Feed<'_>| f.cache.len()..f.cache.len() + f.tokens.len();
        let positions: Vec<u32> = (feeds.iter().flat_map(positions))
            .map(|position| position as u32)
            .collect();
        let mut h = input_layer.forward_at(g, &tokens, &positions)?;
        let rotary = match &self.attend.rotary {
            Some(table) if feeds.len() > 1 => Some(Arc::new(g.rotary_at(table, &positions)?)),
            _ => None,
        };
        for (b, block) in self.blocks.iter().enumerate() {
            let mut past = EachCache {
                sequences: (feeds.iter_mut())
                    .map(|feed| (feed.cache.layer(b), feed.tokens.len()))
                    .collect(),
                rotary: rotary.as_ref(),
            };
            h = block.forward(g, &self.attend, b, h, Some(&mut past))?;
        }
        for feed in feeds {
            feed.cache.advance(feed.tokens.len());
        }
        Ok(self.final_norm.forward(g, &h)?)
    }

    /// As [`Model::hidden_each`], in a graph for inference; `logits` become those of `rows` of the hidden states, `[rows.len(), V]`.
    ///
    /// # Errors
    /// As [`Model::hidden_each`].
    pub fn logits_each<'m>(
        &'m self,
        g: &mut Graph<'m>,
        feeds: &mut [Feed<'_>],
        rows: &[u32],
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        let hidden = self.hidden_each(g, feeds)?;
        logits.resize(rows.len() * self.vocab(), 0.0);
        if !rows.is_empty() {
            let hidden = g.select_rows(&hidden, rows)?;
            self.logits(g, &hidden)?.read(&*self.device, logits)?;
        }
        Ok(())
    }
}

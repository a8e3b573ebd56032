//! Which parameter tokens a position uses.

use super::Model;
use crate::config::SiteKind;
use crate::error::{Error, Result};
use crate::graph::Graph;

/// The weights of a site's parameter tokens at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenWeights {
    /// The block of the site.
    pub block: usize,
    /// Its place in the block.
    pub kind: SiteKind,
    /// Growth stage of birth of each token, of those that took part.
    pub stages: Vec<u32>,
    /// `Θ(x·Kᵀ)`: the factor of each token's value in the output of the site.
    pub weights: Vec<f32>,
}

impl Model {
    /// The weights of all parameter tokens for the last of `tokens` `[T]`, site by site; of stages up to `newest_stage`, if one
    /// is given. A plain Transformer has none.
    ///
    /// # Errors
    /// If there are no tokens, they are more than the context, one is not in the vocabulary, or the device fails.
    pub fn fired(&self, tokens: &[u32], newest_stage: Option<u32>) -> Result<Vec<TokenWeights>> {
        if tokens.is_empty() || tokens.len() > self.context() {
            return Err(Error::ContextFull {
                context: self.context(),
                needed: tokens.len(),
            });
        }
        let mut g = Graph::inference(&self.device)
            .until_stage(newest_stage)
            .watching(false, false);
        self.hidden(&mut g, tokens, 1, None)?;
        let watched = g.into_watched().map_or(Vec::new(), |seen| seen.sites);
        let weights_of = |site| {
            let seen = watched.iter().find(|(seen, _)| std::ptr::eq(*seen, site));
            seen.map(|(_, seen)| seen.weights.clone())
        };
        let mut fired = Vec::new();
        for (block, layers) in self.blocks.iter().enumerate() {
            for (kind, layer) in layers.layers() {
                let Some(site) = layer.site() else { continue };
                let Some(weights) = weights_of(site) else {
                    continue;
                };
                let segments = site.segments().iter().map(|segment| segment.config());
                let used = segments.filter(|s| newest_stage.is_none_or(|newest| s.stage <= newest));
                let stages = used
                    .flat_map(|s| std::iter::repeat_n(s.stage, s.tokens))
                    .collect();
                fired.push(TokenWeights {
                    block,
                    kind,
                    stages,
                    weights,
                });
            }
        }
        Ok(fired)
    }
}

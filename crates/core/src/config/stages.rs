//! The stages of a grown model, of which the first few can be computed by themselves.

use super::{BlockConfig, LayerConfig, ModelConfig, NormSpan};
use std::collections::BTreeSet;

impl LayerConfig {
    /// Removes what was born after `newest`; `None` if the rest would compute something else than it did within the
    /// whole, or nothing is left.
    fn until_stage(&self, newest: u32) -> Option<Self> {
        let mut layer = self.clone();
        match &mut layer {
            Self::Pattention(site) => {
                let all = site.segments.len();
                site.segments.retain(|segment| segment.stage <= newest);
                let is_whole = site.segments.len() == all;
                // A joint norm and its scale are those of all tokens together.
                let is_contained = !site.segments.is_empty() && site.norm == NormSpan::Segment;
                (is_whole || is_contained).then_some(layer)
            }
            Self::Linear { .. } => Some(layer),
            Self::Mlp { parts, .. } => {
                parts.retain(|part| part.stage <= newest);
                Some(layer)
            }
        }
    }
}

impl ModelConfig {
    /// The stages in which its blocks, parameter tokens, and parts of its MLPs were born, oldest first. A stage that added
    /// none of them is not among them.
    pub fn stages(&self) -> Vec<u32> {
        let of_layer = |layer: &LayerConfig| -> Vec<u32> {
            match layer {
                LayerConfig::Pattention(site) => site.segments.iter().map(|s| s.stage).collect(),
                LayerConfig::Linear { .. } => Vec::new(),
                LayerConfig::Mlp { parts, .. } => parts.iter().map(|part| part.stage).collect(),
            }
        };
        let of_block = |block: &BlockConfig| {
            let layers = block.layers().into_iter().flat_map(of_layer);
            layers.chain([block.stage]).collect::<Vec<_>>()
        };
        let stages: BTreeSet<u32> = self.blocks.iter().flat_map(of_block).collect();
        stages.into_iter().collect()
    }

    /// The model without what was born after stage `newest`: what [`crate::Graph::until_stage`] computes. `None` if
    /// the tokens of a site share one norm, so that the first of them alone would compute something else, or if a block
    /// was born later or got its width later.
    pub fn until_stage(&self, newest: u32) -> Option<Self> {
        let mut config = self.clone();
        for block in &mut config.blocks {
            if block.stage > newest {
                return None;
            }
            for kind in super::SiteKind::ALL {
                *block.layer_mut(kind) = block.layer(kind).until_stage(newest)?;
            }
        }
        Some(config)
    }
}

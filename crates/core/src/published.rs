//! Names of the published checkpoints (GPT-NeoX layout), in which a site has one segment.
//!
//! `sequential.0` is the embedding, `sequential.{2+i}` block `i`, `sequential.{L+3}` the final norm. Beware:
//! `attention.key.value_param_tokens` are the value tokens of the key projection.

use crate::build::block_paths;
use crate::config::{ModelConfig, SiteKind};
use crate::path::{ParamRole, Place};

/// Pairs (name here, published name) of all arrays of a model, in the order of files. For a site with several segments
/// only the first is listed.
pub fn names(config: &ModelConfig) -> Vec<(String, String)> {
    let mut names = vec![(
        "embedding".into(),
        "sequential.0.word_embeddings.weight".into(),
    )];
    for b in 0..config.layers() {
        for path in block_paths(config, b) {
            let Some(kind) = path.kind() else { continue };
            let site = config.blocks[b].site(kind);
            let first = site
                .and_then(|site| site.segments.first())
                .map(|segment| segment.id);
            if let Place::Segment { id, .. } = path.place
                && Some(id) != first
            {
                continue;
            }
            let site = match kind {
                SiteKind::Ffn => format!("sequential.{}.mlp", b + 2),
                _ => format!("sequential.{}.attention.{}", b + 2, kind.name()),
            };
            let part = match path.role {
                ParamRole::Keys => "key_param_tokens",
                _ => "value_param_tokens",
            };
            names.push((path.to_string(), format!("{site}.{part}")));
        }
    }
    let last = config.layers() + 3;
    for (ours, published) in [("gain", "weight"), ("bias", "bias")] {
        names.push((
            format!("final_norm.{ours}"),
            format!("sequential.{last}.norm.{published}"),
        ));
    }
    names
}

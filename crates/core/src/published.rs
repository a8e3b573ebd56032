//! Names of the published checkpoints (GPT-NeoX layout), for a model whose sites have one segment each.
//!
//! `sequential.0` is the embedding, `sequential.{2+i}` block `i`, `sequential.{L+3}` the final norm. Beware:
//! `attention.key.value_param_tokens` are the value tokens of the key projection.

use crate::config::{ModelConfig, SiteKind};
use crate::model::site_name;

/// Pairs (name here, published name) of all arrays of a model with one segment per site, in the order of
/// files.
pub fn names(config: &ModelConfig) -> Vec<(String, String)> {
    let mut names = vec![(
        "embedding".into(),
        "sequential.0.word_embeddings.weight".into(),
    )];
    for b in 0..config.layers() {
        for kind in SiteKind::ALL {
            let published = match kind {
                SiteKind::Ffn => format!("sequential.{}.mlp", b + 2),
                _ => format!("sequential.{}.attention.{}", b + 2, kind.name()),
            };
            let ours = format!("{}.segments.0", site_name(b, kind));
            names.push((
                format!("{ours}.keys"),
                format!("{published}.key_param_tokens"),
            ));
            names.push((
                format!("{ours}.values"),
                format!("{published}.value_param_tokens"),
            ));
        }
    }
    let last = config.layers() + 3;
    names.push((
        "final_norm.gain".into(),
        format!("sequential.{last}.norm.weight"),
    ));
    names.push((
        "final_norm.bias".into(),
        format!("sequential.{last}.norm.bias"),
    ));
    names
}

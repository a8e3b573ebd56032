//! The arrays of a model under their own names and their published names.

use std::collections::BTreeMap;

use tokenformer_core::ModelConfig;
use tokenformer_core::config::NormKind;
use tokenformer_core::model::site_name;
use tokenformer_core::{SiteKind, published};

/// Elements of a chunk: 1 MiB of `f32`, so that it is still in the cache when they are hashed.
pub(crate) const CHUNK_ELEMENTS: usize = 1 << 18;

/// One array of a model whose sites have one segment each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Array {
    /// Its name in a model directory.
    pub(crate) ours: String,
    /// Its name in published checkpoints.
    pub(crate) published: String,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
}

/// All arrays, in the order of published checkpoints.
pub(crate) fn arrays(config: &ModelConfig) -> Vec<Array> {
    let d = config.width;
    let mut shapes = vec![vec![config.vocab, d]];
    for block in &config.blocks {
        for kind in SiteKind::ALL {
            let tokens = block.layer(kind).hidden();
            shapes.extend([vec![tokens, d], vec![tokens, d]]);
        }
    }
    if config.final_norm == NormKind::Affine {
        shapes.extend([vec![d], vec![d]]);
    }
    // `names` ends with the final norm, which a model without gains does not have.
    let named = published::names(config).into_iter().zip(shapes);
    named
        .map(|((ours, published), shape)| Array {
            ours,
            published,
            shape,
        })
        .collect()
}

/// Returns a function from the name of an array in a model directory to its published name.
pub(crate) fn by_published_name(arrays: &[Array]) -> impl Fn(&str) -> String {
    let names: BTreeMap<String, String> = arrays
        .iter()
        .map(|array| (array.ours.clone(), array.published.clone()))
        .collect();
    move |name| names.get(name).map_or(name, String::as_str).into()
}

/// Names in a model directory of the arrays that make up `array`: one for each segment of its site.
pub(crate) fn segments(config: &ModelConfig, array: &Array) -> Vec<String> {
    for (b, block) in config.blocks.iter().enumerate() {
        for (kind, site) in SiteKind::ALL
            .into_iter()
            .filter_map(|k| Some((k, block.site(k)?)))
        {
            let name = site_name(b, kind);
            let mut ids = site.segments.iter().map(|segment| segment.id);
            let Some(first) = ids.next() else { continue };
            if let Some(part) = array
                .ours
                .strip_prefix(&format!("{name}.segments.{first}."))
            {
                let all = std::iter::once(first).chain(ids);
                return all
                    .map(|id| format!("{name}.segments.{id}.{part}"))
                    .collect();
            }
        }
    }
    vec![array.ours.clone()]
}

/// Number of elements of a shape.
pub(crate) fn elements(shape: &[usize]) -> u64 {
    // A checked configuration has no product that overflows.
    shape.iter().map(|&axis| axis as u64).product()
}

/// The index along each axis of element number `at` in row-major order.
pub(crate) fn index(shape: &[usize], mut at: usize) -> Vec<usize> {
    let axes = shape.iter().rev().map(|&axis| {
        let position = at % axis.max(1);
        at /= axis.max(1);
        position
    });
    let mut index: Vec<usize> = axes.collect();
    index.reverse();
    index
}

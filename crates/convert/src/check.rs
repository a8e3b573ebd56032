//! Whether tensors and configuration belong together.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tokenformer_core::ModelConfig;
use tokenformer_formats::neox_config::NeoxConfig;

use crate::config::from_neox;
use crate::error::{TensorMismatch, shown};
use crate::layout::{Array, arrays};
use crate::source::Source;
use crate::{Error, Result};

const EMBEDDING: &str = "sequential.0.word_embeddings.weight";

/// A configuration and the arrays that it asks for, each of which the weights have in its shape.
pub(crate) fn check(source: &Source, configs: &[PathBuf]) -> Result<(ModelConfig, Vec<Array>)> {
    let place: Vec<String> = configs
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let place = place.join(", ");
    let neox = NeoxConfig::load(configs)?;
    let vocab = match source.shape(EMBEDDING) {
        Some(&[rows, _]) => rows,
        _ => 1,
    };
    let config = from_neox(&place, &neox, vocab)?;
    let arrays = arrays(&config);

    let mut mismatch = TensorMismatch {
        path: source.path().into(),
        config: place,
        wanted: arrays.len(),
        ..TensorMismatch::default()
    };
    for array in &arrays {
        match source.shape(&array.published) {
            None => mismatch.missing.push(array.published.clone()),
            Some(shape) if *shape != array.shape => {
                let name = array.published.clone();
                mismatch
                    .shapes
                    .push((name, array.shape.clone(), shape.into()));
            }
            Some(_) => {}
        }
    }
    let wanted: BTreeSet<&str> = arrays
        .iter()
        .map(|array| array.published.as_str())
        .collect();
    mismatch.unexpected = source
        .names()
        .filter(|name| !wanted.contains(name) && !is_table(name))
        .map(String::from)
        .collect();
    if mismatch.missing.is_empty() && mismatch.shapes.is_empty() && mismatch.unexpected.is_empty() {
        return Ok((config, arrays));
    }
    mismatch.help = help(source, &config, &mismatch);
    Err(Error::Tensors(Box::new(mismatch)))
}

/// Frequencies of the rotary embedding, which some configurations save: they follow from the configuration.
fn is_table(name: &str) -> bool {
    name.ends_with(".attention.rotary_emb.inv_freq")
}

fn help(source: &Source, config: &ModelConfig, mismatch: &TensorMismatch) -> String {
    let layers = source
        .names()
        .filter_map(|name| name.strip_prefix("sequential.")?.split_once(".attention."))
        .filter_map(|(index, _)| index.parse::<usize>().ok())
        .max()
        .map_or(0, |last| last.saturating_sub(1));
    if layers == 0 {
        let first = source.names().next().map_or("none".into(), shown);
        return format!(
            "the names are not those of a published TokenFormer (the first is {first}); give the file that its training code saved"
        );
    }
    if layers != config.layers() {
        return format!(
            "the file has {layers} blocks and the configuration {}; give the configuration of this checkpoint with --config",
            config.layers()
        );
    }
    if mismatch.missing.is_empty() && mismatch.shapes.is_empty() {
        return "the file holds more than the published architecture has (biases, gains or a head of its own), which cannot be converted".into();
    }
    match mismatch.missing.is_empty() {
        true => "give the configuration of this checkpoint with --config",
        false => "the file is incomplete or belongs to another configuration; copy it again, or give its own with --config",
    }
    .into()
}

//! Checks that tensors and configuration belong together.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tokenformer_core::ModelConfig;
use tokenformer_core::config::Positions;
use tokenformer_formats::neox_config::NeoxConfig;

use crate::checkpoint::Checkpoint;
use crate::compare::{Place, expect_same};
use crate::config::from_neox;
use crate::error::{TensorMismatch, shown};
use crate::layout::{Array, arrays};
use crate::names::{HEADS, expect_weights, is_head, named};
use crate::source::{Held, Source};
use crate::{Error, Result};

const EMBEDDING: &str = "sequential.0.word_embeddings.weight";

/// A configuration, the arrays that it requires, and a source that has each of them with the right shape.
pub(crate) fn check(source: Source, configs: &[PathBuf]) -> Result<Checkpoint> {
    let place: Vec<String> = configs
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let place = place.join(", ");
    let neox = NeoxConfig::load(configs)?;
    let source = {
        // The names are the same for any vocabulary.
        let arrays = arrays(&from_neox(&place, &neox, 1)?);
        named(source, &names(&arrays), &HEADS)?
    };
    let vocab = match source.shape(EMBEDDING) {
        Some(&[rows, _]) => rows,
        _ => 1,
    };
    let config = from_neox(&place, &neox, vocab)?;
    let arrays = arrays(&config);
    let wanted = names(&arrays);

    let mut mismatch = TensorMismatch {
        path: source.path().into(),
        config: place,
        wanted: arrays.len(),
        ..TensorMismatch::default()
    };
    for array in &arrays {
        expect_weights(&source, &array.published)?;
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
    let is_extra = |name: &&str| {
        !wanted.contains(name)
            && !is_rotary_table(name)
            && matches!(source.held(name, 0), Some(Held::Weights(_)))
    };
    // In the published architecture the head is the embedding.
    let is_copy = |name: &&str| is_head(name) && source.shape(name) == source.shape(EMBEDDING);
    let (heads, extra): (Vec<&str>, Vec<&str>) = source.names().filter(is_extra).partition(is_copy);
    mismatch.unexpected = extra.into_iter().map(String::from).collect();
    if !mismatch.is_empty() {
        mismatch.help = help(&source, &config, &mismatch);
        return Err(Error::Tensors(Box::new(mismatch)));
    }
    for head in heads {
        let [kept, copy] = [EMBEDDING, head].map(|name| Place {
            source: &source,
            name,
            file: 0,
        });
        let help = "the published architecture has no output head but the embedding; \
                    this model computes something else";
        expect_same(&kept, &copy, help)?;
    }
    check_rotary_tables(&source, &config)?;
    Ok(Checkpoint {
        config,
        arrays,
        source,
        ignored: neox.ignored,
    })
}

/// The published names of arrays.
fn names(arrays: &[Array]) -> BTreeSet<&str> {
    arrays.iter().map(|array| &*array.published).collect()
}

/// Frequencies of the rotary embedding, which some configurations save.
pub(crate) fn is_rotary_table(name: &str) -> bool {
    name.ends_with(".attention.rotary_emb.inv_freq")
}

/// Refuses saved frequencies that are not those of the configuration.
pub(crate) fn check_rotary_tables(source: &Source, config: &ModelConfig) -> Result<()> {
    // Relative error of a frequency that was saved in half precision.
    const RELATIVE: f64 = 0.01;
    const ABSOLUTE: f64 = 1e-7;
    let is_table = |name: &&str| {
        is_rotary_table(name) && matches!(source.held(name, 0), Some(Held::Weights(_)))
    };
    for name in source.names().filter(is_table) {
        let Positions::Rotary { fraction, base } = config.positions else {
            return Err(Error::Damaged {
                path: source.path().into(),
                what: "the weights have rotary frequencies, and the configuration other positions",
                expected: "no such tensor".into(),
                got: shown(name),
                help: "give the configuration of these weights with --config",
            });
        };
        let table = source.whole(name)?;
        let dims = 2.0 * table.len() as f64;
        for (i, &got) in table.iter().enumerate() {
            let expected = base.powf(-2.0 * i as f64 / dims);
            if (f64::from(got) - expected).abs() <= RELATIVE * expected + ABSOLUTE {
                continue;
            }
            return Err(Error::Damaged {
                path: source.path().into(),
                what: "the rotary frequencies are not those of the configuration",
                expected: format!("{expected:e} at index [{i}] of {name}"),
                got: format!("{got:e}"),
                help: "give the configuration of these weights with --config",
            });
        }
        let head = config.width / config.heads.max(1);
        if dims != (head as f64 * fraction).floor() {
            return Err(Error::Damaged {
                path: source.path().into(),
                what: "the rotary frequencies are not those of the configuration",
                expected: format!(
                    "{} of them in {name}",
                    (head as f64 * fraction / 2.0).floor()
                ),
                got: table.len().to_string(),
                help: "give the configuration of these weights with --config",
            });
        }
    }
    Ok(())
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

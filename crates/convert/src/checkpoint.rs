//! A checkpoint of another program, opened: what it is, and its weights.

use std::path::PathBuf;

use tokenformer_core::ModelConfig;

use crate::Result;
use crate::check::check;
use crate::find::Weights;
use crate::layout::Array;
use crate::plain;
use crate::source::Source;

/// A checkpoint that fits its configuration.
pub(crate) struct Checkpoint {
    pub(crate) config: ModelConfig,
    /// The arrays that the configuration asks for, each of which the source has under its `published` name.
    pub(crate) arrays: Vec<Array>,
    pub(crate) source: Source,
}

impl Checkpoint {
    /// Opens weights as a plain Transformer if they are one, else as a published TokenFormer.
    pub(crate) fn open(weights: &Weights, configs: &[PathBuf]) -> Result<Checkpoint> {
        let source = Source::open(weights)?;
        let (config, arrays, source) = match (plain::recognise(&source, configs)?, configs) {
            (Some(layout), [path, ..]) => plain::import(layout, source, path)?,
            _ => {
                let (config, arrays) = check(&source, configs)?;
                (config, arrays, source)
            }
        };
        Ok(Checkpoint {
            config,
            arrays,
            source,
        })
    }
}

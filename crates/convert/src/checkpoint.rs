//! An open checkpoint of another program: its kind and its weights.

use std::path::PathBuf;

use tokenformer_core::ModelConfig;

use crate::Result;
use crate::check::check;
use crate::compare;
use crate::layout::Array;
use crate::names::left_out;
use crate::plain;
use crate::source::Source;
use crate::weights::Weights;

/// A checkpoint whose tensors match its configuration.
pub(crate) struct Checkpoint {
    pub(crate) config: ModelConfig,
    /// The arrays that the configuration requires, each of which the source has under its `published` name.
    pub(crate) arrays: Vec<Array>,
    pub(crate) source: Source,
}

impl Checkpoint {
    /// Notes for the user about the weights.
    pub(crate) fn notes(&self) -> Vec<String> {
        let read = match &self.source {
            Source::Mapped(mapped) => mapped.inner(),
            source => source,
        };
        let mut notes = read.notes();
        notes.extend(left_out(read));
        notes
    }

    /// Opens weights as a plain Transformer if they are one, else as a published TokenFormer. Tensors that occur more
    /// than once in the files are read and compared.
    pub(crate) fn open(weights: &Weights, configs: &[PathBuf]) -> Result<Checkpoint> {
        let mut opened = Checkpoint::open_again(weights, configs)?;
        compare::files(&mut opened.source)?;
        compare::deepspeed(weights)?;
        Ok(opened)
    }

    /// Opens weights that were opened before. Copies of tensors are not compared a second time.
    pub(crate) fn open_again(weights: &Weights, configs: &[PathBuf]) -> Result<Checkpoint> {
        let source = Source::open(weights)?;
        if plain::is_timm(&source) {
            let path = configs.last().map(PathBuf::as_path);
            let (config, arrays, source) = plain::import_timm(source, path)?;
            return Ok(Checkpoint {
                config,
                arrays,
                source,
            });
        }
        let (config, arrays, source) = match (plain::recognise(&source, configs)?, configs) {
            (Some(layout), [path, ..]) => plain::import(layout, source, path)?,
            _ => check(source, configs)?,
        };
        Ok(Checkpoint {
            config,
            arrays,
            source,
        })
    }
}

//! An open checkpoint of another program: its kind and its weights.

use std::path::PathBuf;

use tokenformer_core::ModelConfig;

use crate::Result;
use crate::check::check;
use crate::compare;
use crate::error::shown;
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
    /// Keys of the configuration that have no effect.
    pub(crate) ignored: Vec<String>,
}

/// Limit of the keys that a note lists.
const SHOWN_KEYS: usize = 64;

impl Checkpoint {
    /// Notes for the user about the weights.
    pub(crate) fn notes(&self) -> Vec<String> {
        let read = match &self.source {
            Source::Mapped(mapped) => mapped.inner(),
            source => source,
        };
        let mut notes = read.notes();
        notes.extend(left_out(read));
        if let [_, ..] = &self.ignored[..] {
            let shown = (self.ignored.iter().take(SHOWN_KEYS)).map(|key| shown(key));
            let shown: Vec<String> = shown.collect();
            let more = match self.ignored.len().checked_sub(SHOWN_KEYS + 1) {
                Some(more) => format!(" and {} more", more + 1),
                None => String::new(),
            };
            notes.push(format!(
                "keys of the configuration that have no effect here: {}{more}",
                shown.join(", ")
            ));
        }
        notes
    }

    /// Opens weights as a plain Transformer if they are one, else as a published TokenFormer. Tensors that occur more
    /// than once in the files are read and compared.
    pub(crate) fn open(weights: &Weights, configs: &[PathBuf]) -> Result<Checkpoint> {
        let opened = Checkpoint::read(weights, configs)?;
        compare::files(&opened.source)?;
        compare::deepspeed(weights)?;
        Ok(opened)
    }

    fn read(weights: &Weights, configs: &[PathBuf]) -> Result<Checkpoint> {
        let source = Source::open(weights)?;
        if plain::is_timm(&source) {
            let path = configs.last().map(PathBuf::as_path);
            let (config, arrays, source) = plain::import_timm(source, path)?;
            return Ok(Checkpoint {
                config,
                arrays,
                source,
                ignored: Vec::new(),
            });
        }
        match (plain::recognise(&source, configs)?, configs) {
            (Some(layout), [path, ..]) => {
                let (config, arrays, source) = plain::import(layout, source, path)?;
                Ok(Checkpoint {
                    config,
                    arrays,
                    source,
                    ignored: Vec::new(),
                })
            }
            _ => check(source, configs),
        }
    }
}

//! Plain Transformers in the layouts of Hugging Face `transformers`: `GPTNeoXForCausalLM` for rotary positions,
//! `GPT2LMHeadModel` for learned ones; and plain vision Transformers in the layout of timm.
//!
//! The layouts have every bias, gain and head that they know. What a model does not have is written as the constants
//! that compute nothing, and named under the key `tokenformer` of `config.json`, so that it comes back as it was.

mod config;
mod entries;
mod timm;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tokenformer_core::ModelConfig;

use crate::check::{check_rotary_tables, is_rotary_table};
use crate::compare::{Place, expect_same};
use crate::error::{TensorMismatch, shown};
use crate::layout::Array;
use crate::names::{HEADS, expect_weights, named};
use crate::source::{Held, Made, Mapped, Source};
use crate::{Error, Result};
use entries::{Entry, entries, entries_of_images, heads_of_file, prefix_of};
pub(crate) use timm::is_timm;

/// A layout of Hugging Face `transformers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `GPTNeoXForCausalLM`.
    Neox,
    /// `GPT2LMHeadModel`.
    Gpt2,
}

/// Whether a model is one for these layouts: no layer of it is a Pattention site.
pub(crate) fn is_plain(config: &ModelConfig) -> bool {
    let mut layers = config.blocks.iter().flat_map(|block| block.layers());
    layers.all(|layer| layer.site().is_none())
}

/// The layout of a checkpoint, by the model that its configuration names or else by its tensors; `None` if it is
/// neither of these.
pub(crate) fn recognise(source: &Source, configs: &[PathBuf]) -> Result<Option<Layout>> {
    let [path] = configs else {
        return Ok(None);
    };
    let by_config = config::named_layout(path)?;
    // Anything may lie before the names of the model.
    let has = |list: &str, end: &str| {
        source
            .names()
            .any(|name| name.ends_with(end) && name.split('.').any(|part| part == list))
    };
    let by_names = match () {
        () if has("layers", ".attention.query_key_value.weight") => Some(Layout::Neox),
        () if has("h", ".attn.c_attn.weight") => Some(Layout::Gpt2),
        () => None,
    };
    Ok(by_config.or(by_names))
}

/// A checkpoint of a layout, read: its configuration, and its weights under the names of a model directory.
pub(crate) fn import(
    layout: Layout,
    source: Source,
    path: &Path,
) -> Result<(ModelConfig, Vec<Array>, Source)> {
    let config = config::read(layout, path)?;
    let entries = entries(layout, &config, prefix_of(layout, &source));
    take(config, entries, source, path)
}

/// A vision Transformer of timm, read; `path` is that of its configuration, if there is one.
pub(crate) fn import_timm(
    source: Source,
    path: Option<&Path>,
) -> Result<(ModelConfig, Vec<Array>, Source)> {
    let config = timm::read(&source, path)?;
    let entries = entries_of_images(&config);
    let place = path.unwrap_or(source.path()).to_path_buf();
    take(config, entries, source, &place)
}

/// The arrays of a model, made of the tensors that `entries` name.
fn take(
    config: ModelConfig,
    entries: Vec<Entry>,
    source: Source,
    path: &Path,
) -> Result<(ModelConfig, Vec<Array>, Source)> {
    // A head goes by several names.
    let required = entries.iter().filter(|entry| !entry.is_head());
    let required: BTreeSet<&str> = required.map(|entry| &*entry.theirs).collect();
    // A head of text beside an image model is not this model's.
    let heads: &[&str] = match config.input.is_tokens() {
        true => &HEADS,
        false => &[],
    };
    let source = named(source, &required, heads)?;
    let entries = check_file(&source, entries, &config, path)?;
    for entry in &entries {
        check_constant(&source, entry)?;
    }
    let made: Vec<_> = entries.iter().flat_map(Entry::import).collect();
    let arrays = (made.iter())
        .map(|tensor| Array {
            ours: tensor.name.clone(),
            published: tensor.name.clone(),
            shape: tensor.shape.clone(),
        })
        .collect();
    Ok((config, arrays, Source::Mapped(Mapped::new(source, made))))
}

/// A model in the layout that can express it.
pub(crate) struct Export {
    /// The text of `config.json`.
    pub(crate) config: Vec<u8>,
    /// Names and shapes of the layout's tensors, in its order.
    pub(crate) tensors: Vec<(String, Vec<usize>)>,
    /// The weights under these names.
    pub(crate) source: Source,
}

/// Puts the weights of a model directory into a layout.
///
/// # Errors
/// [`Error::NotPublishable`] if no layout computes exactly what the model does.
pub(crate) fn export(
    config: &ModelConfig,
    source: Source,
    torch_dtype: &'static str,
) -> Result<Export> {
    let (text, entries) = match config.input.image() {
        Some(image) => {
            timm::check(config)?;
            let text = config::to_text(&timm::write(config, image))?;
            (text, entries_of_images(config))
        }
        None => {
            let layout = config::layout_for(config)?;
            let text = config::write(layout, config, torch_dtype)?;
            (text, entries(layout, config, layout.prefix()))
        }
    };
    check_own(&source, &entries)?;
    let made: Vec<_> = entries.iter().map(Entry::export).collect();
    let named = |tensor: &Made| (tensor.name.clone(), tensor.shape.clone());
    Ok(Export {
        config: text,
        tensors: made.iter().map(named).collect(),
        source: Source::Mapped(Mapped::new(source, made)),
    })
}

/// The entries under the names that the file has, which must be complete, of these shapes, and nothing else.
fn check_file(
    source: &Source,
    mut entries: Vec<Entry>,
    config: &ModelConfig,
    path: &Path,
) -> Result<Vec<Entry>> {
    let heads = heads_of_file(source);
    for entry in &mut entries {
        if let (true, Some(head)) = (entry.is_head(), heads.first()) {
            entry.theirs.clone_from(head);
        }
    }
    let mut mismatch = TensorMismatch {
        path: source.path().into(),
        config: path.display().to_string(),
        wanted: entries.len(),
        ..TensorMismatch::default()
    };
    for entry in &entries {
        expect_weights(source, &entry.theirs)?;
        match source.shape(&entry.theirs) {
            None => mismatch.missing.push(entry.theirs.clone()),
            Some(shape) if shape != entry.shape() => {
                let shapes = (entry.theirs.clone(), entry.shape(), shape.into());
                mismatch.shapes.push(shapes);
            }
            Some(_) => {}
        }
    }
    let wanted: BTreeSet<&str> = entries.iter().map(|entry| &*entry.theirs).collect();
    let is_extra = |name: &&str| {
        !wanted.contains(name)
            && !is_buffer(name)
            && matches!(source.held(name, 0), Some(Held::Weights(_)))
    };
    let (tied, extra): (Vec<&str>, Vec<&str>) =
        (source.names().filter(is_extra)).partition(|name| heads.iter().any(|head| head == name));
    mismatch.unexpected = extra.into_iter().map(String::from).collect();
    if !mismatch.is_empty() {
        mismatch.help = "the file is incomplete, or of another model than its configuration; \
                         copy both again, or give the configuration with --config"
            .into();
        return Err(Error::Tensors(Box::new(mismatch)));
    }
    let own_head = entries.iter().find(|entry| entry.is_head());
    for copy in tied {
        // The embedding comes first.
        if let Some(kept) = own_head.or(entries.first()) {
            let [kept, copy] = [&*kept.theirs, copy].map(|name| Place {
                source,
                name,
                file: 0,
            });
            let help = "they are said to be the same (tie_word_embeddings in config.json): give the configuration of these \
                        weights with --config";
            expect_same(&kept, &copy, help)?;
        }
    }
    check_rotary_tables(source, config)?;
    Ok(entries)
}

/// Masks and frequencies that older versions of the library saved: they follow from the configuration.
fn is_buffer(name: &str) -> bool {
    const ENDS: [&str; 4] = [
        ".attention.bias",
        ".attention.masked_bias",
        ".attn.bias",
        ".attn.masked_bias",
    ];
    is_rotary_table(name) || ENDS.iter().any(|end| name.ends_with(end))
}

/// What the configuration says the model does not have must be the constant that computes nothing.
fn check_constant(source: &Source, entry: &Entry) -> Result<()> {
    let Some(constant) = entry.constant() else {
        return Ok(());
    };
    let numbers = source.whole(&entry.theirs)?;
    match numbers.into_iter().find(|&x| x != constant) {
        None => Ok(()),
        Some(number) => Err(Error::Damaged {
            path: source.path().into(),
            what: "the configuration says that the model does not have this array",
            expected: format!("{} with nothing but {constant}", shown(&entry.theirs)),
            got: number.to_string(),
            help: "remove the key tokenformer from config.json: the array is then taken as it is",
        }),
    }
}

/// The arrays of a model directory in the shapes of its configuration; the manifest vouches for the bytes, not for this.
fn check_own(source: &Source, entries: &[Entry]) -> Result<()> {
    let damaged = |expected: String, got: String| Error::Damaged {
        path: source.path().into(),
        what: "the weights and config.json belong to different models",
        expected,
        got,
        help: "convert or train the model again",
    };
    let wanted: BTreeMap<&str, Vec<usize>> = entries.iter().flat_map(Entry::own_arrays).collect();
    for (name, shape) in &wanted {
        let got = source.shape(name);
        if got != Some(&shape[..]) {
            let got = got.map_or("no such array".into(), |got| format!("{got:?}"));
            return Err(damaged(format!("{name} of shape {shape:?}"), got));
        }
    }
    match source.names().count() == wanted.len() {
        true => Ok(()),
        false => {
            let got = source.names().count().to_string();
            Err(damaged(format!("{} arrays", wanted.len()), got))
        }
    }
}

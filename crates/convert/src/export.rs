//! Exports a model directory to a checkpoint with the names of another program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokenformer_core::{Device, ModelConfig};
use tokenformer_data::Tokenizer;
use tokenformer_store::{DirWriter, MANIFEST_NAME, write_atomic, write_safetensors};
use tokenformer_train::Labels;
use tokenformer_train::files::{self, CLASSES, CONFIG, TOKENIZER, WEIGHTS};

use crate::checkpoint::Checkpoint;
use crate::config::to_published;
use crate::fingerprint::{FILE, Fingerprint};
use crate::forward::Arrays;
use crate::layout::{Array, arrays, by_published_name, segments};
use crate::pipe::{Pipe, Planned};
use crate::plain;
use crate::source::Source;
pub use crate::weight_type::WeightType;
use crate::weights::Weights;
use crate::{Error, Result};

/// Kind of an exported folder in its manifest.
pub const KIND_EXPORT: &str = "export";

/// What to export and where to write it.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The model directory; [`verify`](crate::verify()) checks it, this does not.
    pub model: PathBuf,
    /// `FILE.safetensors`, `FILE.bin`, `FILE.pt` or `FILE.pth`, with `config.json` next to it; or a folder.
    pub to: PathBuf,
    /// The type of the weights in the file.
    pub weights: WeightType,
    /// Largest size in bytes of a file in a folder: more weights are written as several files. A larger tensor gets a
    /// file by itself.
    pub shard_bytes: u64,
}

/// What was exported.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The files that hold the weights.
    pub files: Vec<PathBuf>,
    /// Number of arrays.
    pub tensors: usize,
    /// Learnable numbers.
    pub params: u64,
    /// Number of segments that were joined to one array.
    pub joined: usize,
}

/// Exports a model. `progress` is called with (bytes written, bytes in all); the device computes the fingerprint of a folder.
///
/// A folder gets `config.json`, the weights, `tokenizer.json` or `classes.json` and `preprocess.json` if the model has them, a fingerprint and a manifest, and
/// appears whole or not at all. Weights are copied in chunks.
///
/// # Errors
/// When the layout cannot express the model exactly ([`Error::NotPublishable`]), a number is too large for
/// the type, or the target cannot be written.
pub fn export(
    options: &ExportOptions,
    device: &Arc<dyn Device>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported> {
    let model = &options.model;
    let config = files::read_config(model)?;
    let tokenizer = model.join(TOKENIZER);
    let tokenizer = match tokenizer.is_file() {
        true => Some((files::load_tokenizer(model)?, tokenizer)),
        false => None,
    };
    let tokens = tokenizer
        .as_ref()
        .map(|((_, tokenizer), _)| Tokenizer::vocab_size(tokenizer));
    let source = Source::open(&Weights::Safetensors(vec![model.join(WEIGHTS)]))?;
    let dtype = options.weights.name();
    let Layout {
        config: published,
        planned,
        source,
    } = match plain::is_plain(&config) {
        true => plain_transformer(&config, source, dtype)?,
        false => tokenformer(&config, source, tokens, dtype, &options.to)?,
    };
    let total: u64 = planned
        .iter()
        .map(|tensor| tensor.bytes(options.weights))
        .sum();
    let mut done = 0;
    let mut count = |more| {
        done += more;
        progress(done, total);
    };
    let joined = planned.iter().map(|tensor| tensor.sources.len() - 1).sum();
    let (tensors, params) = (planned.len(), config.params());
    let pipe = Pipe::new(&source, options.weights, &mut count);
    let files = match Target::of(&options.to)? {
        Target::Safetensors => {
            let written = || {
                pipe.safetensors(&planned, |tensors| {
                    write_safetensors(&options.to, &metadata(), tensors)
                })
            };
            with_config(&options.to, &published, written)?
        }
        Target::Torch => with_config(&options.to, &published, || {
            pipe.torch(&planned, &options.to)
        })?,
        Target::Folder => {
            let mut writer = DirWriter::begin(&options.to, KIND_EXPORT)?;
            writer.write_bytes(CONFIG, &published)?;
            if let Some(((bytes, _), _)) = &tokenizer {
                writer.write_bytes(TOKENIZER, bytes)?;
            }
            // Classes and preprocessing of a model that has been trained here.
            if !config.input.is_tokens() && model.join(CLASSES).is_file() {
                for (name, bytes) in Labels::read(model, &config)?.files() {
                    writer.write_bytes(name, &bytes)?;
                }
            }
            let names = write_shards(&mut writer, &pipe, planned, options)?;
            // A fingerprint is of tokens.
            if config.input.is_tokens() {
                write_fingerprint(&mut writer, &names, device)?;
            }
            writer.commit()?;
            names.iter().map(|name| options.to.join(name)).collect()
        }
    };
    Ok(Exported {
        files,
        tensors,
        params,
        joined,
    })
}

/// A model in the layout of another program.
struct Layout {
    /// The text of `config.json`.
    config: Vec<u8>,
    planned: Vec<Planned>,
    /// The source of the tensors.
    source: Source,
}

fn tokenformer(
    config: &ModelConfig,
    source: Source,
    tokens: Option<usize>,
    dtype: &'static str,
    to: &Path,
) -> Result<Layout> {
    let published = to_published(config, tokens, dtype)?;
    let mut text = serde_json::to_vec_pretty(&published)
        .map_err(|error| Error::io("write the configuration", to)(error.into()))?;
    text.push(b'\n');
    check_shapes(config, &source)?;
    let planned = |array: &Array| Planned {
        name: array.published.clone(),
        shape: array.shape.clone(),
        sources: segments(config, array),
    };
    Ok(Layout {
        config: text,
        planned: arrays(config).iter().map(planned).collect(),
        source,
    })
}

fn plain_transformer(config: &ModelConfig, source: Source, dtype: &'static str) -> Result<Layout> {
    let plain::Export {
        config,
        tensors,
        source,
    } = plain::export(config, source, dtype)?;
    let planned = |(name, shape): (String, Vec<usize>)| Planned {
        sources: vec![name.clone()],
        name,
        shape,
    };
    Ok(Layout {
        config,
        planned: tensors.into_iter().map(planned).collect(),
        source,
    })
}

/// The kind of output, which follows from the target's name.
enum Target {
    Safetensors,
    Torch,
    Folder,
}

impl Target {
    fn of(path: &Path) -> Result<Target> {
        let refuse = |what, help| Error::Target {
            path: path.into(),
            what,
            help,
        };
        let kind = match path.extension().and_then(|end| end.to_str()) {
            _ if path.is_dir() => return Ok(Target::Folder),
            Some("safetensors") => Target::Safetensors,
            Some("bin" | "pt" | "pth") => Target::Torch,
            _ if path.exists() => {
                return Err(refuse(
                    "the target is a file of another kind",
                    "give a folder, or a file that ends in .safetensors, .bin, .pt or .pth",
                ));
            }
            _ => return Ok(Target::Folder),
        };
        // A file is replaced by renaming, which would turn a device into a regular file.
        if path.exists() && !path.is_file() {
            return Err(refuse("the target is no plain file", "choose another name"));
        }
        if folder_of(path).join(MANIFEST_NAME).exists() {
            return Err(refuse(
                "the folder belongs to a model",
                "choose another folder; a file more would make this one differ from its manifest",
            ));
        }
        Ok(kind)
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The metadata that Python readers of safetensors look for.
fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".into(), "pt".into())])
}

/// Writes the weights, then the configuration next to them; an existing, different configuration is an error.
fn with_config<T>(
    path: &Path,
    config: &[u8],
    write: impl FnOnce() -> Result<T>,
) -> Result<Vec<PathBuf>> {
    const MAX_BYTES: u64 = 1 << 20;
    let beside = folder_of(path).join(CONFIG);
    let same = |found: Vec<u8>| found == config;
    if beside.exists() && !tokenformer_store::read_small(&beside, MAX_BYTES).is_ok_and(same) {
        return Err(Error::Target {
            path: beside,
            what: "another configuration lies where that of the weights would go",
            help: "export to another folder, or remove this file",
        });
    }
    write()?;
    write_atomic(&beside, config)?;
    Ok(vec![path.into()])
}

/// Checks that the source has the arrays of the configuration with its shapes; the manifest covers only the bytes.
fn check_shapes(config: &ModelConfig, source: &Source) -> Result<()> {
    let mut wanted = 0;
    for array in arrays(config) {
        let mut rows = 0;
        for name in segments(config, &array) {
            wanted += 1;
            let got = source.shape(&name).unwrap_or_default();
            rows += got.first().copied().unwrap_or(0);
            if got.get(1..) != array.shape.get(1..) {
                return Err(mismatch(source, &name, &array, got));
            }
        }
        if Some(&rows) != array.shape.first() {
            return Err(mismatch(source, &array.ours, &array, &[rows]));
        }
    }
    match source.names().count() == wanted {
        true => Ok(()),
        false => Err(Error::Damaged {
            path: source.path().into(),
            what: "the weights and config.json belong to different models",
            expected: format!("{wanted} arrays"),
            got: source.names().count().to_string(),
            help: "convert or train the model again",
        }),
    }
}

fn mismatch(source: &Source, name: &str, array: &Array, got: &[usize]) -> Error {
    Error::Damaged {
        path: source.path().into(),
        what: "the weights and config.json belong to different models",
        expected: format!("{name} as a part of {:?}", array.shape),
        got: format!("{got:?}"),
        help: "convert or train the model again",
    }
}

/// Writes the weights into one file, or several with an index; returns their names.
fn write_shards(
    writer: &mut DirWriter,
    pipe: &Pipe<'_>,
    planned: Vec<Planned>,
    options: &ExportOptions,
) -> Result<Vec<String>> {
    let total: u64 = planned
        .iter()
        .map(|tensor| tensor.bytes(options.weights))
        .sum();
    let mut shards: Vec<Vec<Planned>> = Vec::new();
    let mut filled = 0;
    for tensor in planned {
        let bytes = tensor.bytes(options.weights);
        match shards.last_mut() {
            Some(shard) if filled + bytes <= options.shard_bytes => shard.push(tensor),
            _ => {
                shards.push(vec![tensor]);
                filled = 0;
            }
        }
        filled += bytes;
    }
    let count = shards.len();
    if count == 1 {
        let planned = shards.pop().unwrap_or_default();
        pipe.safetensors(&planned, |tensors| {
            writer.write_tensors(WEIGHTS, &metadata(), tensors)
        })?;
        return Ok(vec![WEIGHTS.into()]);
    }
    let mut index = Index {
        metadata: Size { total_size: total },
        weight_map: BTreeMap::new(),
    };
    let mut names = Vec::new();
    for (shard, planned) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", shard + 1);
        pipe.safetensors(planned, |tensors| {
            writer.write_tensors(&name, &metadata(), tensors)
        })?;
        let of_shard = planned
            .iter()
            .map(|tensor| (tensor.name.clone(), name.clone()));
        index.weight_map.extend(of_shard);
        names.push(name);
    }
    writer.write_json("model.safetensors.index.json", &index)?;
    Ok(names)
}

/// `model.safetensors.index.json`.
#[derive(Serialize)]
struct Index {
    metadata: Size,
    weight_map: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Size {
    total_size: u64,
}

/// Computes the fingerprint of the files written just now, from the weights as they were rounded.
fn write_fingerprint(
    writer: &mut DirWriter,
    names: &[String],
    device: &Arc<dyn Device>,
) -> Result<()> {
    let path = writer.file(FILE)?;
    let files: Vec<PathBuf> = names.iter().map(|name| path.with_file_name(name)).collect();
    let configs = [path.with_file_name(CONFIG)];
    let opened = Checkpoint::open(&Weights::Safetensors(files), &configs)?;
    let named = by_published_name(&opened.arrays);
    let arrays = Arrays::new(&opened.source, &named);
    Fingerprint::make(device, &opened.config, &path, arrays)?.write(&path)
}

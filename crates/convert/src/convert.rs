//! Converts a checkpoint of another program to a model directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tokenformer_core::{Device, ModelConfig};
use tokenformer_data::TokenizerSpec;
use tokenformer_store::DirWriter;
use tokenformer_train::Labels;
use tokenformer_train::files::{CLASSES, CONFIG, KIND_MODEL, PREPROCESS, TOKENIZER, WEIGHTS};

use crate::checkpoint::Checkpoint;
use crate::corpus::known;
use crate::find::find;
use crate::fingerprint::{FILE, Fingerprint};
use crate::forward::Arrays;
use crate::layout::by_published_name;
use crate::pipe::{Pipe, Planned};
use crate::plain;
use crate::source::Source;
use crate::weight_type::WeightType;
use crate::{Error, Result};

/// What to convert and where to write it.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// A file, a folder, or the name `OWNER/NAME` of a repository on the Hugging Face Hub.
    pub from: PathBuf,
    /// Configurations with the published keys; later ones override earlier ones. If empty, those next to the weights are
    /// used.
    pub configs: Vec<PathBuf>,
    /// The tokenizer, which cannot be trained here. If `None`, the `tokenizer.json` next to the weights is used.
    pub tokenizer: Option<TokenizerSpec>,
    /// The model directory to write.
    pub to: PathBuf,
}

/// What was converted.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The model.
    pub config: ModelConfig,
    /// Where its weights came from.
    pub weights: PathBuf,
    /// Number of arrays.
    pub tensors: usize,
    /// Whether the model has a tokenizer.
    pub has_tokenizer: bool,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// Converts a checkpoint. `progress` is called with (bytes written, bytes in all); the device computes the fingerprint.
///
/// The directory appears whole or not at all. Weights are copied in chunks, so memory stays near the size of the
/// largest tensor.
///
/// # Errors
/// When there is no checkpoint or no configuration, a file is damaged or hostile, tensors are missing, unexpected or of
/// another shape, a setting is not supported, the tokenizer is larger than the vocabulary, the logits are not finite, or
/// the directory cannot be written.
pub fn convert(
    options: &ConvertOptions,
    device: &Arc<dyn Device>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Converted> {
    let mut found = find(&local(&options.from)?)?;
    if !options.configs.is_empty() {
        found.configs.clone_from(&options.configs);
    }
    // Shapes determine nearly everything of a vision Transformer.
    if found.configs.is_empty() && !plain::is_timm(&Source::open(&found.weights)?) {
        return Err(Error::NoConfig {
            path: options.from.clone(),
        });
    }
    let opened = Checkpoint::open(&found.weights, &found.configs)?;
    let mut notes = opened.notes();
    let Checkpoint {
        config,
        arrays,
        source,
        ..
    } = &opened;
    let beside = || found.tokenizer.clone().map(TokenizerSpec::File);
    let tokenizer = (options.tokenizer.clone().or_else(beside))
        .map(|spec| read_tokenizer(&spec, config.vocab))
        .transpose()?;
    let weights = source.path().to_path_buf();
    let labels = labels_beside(&weights, config)?;

    let mut writer = DirWriter::begin(&options.to, KIND_MODEL)?;
    writer.write_bytes(CONFIG, config.to_json().as_bytes())?;
    if let Some(tokenizer) = &tokenizer {
        writer.write_bytes(TOKENIZER, tokenizer)?;
    } else if config.input.is_tokens() {
        notes.push(
            "no tokenizer is there: give one with --tokenizer to use the model on text".into(),
        );
    }
    if let Some(labels) = &labels {
        for (name, bytes) in labels.files() {
            writer.write_bytes(name, &bytes)?;
        }
    } else if !config.input.is_tokens() {
        notes.push(format!(
            "no {CLASSES} and {PREPROCESS} lie beside the weights: put them there, as docs/formats.md describes them, to use \
             the model on pictures"
        ));
    }
    let planned: Vec<Planned> = arrays
        .iter()
        .map(|array| Planned {
            name: array.ours.clone(),
            shape: array.shape.clone(),
            sources: vec![array.published.clone()],
        })
        .collect();
    let total: u64 = planned
        .iter()
        .map(|tensor| tensor.bytes(WeightType::F32))
        .sum();
    let mut done = 0;
    let mut count = |more| {
        done += more;
        progress(done, total);
    };
    // The fingerprint needs the weights in another order than the file has; it reads them from the page cache.
    let fingerprint = thread::scope(|scope| {
        let fingerprint = scope.spawn(|| fingerprint(&opened, device));
        Pipe::new(source, WeightType::F32, &mut count).safetensors(&planned, |tensors| {
            writer.write_tensors(WEIGHTS, &BTreeMap::new(), tensors)
        })?;
        fingerprint
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    if let Some(fingerprint) = fingerprint {
        fingerprint.write(&writer.file(FILE)?)?;
    }
    writer.commit()?;
    Ok(Converted {
        config: config.clone(),
        weights,
        tensors: arrays.len(),
        has_tokenizer: tokenizer.is_some(),
        notes,
    })
}

/// Refuses weights that are not those of a vision Transformer of timm.
///
/// # Errors
/// If they are not, or cannot be opened.
pub fn expect_timm(from: &Path) -> Result<()> {
    let source = Source::open(&find(&local(from)?)?.weights)?;
    if plain::is_timm(&source) {
        return Ok(());
    }
    Err(Error::Damaged {
        path: source.path().into(),
        what: "no vision Transformer of timm",
        expected: "tensors patch_embed.proj.weight and blocks.0.attn.qkv.weight".into(),
        got: format!("{} others", source.names().count()),
        help: "leave the word timm out to convert a model of another kind",
    })
}

/// Classes and preprocessing beside the weights of an image model, as `export` writes them; `None` if neither is there.
fn labels_beside(weights: &Path, config: &ModelConfig) -> Result<Option<Labels>> {
    let dir = weights.parent().unwrap_or(Path::new("."));
    let is_there = |name: &str| dir.join(name).is_file();
    if config.input.is_tokens() || !(is_there(CLASSES) || is_there(PREPROCESS)) {
        return Ok(None);
    }
    Ok(Some(Labels::read(dir, config)?))
}

/// `None` for an image model: a fingerprint is of tokens.
fn fingerprint(opened: &Checkpoint, device: &Arc<dyn Device>) -> Result<Option<Fingerprint>> {
    if !opened.config.input.is_tokens() {
        return Ok(None);
    }
    let named = by_published_name(&opened.arrays);
    let arrays = Arrays::new(&opened.source, &named);
    Fingerprint::make(device, &opened.config, opened.source.path(), arrays).map(Some)
}

/// The bytes of a tokenizer, checked to have no more tokens than the vocabulary.
pub(crate) fn read_tokenizer(spec: &TokenizerSpec, rows: usize) -> Result<Vec<u8>> {
    let tokenizer = known(
        spec,
        "the tokenizer of the checkpoint: bytes, gpt2 or a tokenizer.json",
        "a checkpoint has no text to train on; give the file",
    )?;
    let tokens = tokenizer.vocab_size();
    if tokens > rows {
        return Err(Error::Vocabulary {
            path: spec.to_string().into(),
            tokens,
            rows,
        });
    }
    Ok(tokenizer.json().to_vec())
}

/// The path itself if it exists; else the folder of a downloaded repository.
fn local(from: &Path) -> Result<PathBuf> {
    match from.exists() {
        true => Ok(from.into()),
        false => match repository(from) {
            Some(name) => download(name),
            None => Err(Error::NoCheckpoint {
                path: from.into(),
                got: "no such file or folder".into(),
                help: "check the path".into(),
            }),
        },
    }
}

/// Parses `OWNER/NAME`, as repositories on the Hugging Face Hub are named; `None` for a path that begins with a folder
/// here.
fn repository(from: &Path) -> Option<&str> {
    let name = from.to_str()?;
    let (owner, repository) = name.split_once('/')?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    (plain(owner) && plain(repository) && !Path::new(owner).exists()).then_some(name)
}

#[cfg(feature = "hub")]
fn download(name: &str) -> Result<PathBuf> {
    crate::hub::download(name)
}

#[cfg(not(feature = "hub"))]
fn download(name: &str) -> Result<PathBuf> {
    Err(Error::NoCheckpoint {
        path: name.into(),
        got: "no such file or folder".into(),
        help: format!(
            "if this is a repository on the Hugging Face Hub, download it first, for example with \
             `hf download {name} --local-dir DIR`, and give that folder; or build this program with --features hub"
        ),
    })
}

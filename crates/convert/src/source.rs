//! The weights of a checkpoint, whatever its container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokenformer_formats::deepspeed::{DeepSpeedFolder, Precision};
use tokenformer_formats::{Tensors, TorchFile};

use crate::error::shown;
use crate::find::Weights;
use crate::plain::Mapped;
use crate::shards::{MAX_MAPPED_BYTES, Shards};
use crate::{Error, Result};

/// Open weights.
pub(crate) enum Source {
    Safetensors(Shards),
    Torch(Archives),
    /// Tensors that are made of those of another source.
    Mapped(Mapped),
}

/// Open `torch.save` archives as one.
pub(crate) struct Archives {
    weights: Weights,
    path: PathBuf,
    parts: Vec<Tensors>,
    /// Archive of each tensor.
    place: BTreeMap<String, usize>,
    note: Option<String>,
    /// Bytes read since the files were mapped.
    read_bytes: u64,
}

impl Source {
    pub(crate) fn open(weights: &Weights) -> Result<Source> {
        Ok(match weights {
            Weights::Safetensors(paths) => Source::Safetensors(Shards::open(paths)?),
            torch => Source::Torch(Archives::open(torch)?),
        })
    }

    /// The file or folder, for messages.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Source::Safetensors(shards) => shards.path(),
            Source::Torch(archives) => &archives.path,
            Source::Mapped(mapped) => mapped.inner().path(),
        }
    }

    /// What a person should know about these weights.
    pub(crate) fn note(&self) -> Option<String> {
        match self {
            Source::Safetensors(_) => None,
            Source::Torch(archives) => archives.note.clone(),
            Source::Mapped(mapped) => mapped.inner().note(),
        }
    }

    pub(crate) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Source::Safetensors(shards) => Box::new(shards.names()),
            Source::Torch(archives) => Box::new(archives.place.keys().map(String::as_str)),
            Source::Mapped(mapped) => Box::new(mapped.names()),
        }
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        match self {
            Source::Safetensors(shards) => shards.shape(name),
            Source::Torch(archives) => Some(&archives.part(name)?.get(name).ok()?.shape),
            Source::Mapped(mapped) => mapped.shape(name),
        }
    }

    /// Passes a tensor's elements on in row-major order, at most `chunk` at a time.
    pub(crate) fn for_each_chunk(
        &self,
        name: &str,
        chunk: usize,
        take: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Source::Safetensors(shards) => shards.for_each_chunk(name, chunk, take),
            Source::Torch(archives) => match archives.part(name) {
                Some(part) => part.for_each_chunk(name, chunk, take),
                None => Err(tokenformer_formats::Error::MissingTensor {
                    path: archives.path.clone(),
                    name: name.into(),
                    near: Vec::new(),
                    count: archives.place.len(),
                }
                .into()),
            },
            Source::Mapped(mapped) => mapped.for_each_chunk(name, chunk, take),
        }
    }

    /// Notes that so many bytes were read, and gives their memory back when it is time.
    pub(crate) fn passed(&mut self, bytes: u64) -> Result<()> {
        match self {
            Source::Safetensors(shards) => shards.passed(bytes),
            Source::Torch(archives) => archives.passed(bytes),
            Source::Mapped(mapped) => mapped.inner_mut().passed(bytes),
        }
    }
}

impl Archives {
    fn open(weights: &Weights) -> Result<Archives> {
        let (parts, note) = open(weights)?;
        let mut place = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            for info in part.list() {
                if place.insert(info.name.clone(), index).is_some() {
                    return Err(Error::Damaged {
                        path: part.path().into(),
                        what: "a tensor is in two files",
                        expected: "each name once".into(),
                        got: shown(&info.name),
                        help: "the files do not belong together; copy them again",
                    });
                }
            }
        }
        Ok(Archives {
            weights: weights.clone(),
            path: parts
                .first()
                .map(|part| part.path().into())
                .unwrap_or_default(),
            parts,
            place,
            note,
            read_bytes: 0,
        })
    }

    fn part(&self, name: &str) -> Option<&Tensors> {
        self.parts.get(*self.place.get(name)?)
    }

    fn passed(&mut self, bytes: u64) -> Result<()> {
        self.read_bytes += bytes;
        if self.read_bytes > MAX_MAPPED_BYTES {
            self.parts.clear();
            self.parts = open(&self.weights)?.0;
            self.read_bytes = 0;
        }
        Ok(())
    }
}

fn open(weights: &Weights) -> Result<(Vec<Tensors>, Option<String>)> {
    let paths = match weights {
        Weights::Torch(paths) | Weights::Safetensors(paths) => paths,
        Weights::DeepSpeed(folder) => {
            let weights = DeepSpeedFolder::open(folder)?.weights()?;
            let note = match weights.precision {
                Precision::Full => None,
                Precision::Half { shards, ranks } => Some(format!(
                    "these are the half-precision weights: {shards} of the {ranks} files with slices of the 32-bit ones are there"
                )),
            };
            return Ok((vec![weights.tensors], note));
        }
    };
    let open = |path: &PathBuf| {
        let file = TorchFile::open(path)?;
        // A training checkpoint has its weights in a dict of their own, beside much else.
        Ok(match file.root().get("module") {
            Some(module) if module.entries().is_some() => file.tensors_at(&["module"])?,
            _ => file.tensors()?,
        })
    };
    Ok((paths.iter().map(open).collect::<Result<_>>()?, None))
}

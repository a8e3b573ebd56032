//! The weights of a checkpoint in any of the supported containers.

mod mapped;
mod named;
mod shards;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokenformer_formats::deepspeed::{DeepSpeedFolder, Precision};
use tokenformer_formats::{Dtype, Tensors, TorchFile};

use crate::Result;
use crate::layout::{CHUNK_ELEMENTS, elements};
use crate::weight_type::WeightType;
use crate::weights::Weights;
use shards::Shards;

pub(crate) use mapped::{Made, Mapped, Part};
pub(crate) use named::Named;

/// What a source holds under a name.
pub(crate) enum Held {
    /// Floating-point numbers, with at most the precision of this type.
    Weights(WeightType),
    /// Integers or booleans; the name of the type.
    Integers(String),
    /// An object that is not read; the reason.
    Unread(String),
}

/// Open weights.
pub(crate) enum Source {
    Safetensors(Shards),
    Torch(Archives),
    /// Tensors of another source under the names of their model.
    Named(Named),
    /// Tensors that are computed from those of another source.
    Mapped(Mapped),
}

/// Several open `torch.save` archives, used as one.
pub(crate) struct Archives {
    path: PathBuf,
    parts: Vec<Tensors>,
    /// Indices of the archives that have each tensor, or another object in its place.
    place: BTreeMap<String, Vec<usize>>,
    note: Option<String>,
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
            Source::Named(named) => named.inner().path(),
            Source::Mapped(mapped) => mapped.inner().path(),
        }
    }

    /// Notes for the user about these weights.
    pub(crate) fn notes(&self) -> Vec<String> {
        match self {
            Source::Safetensors(_) => Vec::new(),
            Source::Torch(archives) => archives.note.clone().into_iter().collect(),
            Source::Named(named) => {
                let mut notes = named.inner().notes();
                notes.extend(named.note());
                notes
            }
            Source::Mapped(mapped) => mapped.inner().notes(),
        }
    }

    /// The names of all tensors, and of objects in the place of one.
    pub(crate) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Source::Safetensors(shards) => Box::new(shards.names()),
            Source::Torch(archives) => Box::new(archives.place.keys().map(String::as_str)),
            Source::Named(named) => Box::new(named.names()),
            Source::Mapped(mapped) => Box::new(mapped.names()),
        }
    }

    /// What the `nth` file, from 0, holds under a name; `None` for nothing.
    pub(crate) fn held(&self, name: &str, nth: usize) -> Option<Held> {
        match self {
            Source::Safetensors(shards) => shards.held(name, nth),
            Source::Torch(archives) => archives.held(name, nth),
            Source::Named(named) => named.inner().held(named.original(name)?, nth),
            Source::Mapped(mapped) => (mapped.shape(name)).map(|_| Held::Weights(WeightType::F32)),
        }
    }

    /// The shape of a tensor that can be read.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shape_in(name, 0)
    }

    /// As [`Source::shape`], in one of the files that have the tensor.
    pub(crate) fn shape_in(&self, name: &str, nth: usize) -> Option<&[usize]> {
        match self {
            Source::Safetensors(shards) => shards.shape(name, nth),
            Source::Torch(archives) => Some(&archives.part(name, nth)?.get(name).ok()?.shape),
            Source::Named(named) => named.inner().shape_in(named.original(name)?, nth),
            Source::Mapped(mapped) => mapped.shape(name),
        }
    }

    /// How many files have a tensor.
    pub(crate) fn files(&self, name: &str) -> usize {
        match self {
            Source::Safetensors(shards) => shards.files(name),
            Source::Torch(archives) => archives.place.get(name).map_or(0, Vec::len),
            Source::Named(named) => named
                .original(name)
                .map_or(0, |name| named.inner().files(name)),
            Source::Mapped(mapped) => usize::from(mapped.shape(name).is_some()),
        }
    }

    /// The path of one of the files that have a tensor, for messages.
    pub(crate) fn file(&self, name: &str, nth: usize) -> &Path {
        let found = match self {
            Source::Safetensors(shards) => shards.file(name, nth).map(|file| file.path()),
            Source::Torch(archives) => archives.part(name, nth).map(Tensors::path),
            Source::Named(named) => named
                .original(name)
                .map(|name| named.inner().file(name, nth)),
            Source::Mapped(_) => None,
        };
        found.unwrap_or(self.path())
    }

    /// Calls a function with a tensor's elements in row-major order, at most `chunk` at a time.
    pub(crate) fn for_each_chunk(
        &self,
        name: &str,
        chunk: usize,
        take: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        self.for_each_chunk_in(name, 0, chunk, take)
    }

    /// As [`Source::for_each_chunk`], from one of the files that have the tensor.
    pub(crate) fn for_each_chunk_in(
        &self,
        name: &str,
        nth: usize,
        chunk: usize,
        take: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Source::Safetensors(shards) => shards.for_each_chunk(name, nth, chunk, take),
            Source::Torch(archives) => match archives.part(name, nth) {
                Some(part) => part.for_each_chunk(name, chunk, take),
                None => Err(archives.missing(name).into()),
            },
            Source::Named(named) => {
                let original = named.original(name).unwrap_or(name);
                (named.inner()).for_each_chunk_in(original, nth, chunk, take)
            }
            Source::Mapped(mapped) => mapped.for_each_chunk(name, chunk, take),
        }
    }

    /// All elements of a tensor.
    pub(crate) fn whole(&self, name: &str) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        let numbers = self.shape(name).map_or(0, elements) as usize;
        self.for_each_chunk(name, CHUNK_ELEMENTS, &mut |chunk| {
            all.reserve_exact(numbers.saturating_sub(all.len()));
            all.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(all)
    }

    /// Releases the memory of what was read; it counts as memory of this process until then. The files stay open, so
    /// later reads see the files as they were opened, even if others have taken their names.
    pub(crate) fn release(&self) {
        match self {
            Source::Safetensors(shards) => shards.release(),
            Source::Torch(archives) => archives.parts.iter().for_each(Tensors::release),
            Source::Named(named) => named.inner().release(),
            Source::Mapped(mapped) => mapped.inner().release(),
        }
    }
}

/// Bytes that were read from a source since its memory was released.
#[derive(Debug, Default)]
pub(crate) struct ReadBytes(u64);

impl ReadBytes {
    /// Counts a tensor that was read, and releases the memory of the source when it has become much.
    pub(crate) fn add(&mut self, source: &Source, name: &str) {
        const MOST: u64 = 128 << 20;
        // An element may have eight bytes; this is about pages, so a rough count is enough.
        self.0 += source.shape(name).map_or(0, elements) * size_of::<f32>() as u64;
        if self.0 > MOST {
            source.release();
            self.0 = 0;
        }
    }
}

impl Archives {
    fn open(weights: &Weights) -> Result<Archives> {
        let (parts, note) = open(weights)?;
        let mut place: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            let unread = part.unread().map(|(name, _)| name);
            let names = part.list().iter().map(|info| info.name.as_str());
            for name in names.chain(unread) {
                place.entry(name.into()).or_default().push(index);
            }
        }
        Ok(Archives {
            path: parts
                .first()
                .map(|part| part.path().into())
                .unwrap_or_default(),
            parts,
            place,
            note,
        })
    }

    /// One of the archives that have a tensor.
    fn part(&self, name: &str, nth: usize) -> Option<&Tensors> {
        self.parts.get(*self.place.get(name)?.get(nth)?)
    }

    fn held(&self, name: &str, nth: usize) -> Option<Held> {
        let part = self.part(name, nth)?;
        Some(match part.get(name).map(|info| info.dtype) {
            Ok(Dtype::F32 | Dtype::F64) => Held::Weights(WeightType::F32),
            Ok(Dtype::F16) => Held::Weights(WeightType::F16),
            Ok(Dtype::BF16) => Held::Weights(WeightType::BF16),
            Ok(other) => Held::Integers(other.to_string()),
            Err(_) => Held::Unread(part.unread_reason(name)?.into()),
        })
    }

    fn missing(&self, name: &str) -> tokenformer_formats::Error {
        tokenformer_formats::Error::MissingTensor {
            path: self.path.clone(),
            name: name.into(),
            near: Vec::new(),
            count: self.place.len(),
        }
    }
}

fn open(weights: &Weights) -> Result<(Vec<Tensors>, Option<String>)> {
    let paths = match weights {
        Weights::Torch(paths) | Weights::Safetensors(paths) => paths,
        Weights::DeepSpeed(folder) => {
            let weights = DeepSpeedFolder::open(folder)?.weights()?;
            let note = match weights.precision {
                Precision::Full => None,
                Precision::Half { shards: 0, .. } => Some(
                    "these are the half-precision weights: no files with slices of 32-bit ones (*_optim_states.pt) are there"
                        .into(),
                ),
                Precision::Half { shards, ranks } => Some(format!(
                    "these are the half-precision weights: {shards} of the {ranks} files with slices of the 32-bit ones are there"
                )),
            };
            return Ok((vec![weights.tensors], note));
        }
        Weights::Module(folder) => {
            return Ok((vec![DeepSpeedFolder::open(folder)?.module()?], None));
        }
        Weights::Frozen(folder) => {
            let frozen = DeepSpeedFolder::open(folder)?.frozen()?;
            return Ok((frozen.into_iter().collect(), None));
        }
    };
    let open = |path: &PathBuf| Ok(TorchFile::open(path)?.tensors()?);
    Ok((paths.iter().map(open).collect::<Result<_>>()?, None))
}

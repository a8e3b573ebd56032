//! Named arrays in one or several safetensors files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use tokenformer_store::{Dtype, SafetensorsFile};

use super::Held;
use crate::Result;
use crate::weight_type::WeightType;

/// Several open safetensors files, used as one.
pub(crate) struct Shards {
    paths: Vec<PathBuf>,
    files: Vec<SafetensorsFile>,
    /// Indices of the files that have each array.
    place: BTreeMap<String, Vec<usize>>,
}

impl Shards {
    /// Opens the files.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Shards> {
        let open = |path: &PathBuf| Ok(SafetensorsFile::open(path)?);
        let files: Vec<SafetensorsFile> = paths.iter().map(open).collect::<Result<_>>()?;
        let mut place: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.names() {
                place.entry(name.into()).or_default().push(index);
            }
        }
        Ok(Shards {
            paths: paths.to_vec(),
            files,
            place,
        })
    }

    /// The first file, for messages.
    pub(crate) fn path(&self) -> &Path {
        self.paths.first().map_or(Path::new(""), PathBuf::as_path)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.place.keys().map(String::as_str)
    }

    pub(crate) fn shape(&self, name: &str, nth: usize) -> Option<&[usize]> {
        self.file(name, nth)?.shape(name).ok()
    }

    pub(crate) fn held(&self, name: &str, nth: usize) -> Option<Held> {
        Some(match self.file(name, nth)?.dtype(name) {
            Ok(Dtype::F32 | Dtype::F64) => Held::Weights(WeightType::F32),
            Ok(Dtype::F16) => Held::Weights(WeightType::F16),
            Ok(Dtype::BF16) => Held::Weights(WeightType::BF16),
            Ok(other) => Held::Integers(other.to_string()),
            Err(tokenformer_store::Error::WrongDtype { got, .. }) => {
                Held::Unread(format!("its elements are {got}"))
            }
            Err(_) => return None,
        })
    }

    /// How many files have an array.
    pub(crate) fn files(&self, name: &str) -> usize {
        self.place.get(name).map_or(0, Vec::len)
    }

    /// One of the files that have an array.
    pub(crate) fn file(&self, name: &str, nth: usize) -> Option<&SafetensorsFile> {
        self.files.get(*self.place.get(name)?.get(nth)?)
    }

    /// Calls a function with an array's elements in row-major order, at most `chunk` at a time, from one of the files
    /// that have it.
    pub(crate) fn for_each_chunk(
        &self,
        name: &str,
        nth: usize,
        chunk: usize,
        take: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let (bytes, to_f32) = self.floats(name, nth)?;
        let mut numbers = Vec::with_capacity(chunk.min(bytes.len()));
        for part in bytes.chunks(chunk * to_f32.size) {
            numbers.clear();
            (to_f32.append)(part, &mut numbers);
            take(&numbers)?;
        }
        Ok(())
    }

    fn floats(&self, name: &str, nth: usize) -> Result<(&[u8], ToF32)> {
        let missing = || tokenformer_store::Error::MissingTensor {
            path: self.paths.first().cloned().unwrap_or_default(),
            name: name.into(),
            near: Vec::new(),
            count: self.place.len(),
        };
        let file = self.file(name, nth).ok_or_else(missing)?;
        let got = file.dtype(name)?;
        let to_f32 = ToF32::new(got).ok_or_else(|| tokenformer_store::Error::WrongDtype {
            path: file.path().into(),
            name: name.into(),
            expected: "F32, F16, BF16 or F64",
            got: got.to_string(),
        })?;
        Ok((file.bytes(name)?, to_f32))
    }

    /// Releases the memory of what was read.
    pub(crate) fn release(&self) {
        self.files.iter().for_each(SafetensorsFile::release_all);
    }
}

/// How elements of a type are converted to `f32`.
struct ToF32 {
    /// Size of an element in bytes.
    size: usize,
    append: fn(&[u8], &mut Vec<f32>),
}

impl ToF32 {
    fn new(dtype: Dtype) -> Option<ToF32> {
        fn all<const N: usize>(bytes: &[u8], out: &mut Vec<f32>, number: fn([u8; N]) -> f32) {
            out.extend(bytes.as_chunks().0.iter().map(|&bytes| number(bytes)));
        }
        let append: fn(&[u8], &mut Vec<f32>) = match dtype {
            Dtype::F32 => |bytes, out| all(bytes, out, f32::from_le_bytes),
            Dtype::F16 => |bytes, out| all(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => |bytes, out| all(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => |bytes, out| all(bytes, out, |b| f64::from_le_bytes(b) as f32),
            _ => return None,
        };
        Some(ToF32 {
            size: dtype.size_bytes(),
            append,
        })
    }
}

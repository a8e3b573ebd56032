//! A listing of named tensors, and their numbers.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Archive, Strided, contiguous, elements, tensor};
use crate::error::shown;
use crate::pickle::Value;
use crate::{Dtype, Error, Result};

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name; the dotted path where dicts are nested.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Steps between elements along each axis, in elements of the storage.
    pub stride: Vec<usize>,
    /// The storage that it is a view of; tensors may share one.
    pub storage: String,
    /// Its first element, in elements of the storage.
    pub offset: usize,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        // Checked when the tensor was listed.
        elements(&self.shape).unwrap_or(0)
    }
}

/// Consecutive elements in a file.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) archive: Arc<Archive>,
    pub(crate) range: Range<usize>,
}

/// Where a tensor's elements are.
#[derive(Clone)]
pub(crate) enum Source {
    /// From the first to the last element, with what the strides skip.
    View(Piece),
    /// Row-major, in several pieces, each of whole elements.
    Joined(Vec<Piece>),
}

/// The tensors of one or several files, in the order in which they were saved.
///
/// Nothing but names and shapes is in memory; numbers are read from the mapped files when they are asked for.
pub struct Tensors {
    path: PathBuf,
    infos: Vec<TensorInfo>,
    sources: Vec<Source>,
    index: HashMap<String, usize>,
}

/// Containers inside containers that are followed.
const MAX_DEPTH: usize = 32;
const MAX_NAME_BYTES: usize = 1024;

impl Tensors {
    pub(crate) fn new(path: &Path) -> Tensors {
        Tensors {
            path: path.to_path_buf(),
            infos: Vec::new(),
            sources: Vec::new(),
            index: HashMap::new(),
        }
    }

    /// Lists the tensors under a value.
    pub(super) fn collect(archive: &Arc<Archive>, value: Value<'_>) -> Result<Tensors> {
        let mut collector = Collector {
            archive,
            tensors: Tensors::new(&archive.path),
            budget_bytes: archive.budget_bytes(),
        };
        collector.visit(&mut String::new(), value, 0)?;
        Ok(collector.tensors)
    }

    /// Adds a tensor under a name that is new.
    pub(crate) fn push(&mut self, info: TensorInfo, source: Source) -> Result<()> {
        if self
            .index
            .insert(info.name.clone(), self.infos.len())
            .is_some()
        {
            return Err(Error::Damaged {
                location: self.path.display().to_string(),
                what: "two tensors have the same name".into(),
                expected: "each name once".into(),
                got: shown(&info.name),
                help: "the file is damaged or made by hand; save it again",
            });
        }
        self.infos.push(info);
        self.sources.push(source);
        Ok(())
    }

    /// Adds a view into an archive under a name that is new.
    pub(crate) fn push_strided(
        &mut self,
        archive: &Arc<Archive>,
        name: String,
        view: Strided,
    ) -> Result<()> {
        let piece = Piece {
            archive: Arc::clone(archive),
            range: view.range,
        };
        let info = TensorInfo {
            name,
            dtype: view.dtype,
            shape: view.shape,
            stride: view.stride,
            storage: view.storage,
            offset: view.offset,
        };
        self.push(info, Source::View(piece))
    }

    /// A tensor's place, to be listed elsewhere too.
    pub(crate) fn source(&self, name: &str) -> Option<(&TensorInfo, &Source)> {
        let &index = self.index.get(name)?;
        Some((self.infos.get(index)?, self.sources.get(index)?))
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors, in the order of the file.
    pub fn list(&self) -> &[TensorInfo] {
        &self.infos
    }

    /// The tensor of a name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn get(&self, name: &str) -> Result<&TensorInfo> {
        self.find(name).map(|(info, _)| info)
    }

    /// A floating-point tensor, row-major, from `F32`, `F16`, `BF16` or `F64` (rounded).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongDtype`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (info, _) = self.find_float(name)?;
        // No more elements than the file has: repeated ones are refused when the tensor is listed.
        let mut out = vec![0.0; info.elements()];
        self.read_into(name, &mut out)?;
        Ok(out)
    }

    /// Like [`read_f32`](Self::read_f32), into a buffer that has exactly the tensor's elements.
    ///
    /// # Errors
    /// [`Error::WrongSize`], [`Error::MissingTensor`], [`Error::WrongDtype`].
    pub fn read_into(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let (info, source) = self.find_float(name)?;
        if out.len() != info.elements() {
            return Err(Error::WrongSize {
                path: self.path.clone(),
                name: name.into(),
                expected: info.elements() as u64,
                got: out.len() as u64,
            });
        }
        let size = info.dtype.size_bytes();
        let mut at = 0;
        for_each_run(info, source, |bytes| {
            let count = bytes.len() / size;
            if let Some(slots) = out.get_mut(at..at + count) {
                info.dtype.to_f32(bytes, slots);
            }
            at += count;
            Ok::<(), Error>(())
        })
    }

    /// Passes a floating-point tensor's elements on in row-major order, `chunk_elements` at a time and fewer in the
    /// last chunk, so that a tensor of any size takes the memory of one chunk.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongDtype`], [`Error::Argument`] for chunks of 0, and those of `take`.
    pub fn for_each_chunk<E: From<Error>>(
        &self,
        name: &str,
        chunk_elements: usize,
        mut take: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (info, source) = self.find_float(name)?;
        if chunk_elements == 0 {
            return Err(E::from(Error::Argument {
                name: "chunk_elements",
                expected: "1 or more".into(),
                got: "0".into(),
            }));
        }
        let size = info.dtype.size_bytes();
        let mut chunk = vec![0.0; chunk_elements.min(info.elements())];
        let mut filled = 0;
        for_each_run(info, source, |mut bytes| {
            while !bytes.is_empty() {
                let slots = chunk.get_mut(filled..).unwrap_or_default();
                let count = slots.len().min(bytes.len() / size);
                let (now, later) = bytes.split_at(count * size);
                info.dtype
                    .to_f32(now, slots.get_mut(..count).unwrap_or_default());
                filled += count;
                bytes = later;
                if filled == chunk.len() {
                    take(&chunk)?;
                    filled = 0;
                }
            }
            Ok::<(), E>(())
        })?;
        match chunk.get(..filled) {
            Some(rest) if filled > 0 => take(rest),
            _ => Ok(()),
        }
    }

    fn find_float(&self, name: &str) -> Result<(&TensorInfo, &Source)> {
        let (info, source) = self.find(name)?;
        if info.dtype.is_float() {
            return Ok((info, source));
        }
        Err(Error::WrongDtype {
            path: self.path.clone(),
            name: name.into(),
            got: info.dtype,
        })
    }

    fn find(&self, name: &str) -> Result<(&TensorInfo, &Source)> {
        self.source(name).ok_or_else(|| Error::MissingTensor {
            path: self.path.clone(),
            name: name.into(),
            near: self.near(name),
            count: self.infos.len(),
        })
    }

    /// Up to three names that look like `name`.
    fn near(&self, name: &str) -> Vec<String> {
        let mut alike: Vec<(usize, &str)> = self
            .infos
            .iter()
            .map(|info| (strsim::levenshtein(name, &info.name), info.name.as_str()))
            .filter(|&(distance, other)| distance <= name.len().max(other.len()) / 2)
            .collect();
        alike.sort_unstable();
        alike
            .into_iter()
            .take(3)
            .map(|(_, other)| other.into())
            .collect()
    }
}

/// Passes on the bytes of consecutive elements, all of them in row-major order.
fn for_each_run<E>(
    info: &TensorInfo,
    source: &Source,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if info.elements() == 0 {
        return Ok(());
    }
    let piece = match source {
        Source::Joined(pieces) => {
            return pieces
                .iter()
                .try_for_each(|piece| take(piece.archive.bytes(piece.range.clone())));
        }
        Source::View(piece) => piece,
    };
    let bytes = piece.archive.bytes(piece.range.clone());
    let size = info.dtype.size_bytes();
    // Trailing axes without gaps form one run.
    let dense = info
        .shape
        .iter()
        .zip(&info.stride)
        .zip(contiguous(&info.shape))
        .rev()
        .take_while(|&((&axis, &stride), dense)| axis == 1 || stride == dense)
        .count();
    let (outer, inner) = info.shape.split_at(info.shape.len() - dense);
    let run = elements(inner).unwrap_or(0) * size;
    let mut position = vec![0usize; outer.len()];
    let mut start = 0;
    loop {
        take(
            bytes
                .get(start * size..start * size + run)
                .unwrap_or_default(),
        )?;
        // The next position of the outer axes, the last one fastest.
        let mut axes = position.iter_mut().zip(outer).zip(&info.stride).rev();
        loop {
            let Some(((at, &axis), &stride)) = axes.next() else {
                return Ok(());
            };
            *at += 1;
            // The stride of an axis of 1 is never used and may be any number; what is added here is taken back.
            start = start.wrapping_add(stride);
            if *at < axis {
                break;
            }
            start = start.wrapping_sub(stride.wrapping_mul(*at));
            *at = 0;
        }
    }
}

struct Collector<'a> {
    archive: &'a Arc<Archive>,
    tensors: Tensors,
    budget_bytes: usize,
}

impl Collector<'_> {
    fn visit(&mut self, name: &mut String, value: Value<'_>, depth: usize) -> Result<()> {
        // Shared parts may be reached in more ways than there are parts: each visit is paid for.
        const VISIT_BYTES: usize = 64;
        self.charge(VISIT_BYTES)?;
        if let Some(view) = tensor::strided(self.archive, name, value)? {
            if name.len() > MAX_NAME_BYTES {
                return Err(self.archive.damaged(
                    "a tensor's name is too long".into(),
                    format!("at most {MAX_NAME_BYTES} bytes"),
                    shown(name),
                ));
            }
            self.charge(
                2 * name.len()
                    + size_of::<TensorInfo>()
                    + 2 * size_of::<usize>() * view.shape.len(),
            )?;
            return self.tensors.push_strided(self.archive, name.clone(), view);
        }
        let children = value
            .entries()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                Some((
                    key.as_str()
                        .map(str::to_owned)
                        .or_else(|| Some(key.as_i64()?.to_string()))?,
                    value,
                ))
            });
        let elements = value
            .elements()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, value)| (index.to_string(), value));
        for (key, child) in children.chain(elements) {
            let length = name.len();
            if depth == MAX_DEPTH {
                return Err(self.archive.damaged(
                    "the values are nested too deeply".into(),
                    format!("at most {MAX_DEPTH} levels"),
                    format!("more at {}", shown(name)),
                ));
            }
            self.charge(key.len())?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(&key);
            self.visit(name, child, depth + 1)?;
            name.truncate(length);
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        match self.budget_bytes.checked_sub(bytes) {
            Some(left) => {
                self.budget_bytes = left;
                Ok(())
            }
            None => Err(self.archive.damaged(
                "listing the tensors takes more memory than the file justifies".into(),
                format!("{} bytes at most", self.archive.budget_bytes()),
                "more, by values that share parts".into(),
            )),
        }
    }
}

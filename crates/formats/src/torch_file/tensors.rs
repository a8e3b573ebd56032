//! A listing of named tensors, and their numbers.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::info::{Piece, Source, TensorInfo};
use super::runs::for_each_run;
use super::{Archive, Strided};
use crate::error::shown;
use crate::{Error, Result};

/// Limit of the total number of elements, in a file, of tensors that repeat some (expanded ones). Without it a small
/// file could have tensors of any size.
pub const MAX_REPEATED_ELEMENTS: usize = 1 << 24;

/// Memory for a tensor in a list, counted twice for vectors and tables that double as they grow.
pub(crate) fn listed_bytes(name: &str, shape: &[usize]) -> usize {
    let fixed = size_of::<TensorInfo>() + size_of::<Source>() + size_of::<String>();
    2 * (name.len() + fixed) + 2 * size_of_val(shape)
}

/// The tensors of one or several files, in the order in which they were saved.
///
/// Only names and shapes are in memory; numbers are read from the mapped files when they are requested.
pub struct Tensors {
    path: PathBuf,
    infos: Vec<TensorInfo>,
    sources: Vec<Source>,
    index: HashMap<String, usize>,
    /// The reason why a tensor, or an object in its place, is not read.
    unread: BTreeMap<String, String>,
}

impl Tensors {
    pub(crate) fn new(path: &Path) -> Tensors {
        Tensors {
            path: path.to_path_buf(),
            infos: Vec::new(),
            sources: Vec::new(),
            index: HashMap::new(),
            unread: BTreeMap::new(),
        }
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
            negated: view.negated,
        };
        self.push(info, Source::View(piece))
    }

    /// Records why a tensor is not read.
    pub(crate) fn leave_out(&mut self, name: String, why: String) {
        self.unread.insert(name, why);
    }

    /// The memory that listing the tensors took.
    pub(crate) fn held_bytes(&self) -> usize {
        let unread = self.unread.iter();
        let unread = unread.map(|(name, why)| why.len() + listed_bytes(name, &[]));
        self.infos
            .iter()
            .map(|info| info.storage.len() + listed_bytes(&info.name, &info.shape))
            .chain(unread)
            .fold(0, usize::saturating_add)
    }

    /// A tensor's place, to list it under another name too.
    pub(crate) fn source(&self, name: &str) -> Option<(&TensorInfo, &Source)> {
        let &index = self.index.get(name)?;
        Some((self.infos.get(index)?, self.sources.get(index)?))
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sorted names of objects that are not read, each with the reason: tensors of unsupported element types, classes
    /// or metadata, tensors that repeat too many elements, and values that are not tensors, such as `None` and bytes.
    pub fn unread(&self) -> impl Iterator<Item = (&str, &str)> {
        let unread = self.unread.iter();
        unread.map(|(name, why)| (name.as_str(), why.as_str()))
    }

    /// The reason why the object of a name is not read; `None` for tensors and unknown names.
    pub fn unread_reason(&self, name: &str) -> Option<&str> {
        self.unread.get(name).map(String::as_str)
    }

    /// All tensors, in the order of the file.
    pub fn list(&self) -> &[TensorInfo] {
        &self.infos
    }

    /// The tensor with this name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Unsupported`] for one that is not read.
    pub fn get(&self, name: &str) -> Result<&TensorInfo> {
        self.find(name).map(|(info, _)| info)
    }

    /// Releases the memory pages of all tensors that were read; until then they count as memory of this process. They are
    /// read again when they are needed.
    pub fn release(&self) {
        for source in &self.sources {
            let pieces = match source {
                Source::View(piece) => std::slice::from_ref(piece),
                Source::Joined(pieces) => pieces,
            };
            for piece in pieces {
                piece.archive.release(&piece.range);
            }
        }
    }

    /// A floating-point tensor, row-major, from `F32`, `F16`, `BF16` or `F64` (rounded).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongDtype`], [`Error::Unsupported`] for one that is not read, [`Error::Damaged`]
    /// for one whose storage has another checksum than was saved with it.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (info, _) = self.find_float(name)?;
        // The tensor has no more elements than the file; repeated elements were limited when it was listed.
        let mut out = vec![0.0; info.elements()];
        self.read_into(name, &mut out)?;
        Ok(out)
    }

    /// Like [`read_f32`](Self::read_f32), into a buffer that has exactly the tensor's elements.
    ///
    /// # Errors
    /// [`Error::WrongSize`], [`Error::MissingTensor`], [`Error::WrongDtype`], [`Error::Unsupported`] for one that is not
    /// read, [`Error::Damaged`] for one whose storage has another checksum than was saved with it.
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
                convert(info, bytes, slots);
            }
            at += count;
            Ok::<(), Error>(())
        })
    }

    /// Calls `take` with a floating-point tensor's elements in row-major order, `chunk_elements` at a time and fewer in
    /// the last chunk, so that a tensor of any size takes the memory of one chunk.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongDtype`], [`Error::Damaged`] for a storage that has another checksum than was saved
    /// with it, [`Error::Argument`] for chunks of 0, and errors of `take`.
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
                convert(info, now, slots.get_mut(..count).unwrap_or_default());
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
        if let Some(why) = self.unread_reason(name) {
            return Err(Error::Unsupported {
                location: format!("{}, tensor {}", self.path.display(), shown(name)),
                what: format!("the tensor is not read: {why}"),
                help: "convert it in PyTorch, for example with .float().clone(), and save it again",
            });
        }
        self.source(name).ok_or_else(|| Error::MissingTensor {
            path: self.path.clone(),
            name: name.into(),
            near: tokenformer_base::similar(name, self.infos.iter().map(|info| &*info.name)),
            count: self.infos.len(),
        })
    }
}

/// Converts elements until `out` is full.
fn convert(info: &TensorInfo, bytes: &[u8], out: &mut [f32]) {
    info.dtype.to_f32(bytes, out);
    if info.negated {
        out.iter_mut().for_each(|number| *number = -*number);
    }
}

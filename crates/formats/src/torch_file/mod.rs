//! PyTorch's `torch.save` archives.
//!
//! A ZIP file of stored entries under one folder: `data.pkl`, a pickle in which each tensor is a call of
//! `torch._utils._rebuild_tensor_v2(storage, offset, shape, stride, ...)`; `data/<key>`, the bytes of each storage;
//! `version` and `byteorder`. Many tensors may be views into one storage. Source: PyTorch's `torch/serialization.py`
//! and `caffe2/serialize/inline_container.h`.

mod archive;
mod collect;
mod info;
mod made;
mod recognise;
mod runs;
mod tensor;
mod tensors;
mod write;

use std::path::Path;
use std::sync::Arc;

pub(crate) use archive::Archive;
pub use info::TensorInfo;
pub(crate) use info::{Piece, Source};
pub(crate) use tensor::{Found, Strided, contiguous, elements, shape_of};
pub(crate) use tensors::listed_bytes;
pub use tensors::{MAX_REPEATED_ELEMENTS, Tensors};
pub use write::{TensorSink, TensorSpec, write_torch};

use crate::Result;
use crate::pickle::Value;

/// An open `torch.save` archive; storages are read when a tensor is requested.
pub struct TorchFile {
    archive: Arc<Archive>,
}

impl TorchFile {
    /// Maps the file, checks its directory and reads its pickle without executing anything.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged), [`Error::Unsupported`](crate::Error::Unsupported) (the format before
    /// PyTorch 1.6, compressed entries, big-endian machines),
    /// [`Error::RefusedGlobal`](crate::Error::RefusedGlobal), [`Error::Io`](crate::Error::Io).
    pub fn open(path: &Path) -> Result<TorchFile> {
        let archive = Arc::new(Archive::open(path)?);
        Ok(TorchFile { archive })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.archive.path
    }

    /// The saved object: most often a dict from names to tensors, possibly inside other dicts.
    pub fn root(&self) -> Value<'_> {
        self.archive.pickle.root()
    }

    /// All tensors; nested ones have their dotted path as name. A tensor that cannot be read is no error until it is
    /// requested; see [`Tensors::unread`].
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged): a tensor outside its storage, a repeated name, unlimited nesting.
    pub fn tensors(&self) -> Result<Tensors> {
        self.tensors_at(&[])
    }

    /// The tensors of a nested dict, by their path inside it: `tensors_at(&["module"])` for a DeepSpeed checkpoint.
    ///
    /// # Errors
    /// Like [`tensors`](Self::tensors), and when there is no such dict.
    pub fn tensors_at(&self, keys: &[&str]) -> Result<Tensors> {
        let value = self.root().at(keys).ok_or_else(|| {
            self.archive.damaged(
                format!(
                    "the key {} is missing",
                    crate::error::shown(&keys.join("."))
                ),
                "a dict that has it".into(),
                self.root().describe(),
            )
        })?;
        collect::collect(&self.archive, value)
    }

    /// The tensor of a value of [`root`](Self::root).
    pub(crate) fn strided(&self, name: &str, value: Value<'_>) -> Result<Option<Found>> {
        tensor::strided(&self.archive, name, value)
    }

    pub(crate) fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }
}

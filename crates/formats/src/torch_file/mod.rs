//! PyTorch's `torch.save` archives.
//!
//! A ZIP file of stored entries under one folder: `data.pkl`, a pickle in which each tensor is a call of
//! `torch._utils._rebuild_tensor_v2(storage, offset, shape, stride, ...)`; `data/<key>`, the bytes of each storage;
//! `version` and `byteorder`. Many tensors may be views into one storage. Source: PyTorch's `torch/serialization.py`
//! and `caffe2/serialize/inline_container.h`.

mod archive;
mod collect;
mod made;
mod recognise;
mod runs;
mod tensor;
mod tensors;
mod write;

use std::path::Path;
use std::sync::Arc;

pub(crate) use archive::Archive;
pub(crate) use tensor::{Found, Strided, contiguous, elements, shape_of};
pub use tensors::{MAX_REPEATED_ELEMENTS, TensorInfo, Tensors};
pub(crate) use tensors::{Piece, Source, listed_bytes};
pub use write::{TensorSink, TensorSpec, write_torch};

use crate::Result;
use crate::pickle::Value;

/// An open `torch.save` archive; storages are read when a tensor is asked for.
pub struct TorchFile {
    archive: Arc<Archive>,
}

impl TorchFile {
    /// Maps the file, checks its directory and follows its pickle without running anything.
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

    /// What was saved: most often a dict from names to tensors, perhaps inside other dicts.
    pub fn root(&self) -> Value<'_> {
        self.archive.pickle.root()
    }

    /// All tensors, nested ones by their dotted path. Those that cannot be read are no error until somebody asks for
    /// them; see [`Tensors::unread`].
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged): a tensor outside its storage, a repeated name, nesting without end.
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

    /// The tensor that a value of [`root`](Self::root) stands for.
    pub(crate) fn strided(&self, name: &str, value: Value<'_>) -> Result<Option<Found>> {
        tensor::strided(&self.archive, name, value)
    }

    pub(crate) fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }
}

//! Named tensors on disk, and directories that are published atomically.
//!
//! The crate knows nothing about models. It offers, from low level to high level:
//!
//! * [`write_safetensors`] and [`SafetensorsFile`]: a streaming writer and a strict memory-mapped reader;
//! * [`write_atomic`]: small files replaced in one step;
//! * [`DirWriter`] and [`verify`]: directories written next to their final name, hashed into a [`Manifest`], synced and
//!   renamed;
//! * [`CheckpointWriter`] and [`Checkpoints`]: the step checkpoints of a run directory, and which of them is the newest;
//! * [`resolve`]: from a path that the user typed to the directory to load.
//!
//! The same input gives the same bytes: nothing written depends on time, host, threads or map iteration order.
//!
//! ```
//! use std::collections::BTreeMap;
//! use tokenformer_store::{DirWriter, SafetensorsFile, TensorSource, verify};
//!
//! # fn main() -> Result<(), tokenformer_store::Error> {
//! # let scratch = tempfile::tempdir().unwrap();
//! let dir = scratch.path().join("model");
//! let mut writer = DirWriter::begin(&dir, "model")?;
//! let weights = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
//! writer.write_tensors("model.safetensors", &BTreeMap::new(), [TensorSource::f32("w", &[2, 3], &weights)])?;
//! writer.commit()?;
//!
//! assert_eq!(verify(&dir)?.manifest.kind, "model");
//! let file = SafetensorsFile::open(&dir.join("model.safetensors"))?;
//! assert_eq!(file.shape("w")?, [2, 3]);
//! assert_eq!(file.read_f32("w")?, weights);
//! # Ok(())
//! # }
//! ```

mod atomic_file;
mod checkpoints;
mod claim;
mod durable;
mod error;
mod hash;
mod manifest;
mod publish;
mod resolve;
mod run_lock;
mod space;
mod tensors;
mod warning;

pub use atomic_file::{read_small, write_atomic};
pub use checkpoints::{CheckpointWriter, Checkpoints};
pub use error::Error;
pub use hash::{Written, hash_file};
pub use manifest::{FileEntry, MANIFEST_NAME, Manifest, Verified, verify};
pub use publish::DirWriter;
pub use resolve::{Resolved, Which, resolve};
pub use run_lock::RunLock;
pub use space::{available_bytes, ensure_space};
pub use tensors::{
    Dtype, SafetensorsFile, TensorData, TensorSource, unique_strings, write_safetensors,
};
pub use warning::Warning;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! Readers and writers for the files of other programs.
//!
//! The crate knows nothing about models. It reads and writes
//!
//! * [`TorchFile`], [`Tensors`] and [`write_torch`]: PyTorch's `torch.save` archives, on top of [`pickle`], a reader of
//!   pickles that never executes anything;
//! * [`deepspeed`]: training folders, half-precision weights or the merged 32-bit ones;
//! * [`neox_config`]: the configurations of GPT-NeoX and of published TokenFormer models;
//! * [`megatron`]: token data (`.bin`, `.idx`), and [`samples`], the order in which GPT-NeoX trains on it, down to
//!   [`numpy_rng`], the generator behind that order.
//!
//! Files may come from untrusted sources. A malformed or hostile one leads to an [`Error`] that names the file and the
//! problem, never to a panic. Opening a file takes at most twice its size in memory plus 16 MiB. Tensors take memory
//! only when they are read, never more than the file has elements, except for expanded tensors, of which a file may
//! have up to [`MAX_REPEATED_ELEMENTS`] elements. Large files are mapped, so they must not be changed while they are
//! open.
//!
//! ```
//! use tokenformer_formats::{Dtype, Error, TensorSpec, TorchFile, write_torch};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("weights.pt");
//! let keys = TensorSpec { name: "key_param_tokens".into(), dtype: Dtype::BF16, shape: vec![2, 3] };
//! write_torch::<Error>(&path, &[keys], |_, sink| sink.write(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))?;
//!
//! let tensors = TorchFile::open(&path)?.tensors()?;
//! assert_eq!(tensors.get("key_param_tokens")?.shape, [2, 3]);
//! assert_eq!(tensors.read_f32("key_param_tokens")?, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod deepspeed;
mod dtype;
mod error;
mod file;
pub mod megatron;
pub mod neox_config;
pub mod numpy_rng;
pub mod pickle;
pub mod samples;
mod torch_file;
mod zip;

pub use dtype::Dtype;
pub use error::Error;
pub use torch_file::{
    MAX_REPEATED_ELEMENTS, TensorInfo, TensorSink, TensorSpec, Tensors, TorchFile, write_torch,
};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

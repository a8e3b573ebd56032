//! Readers and writers for the files of other programs.
//!
//! The crate knows nothing about models. It reads and writes
//!
//! * [`TorchFile`], [`Tensors`] and [`write_torch`]: PyTorch's `torch.save` archives, on top of [`pickle`], a reader of
//!   pickles in which nothing can run;
//! * [`deepspeed`]: training folders, half-precision weights or the merged 32-bit ones;
//! * [`neox_config`]: the configurations of GPT-NeoX and of published TokenFormer models;
//! * [`megatron`]: token data (`.bin`, `.idx`), and [`samples`], the order in which GPT-NeoX trains on it, down to
//!   [`numpy_rng`], the generator behind that order.
//!
//! Files may come from anywhere. A malformed or hostile one ends in an [`Error`] that names the file and what is wrong,
//! never in a panic. Opening a file takes at most twice its size in memory and 16 MiB; numbers take memory when they are
//! read, never more than the file has of them, apart from expanded tensors, which a file may have up to
//! [`MAX_REPEATED_ELEMENTS`] numbers of. Large files are mapped: nobody should write into them while they are
//! open.

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

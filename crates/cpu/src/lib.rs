//! The CPU as a [`Device`]. The kernels are functions on plain slices, and [`Cpu`] calls them with its buffers.
//!
//! ```
//! use std::sync::Arc;
//! use tokenformer_cpu::Cpu;
//! use tokenformer_device::{Device, Role};
//!
//! let device: Arc<dyn Device> = Cpu::new(Some(2));
//! let x = device.alloc_from(vec![3.0, 4.0], Role::Activation)?;
//! let mut sum = device.alloc(1, Role::Accumulator)?;
//! device.sum_of_squares(&x, &mut sum, 0)?;
//! let mut host = [0.0];
//! device.read_accumulator(&sum, &mut host)?;
//! assert_eq!(host, [25.0]);
//! # Ok::<(), tokenformer_device::DeviceError>(())
//! ```
//!
//! Every kernel takes its threads and scratch memory explicitly, as an [`Exec`], and follows one rule that makes
//! training reproducible to the byte: **no sum is ever split between threads, and the order of its terms depends only
//! on shapes**. Each number of an output is computed by one task in that order, so it does not matter which thread runs
//! the task and how many tasks there are.
//!
//! Axis letters: `R` rows (all tokens of a batch), `B` batch, `T` time, `D` width, `N` parameter
//! tokens of a site, `H` heads, `C` channels of a head, `V` vocabulary.
//!
//! Shapes are contracts between the crates of this workspace: a kernel asserts them and panics on a violation, because
//! shapes never come unchecked from outside input.
//!
//! [`Device`]: tokenformer_device::Device

pub mod adamw;
pub mod arena;
pub mod attention;
pub mod cache;
pub mod cross_entropy;
mod device;
pub mod elementwise;
pub mod exec;
pub mod gemm;
pub mod layer_norm;
mod line;
pub mod math;
pub mod pattention;
mod precision;
pub mod probe;
pub mod rotary;
pub mod rows;
pub mod simd;

pub use arena::Arena;
pub use device::Cpu;
pub use exec::{Exec, Pool, Scratch};
pub use precision::{Recommended, recommended_precision};

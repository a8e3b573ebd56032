//! CPU kernels of TokenFormer: functions over plain slices.
//!
//! Every kernel takes its threads and scratch memory explicitly, as an [`Exec`], and follows one
//! rule that makes training reproducible to the byte: **work is cut by shape, never by the number
//! of threads, and no sum is ever split between threads**. A task owns a fixed rectangle of some
//! output; which thread runs it does not matter.
//!
//! Axis letters: `R` rows (all tokens of a batch), `B` batch, `T` time, `D` width, `N` parameter
//! tokens of a site, `H` heads, `C` channels of a head, `V` vocabulary.
//!
//! Shapes are contracts between the crates of this workspace: a kernel asserts them and panics on
//! a violation, because no outside input can reach it with a wrong one.

#![warn(missing_docs)]

pub mod adamw;
pub mod arena;
pub mod attention;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod exec;
pub mod gemm;
pub mod layer_norm;
pub mod math;
pub mod pattention;
pub mod probe;
pub mod reference;
pub mod rotary;
pub mod simd;

pub use arena::Arena;
pub use exec::{Exec, Pool, Scratch};

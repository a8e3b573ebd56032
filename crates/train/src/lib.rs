//! Training runs: recipes, the loop with growth and exact resume, checkpoints, evaluation.
//!
//! [`trainer`] is the loop; [`recipe`] decides everything it does; [`files`] is what it leaves.

#![warn(missing_docs)]

mod error;
pub mod evaluate;
pub mod files;
pub mod finite;
pub mod footprint;
pub mod memory;
pub mod observer;
pub mod recipe;
pub mod sample;
pub mod schedule;
pub mod scored;
pub mod trainer;

pub use error::{Error, Result};
pub use evaluate::{EvalOptions, Evaluation, HeldOut, Protocol, evaluate};
pub use finite::ensure_finite;
pub use observer::{Observer, Progress, Silent};
pub use recipe::{Recipe, Resolved};
pub use scored::{ScoredBytes, bits_per_byte};
pub use trainer::{Outcome, Resume, Trainer};

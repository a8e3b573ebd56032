//! Training runs: recipes, the loop with growth and exact resume, checkpoints, evaluation.
//!
//! [`trainer`] is the loop, [`task`] what it trains on, [`recipe`] decides everything it does, [`files`] is what it
//! leaves.

mod accumulate;
mod best;
pub mod branch;
pub mod classifier;
pub mod continuation;
mod control;
mod divergence;
pub mod ema;
mod error;
pub mod evaluate;
mod events;
pub mod files;
pub mod finite;
pub mod footprint;
mod growing;
pub mod insight;
pub mod memory;
pub mod observer;
mod planned;
pub mod planner;
mod ranks;
pub mod recipe;
mod records;
mod run_dir;
pub mod sample;
pub mod schedule;
pub mod scored;
pub mod tally;
pub mod task;
pub mod trainer;

pub use branch::Branch;
pub use classifier::{Classifier, Labels};
pub use continuation::{Continuation, End};
pub use ema::Ema;
pub use error::{Error, Result};
pub use evaluate::{Accuracy, EvalOptions, Evaluation, HeldOut, Protocol};
pub use finite::ensure_finite;
pub use growing::Growing;
pub use observer::{Observer, Progress, Silent};
pub use planner::{GrowthPlanner, Moment};
pub use ranks::precision_of_first;
pub use recipe::{Recipe, Resolved};
pub use run_dir::Resume;
pub use scored::{ScoredBytes, bits_per_byte};
pub use tally::Tally;
pub use task::Task;
pub use trainer::{Outcome, Trainer};

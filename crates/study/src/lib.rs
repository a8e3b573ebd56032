//! The growth study: does it pay to grow a TokenFormer?
//!
//! [`profile`] and [`arms`] define what is trained, [`plan`] makes a [`graph`] of runs from it, and [`runner`] runs
//! those that have no [`result`] so far. [`vision`] is a study of the same kind on pictures.

pub mod analysis;
pub mod arms;
pub mod cluster;
pub mod context_cost;
pub mod corpus;
pub mod graph;
mod named;
pub mod plan;
pub mod planner;
pub mod profile;
pub mod recipe;
pub mod report;
pub mod result;
pub mod runner;
pub mod shapes;
pub mod speed;
pub mod stats;
mod text;
pub mod tuning;
mod turn;
pub mod verdicts;
pub mod vision;

pub use corpus::Corpus;
pub use plan::{Plan, Settings};
pub use profile::Profile;
pub use result::{NodeResult, Results};
pub use runner::{Runner, Watcher};
pub use turn::turn;

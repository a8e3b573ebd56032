//! The growth study: does it pay to grow a TokenFormer?
//!
//! [`profile`] and [`arms`] define what is trained, [`plan`] makes a [`graph`] of runs from it, and [`runner`] runs
//! those that have no [`result`] so far. [`vision`] is a study of the same kind on pictures.
//!
//! ```
//! use tokenformer_study::planner::{Law, Stage};
//!
//! // Loss as a function of effective parameters and tokens; a grown model needs 1.2 tokens for one from scratch.
//! let law = Law { e: 1.8, a: 0.9, b: 0.9, alpha: 0.34, beta: 0.28, undecayed: 0.02, k: 1.2, n0: 1e6, d0: 1e7 };
//! let [small, large] = [1e6, 4e6];
//! let grown = [Stage { size: small, tokens: 4e7 }, Stage { size: large, tokens: 1e7 }];
//! let loss = law.loss_after(&grown).expect("it grows");
//! assert!(loss < law.loss(small, 4e7) && loss > law.loss(large, 5e7));
//! ```

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

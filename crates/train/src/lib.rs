//! Training runs: recipes, the loop with growth and exact resume, checkpoints, evaluation.
//!
//! [`trainer`] is the loop, [`task`] what it trains on, [`recipe`] decides everything it does, [`files`] is what it
//! leaves.
//!
//! ```
//! use std::sync::{Arc, atomic::AtomicBool};
//! use tokenformer_core::Device;
//! use tokenformer_data::{Document, DocumentSource, PrepareOptions, prepare};
//! use tokenformer_train::{Outcome, Resume, Silent, Trainer, recipe::resolve_table};
//!
//! let folder = tempfile::tempdir()?;
//! let data = folder.path().join("data");
//! let document = |n: u32| Document { source: format!("story {n}"), text: format!("{n} little ducks went out one day. ").repeat(9) };
//! let source = DocumentSource::Memory { label: "ducks".into(), documents: (0..20).map(document).collect() };
//! prepare(&PrepareOptions::new(source, data.clone()), |_| ())?;
//!
//! // A recipe, as a file of TOML would have it: one growth after half of the updates.
//! let mut recipe: toml::Table = toml::from_str(
//!     "model = { width = 16, layers = 1, heads = 2, context = 32, norm = 'segment', slots = { qkv = 8, proj = 8, ffn = 16 } }
//!      train = { steps = 4, batch = 2 }
//!      grow = [{ at_step = 2, qkv = '+8', proj = '+8', ffn = '+16' }]",
//! )?;
//! recipe.insert("data".into(), toml::Table::from_iter([("dir".to_string(), data.display().to_string().into())]).into());
//! let resolved = resolve_table(recipe, "ducks.toml", &[])?;
//!
//! let device: Arc<dyn Device> = tokenformer_cpu::Cpu::new(Some(1));
//! let run = folder.path().join("run");
//! let mut silent = Silent;
//! let mut trainer = Trainer::new(&resolved, &run, &Resume::Auto, &device, &mut silent)?;
//! assert_eq!(trainer.run(&AtomicBool::new(false))?, Outcome::Finished);
//! assert!(run.join("report.html").is_file());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

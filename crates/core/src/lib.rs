//! TokenFormer: a Transformer whose projections are attention to learnable parameter tokens.
//!
//! Read [`model`] first: it is the network, forward only. [`site`] holds the parameter tokens, [`grow`]
//! appends to them, [`graph`] replays operations backward, [`device`] is the seam behind which they are
//! computed.

#![warn(missing_docs)]

pub mod config;
pub mod cpu;
pub mod device;
mod error;
pub mod generate;
pub mod graph;
pub mod grow;
pub mod init;
pub mod memory;
pub mod model;
pub mod optim;
pub mod param;
pub mod precision;
pub mod presets;
pub mod published;
pub mod reference;
pub mod site;
mod version;

pub use config::{ModelConfig, ModelSpec, SiteKind};
pub use cpu::Cpu;
pub use device::{Device, WeightFormat};
pub use error::{Error, Result};
pub use graph::Graph;
pub use memory::Memory;
pub use model::{Cache, Model};
pub use precision::Precision;

/// The name among `known` that is nearest to `name`, if any is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing takes memory by the product of the lengths, and what is so long is near nothing.
    const LONGEST: usize = 100;
    if name.len() > LONGEST {
        return None;
    }
    let distance = |k: &str| strsim::damerau_levenshtein(name, k);
    let best = known.into_iter().min_by_key(|k| distance(k))?;
    (distance(best) <= 1 + name.chars().count() / 3).then_some(best)
}

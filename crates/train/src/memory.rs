//! Memory, planned before it is taken.

use crate::error::{Error, Result};
use tokenformer_core::config::BlockConfig;
use tokenformer_core::{ModelConfig, SiteKind};
use tokenformer_report::table::human_bytes;

/// Bytes that a training run will hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingPlan {
    /// Weights, gradients and two moments.
    pub state_bytes: u64,
    /// What the tape keeps of a micro-batch, and work areas.
    pub activation_bytes: u64,
}

impl TrainingPlan {
    /// The plan for micro-batches of `batch` sequences of `context` tokens.
    pub fn new(config: &ModelConfig, batch: usize, context: usize) -> Self {
        let float = size_of::<f32>() as u64;
        let (rows, d) = (
            (batch as u64).saturating_mul(context as u64),
            config.width as u64,
        );
        let tokens = |kind, block: usize| config.blocks[block].site(kind).tokens() as u64;
        let mut per_row = 4 * d;
        let mut largest = 0;
        for block in 0..config.layers() {
            let sites: u64 = SiteKind::ALL.map(|kind| tokens(kind, block)).iter().sum();
            // Two norms, query, key, value, attention output; and the scores of the five sites.
            per_row += 6 * d + sites + 10;
            largest = SiteKind::ALL
                .map(|kind| tokens(kind, block))
                .into_iter()
                .fold(largest, u64::max);
        }
        let work = (4 << 20).max(32 * config.vocab as u64);
        Self {
            state_bytes: config.params().saturating_mul(4 * float),
            activation_bytes: rows
                .saturating_mul(per_row + largest + 4 * d)
                .saturating_add(work)
                .saturating_mul(float),
        }
    }

    /// All bytes.
    pub fn total_bytes(&self) -> u64 {
        self.state_bytes.saturating_add(self.activation_bytes)
    }
}

/// Bytes that this process may still take, as far as the system tells.
pub fn available_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let free = system
        .cgroup_limits()
        .map_or(u64::MAX, |limits| limits.free_memory);
    Some(system.available_memory().min(free)).filter(|&bytes| bytes > 0)
}

/// Refuses what cannot fit.
///
/// # Errors
/// [`Error::Memory`] if `needed_bytes` is more than is available.
pub fn ensure(what: &str, needed_bytes: u64, help: &str) -> Result<()> {
    match available_bytes() {
        Some(available) if needed_bytes > available => Err(Error::Memory {
            what: what.into(),
            needed: human_bytes(needed_bytes),
            available: human_bytes(available),
            help: help.into(),
        }),
        _ => Ok(()),
    }
}

/// Bytes of the work areas of a forward pass over `rows` tokens that nothing is learned from.
pub fn inference_bytes(config: &ModelConfig, rows: u64) -> u64 {
    let tokens = |block: &BlockConfig| SiteKind::ALL.map(|kind| block.site(kind).tokens());
    let largest = (config.blocks.iter()).flat_map(tokens).fold(0, usize::max) as u64;
    rows.saturating_mul(largest + 8 * config.width as u64)
        .saturating_mul(size_of::<f32>() as u64)
}

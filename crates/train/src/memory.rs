//! Memory estimates before anything is allocated.

mod available;

use crate::error::{Error, Result};
use std::path::Path;
use tokenformer_core::config::BlockConfig;
use tokenformer_core::device::{Collective, Device};
use tokenformer_core::optim::MomentFormat;
use tokenformer_core::{ModelConfig, Recompute};
use tokenformer_report::table::human_bytes;

/// Lower bound of the bytes of a training run, from its shapes alone; [`crate::footprint`] is accurate to a few
/// percent, but slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingPlan {
    /// Weights and two moments.
    pub state_bytes: u64,
    /// Gradients.
    pub gradient_bytes: u64,
    /// Memory of the tape for a micro-batch.
    pub activation_bytes: u64,
    /// Scratch memory of kernels.
    pub work_bytes: u64,
}

impl TrainingPlan {
    /// The plan for micro-batches of `batch` sequences of `context` tokens, and a backward pass that
    /// recomputes what `recompute` says. Moments are kept in the form given.
    pub fn new(
        config: &ModelConfig,
        batch: usize,
        context: usize,
        recompute: Recompute,
        moments: MomentFormat,
    ) -> Self {
        let float = size_of::<f32>() as u64;
        let rows = (batch as u64).saturating_mul(context as u64);
        let d = config.width as u64;
        let (mut per_row, mut largest) = (2 * d, 0);
        for block in &config.blocks {
            let tokens = block.layers().map(|layer| layer.hidden() as u64);
            // Two norms, query, key, value, attention output; and the scores of the five sites.
            let (values, scores) = (6 * d + 10, tokens.iter().sum::<u64>());
            let most = tokens.into_iter().fold(0, u64::max);
            let again = match recompute {
                Recompute::None => most,
                Recompute::Scores => 2 * most,
                Recompute::Blocks => values + 2 * most,
            };
            largest = again.max(largest);
            per_row += match recompute {
                Recompute::None => values + scores,
                Recompute::Scores => values,
                Recompute::Blocks => d,
            };
        }
        let work = (4 << 20).max(32 * config.vocab as u64);
        let params = config.params();
        Self {
            state_bytes: params.saturating_mul(float + 2 * moments.bytes()),
            gradient_bytes: params.saturating_mul(float),
            activation_bytes: rows.saturating_mul(per_row).saturating_mul(float),
            work_bytes: rows
                .saturating_mul(largest + 4 * d)
                .saturating_add(work)
                .saturating_mul(float),
        }
    }

    /// The plan if `params` parameters are frozen: they have neither gradients nor moments.
    #[must_use]
    pub fn with_frozen(self, params: u64, moments: MomentFormat) -> Self {
        let less = |bytes: u64, each: u64| bytes.saturating_sub(params.saturating_mul(each));
        Self {
            state_bytes: less(self.state_bytes, 2 * moments.bytes()),
            gradient_bytes: less(self.gradient_bytes, size_of::<f32>() as u64),
            ..self
        }
    }

    /// The plan on a device whose activations have `bytes` bytes each.
    pub fn with_activations_of(self, bytes: usize) -> Self {
        let part = |all: u64| all / size_of::<f32>() as u64 * bytes as u64;
        Self {
            activation_bytes: part(self.activation_bytes),
            work_bytes: part(self.work_bytes),
            ..self
        }
    }

    /// Total bytes: gradients are allocated while activations are freed.
    pub fn total_bytes(&self) -> u64 {
        let shared = self.gradient_bytes.max(self.activation_bytes);
        (self.state_bytes.saturating_add(shared)).saturating_add(self.work_bytes)
    }
}

/// Bytes that this process can still allocate on the host, if the system reports it.
///
/// In a container this is what its limits leave, never more than what the machine has. Memory that only caches files
/// counts as available.
pub fn available_bytes() -> Option<u64> {
    available::available_bytes(Path::new("/proc")).or_else(|| {
        // Not Linux.
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        Some(system.available_memory()).filter(|&bytes| bytes > 0)
    })
}

/// Returns an error if `needed_bytes` do not fit into the memory that a device uses.
///
/// # Errors
/// [`Error::Memory`] if `needed_bytes` is more than is available.
pub fn ensure(device: &dyn Device, what: &str, needed_bytes: u64, help: &str) -> Result<()> {
    match device.free_bytes() {
        None => ensure_on_host(what, needed_bytes, help),
        Some(free) if needed_bytes > free => {
            let available = format!("{} on {}", human_bytes(free), device.describe());
            Err(too_large(what, needed_bytes, available, help))
        }
        Some(_) => Ok(()),
    }
}

/// As [`ensure`], of the host's memory.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_on_host(what: &str, needed_bytes: u64, help: &str) -> Result<()> {
    match available_bytes() {
        Some(available) if needed_bytes > available => {
            Err(too_large(what, needed_bytes, human_bytes(available), help))
        }
        _ => Ok(()),
    }
}

fn too_large(what: &str, needed_bytes: u64, available: String, help: &str) -> Error {
    Error::Memory {
        what: what.into(),
        needed: human_bytes(needed_bytes),
        available,
        help: help.into(),
    }
}

/// As [`ensure`], of `needed_bytes` on every rank: those of a machine share its memory. All ranks end if one of them has too
/// little, and none takes memory before all have looked.
///
/// # Errors
/// As [`ensure`], and if another rank has too little memory.
pub fn ensure_on_ranks(
    device: &dyn Device,
    what: &str,
    needed_bytes: u64,
    help: &str,
    ranks: &dyn Collective,
) -> Result<()> {
    // Launchers usually give every rank a GPU of its own, so ranks share only the host's memory.
    let here = match device.free_bytes() {
        Some(_) => 1,
        None => ranks.ranks_here() as u64,
    };
    let on_all = match here {
        1 => what.into(),
        _ => format!("{what} on the {here} ranks of a machine"),
    };
    let own = ensure(device, &on_all, needed_bytes.saturating_mul(here), help);
    let is_refused = ranks.any(own.is_err())?;
    own?;
    match is_refused {
        false => Ok(()),
        true => Err(Error::Ranks {
            problem: format!("{what}: another rank has not enough memory"),
            expected: format!("{} available for each rank", human_bytes(needed_bytes)),
            got: "less on another machine".into(),
            help: help.into(),
        }),
    }
}

/// Bytes of scratch memory of a forward pass over `rows` tokens without gradients.
pub fn inference_bytes(config: &ModelConfig, rows: u64) -> u64 {
    let tokens = |block: &BlockConfig| block.layers().map(|layer| layer.hidden());
    let largest = (config.blocks.iter()).flat_map(tokens).fold(0, usize::max) as u64;
    rows.saturating_mul(largest + 8 * config.width as u64)
        .saturating_mul(size_of::<f32>() as u64)
}

/// Memory of this process, where the system reports it (Linux).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Bytes now.
    pub now_bytes: u64,
    /// The most so far.
    pub peak_bytes: u64,
}

/// Resident memory of this process.
pub fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident {
        now_bytes: status_bytes(&status, "VmRSS:")?,
        peak_bytes: status_bytes(&status, "VmHWM:")?,
    })
}

fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

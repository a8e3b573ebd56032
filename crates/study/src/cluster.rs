//! How long an update takes on many processors, and how much memory and communication it needs: arithmetic over a few stated
//! rates, for decisions before machines are rented.
//!
//! ```
//! use tokenformer_study::cluster::{H100, Job, LINK_400G, Way, model};
//!
//! let config = model("150m").unwrap();
//! let job = Job { config: &config, windows: 1024, context: 2048, way: Way::default() };
//! let [few, many] = [8, 64].map(|ranks| job.on(ranks, &H100, &LINK_400G));
//! assert!(many.step_s < few.step_s && many.efficiency < few.efficiency);
//! ```

use serde::Serialize;
use tokenformer_core::optim::MomentFormat;
use tokenformer_core::presets::Preset;
use tokenformer_core::{MESSAGE, ModelConfig, Owners, Recompute};
use tokenformer_train::memory::TrainingPlan;

/// A processor that one rank uses, and the node that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Hardware {
    /// Its name.
    pub name: &'static str,
    /// Floating-point operations per second that training sustains.
    pub flop_rate: f64,
    /// Memory of one rank.
    pub memory_bytes: f64,
    /// Bytes per second of that memory.
    pub memory_rate: f64,
    /// Ranks in a node.
    pub per_node: usize,
    /// Bytes per second and direction between the ranks of a node.
    pub inside_rate: f64,
    /// Bytes of a number of the tape.
    pub activation_bytes: f64,
}

/// Share of the peak that training sustains on a GPU: published runs of models of this size reach 0.33 to 0.49.
pub const SUSTAINED: f64 = 0.42;

/// 80 GB, NVLink 4.
pub const H100: Hardware = Hardware {
    name: "h100",
    flop_rate: SUSTAINED * 989e12,
    memory_bytes: 80e9,
    memory_rate: 3.35e12,
    per_node: 8,
    inside_rate: 450e9,
    activation_bytes: 2.0,
};

/// 141 GB, NVLink 4.
pub const H200: Hardware = Hardware {
    name: "h200",
    memory_bytes: 141e9,
    memory_rate: 4.8e12,
    ..H100
};

/// 80 GB, NVLink 3.
pub const A100: Hardware = Hardware {
    name: "a100",
    flop_rate: SUSTAINED * 312e12,
    memory_bytes: 80e9,
    memory_rate: 2.0e12,
    per_node: 8,
    inside_rate: 300e9,
    activation_bytes: 2.0,
};

/// A CPU rank: its rate must be measured (`bench train`).
pub const CPU: Hardware = Hardware {
    name: "cpu",
    flop_rate: 0.0,
    memory_bytes: 16e9,
    memory_rate: 20e9,
    per_node: 2,
    inside_rate: 1e9,
    activation_bytes: 4.0,
};

/// The network between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Link {
    /// Its name.
    pub name: &'static str,
    /// Bytes per second and direction of a node.
    pub rate: f64,
    /// Seconds until the first byte of a message has come.
    pub latency_s: f64,
}

/// 400 Gb/s for each node.
pub const LINK_400G: Link = Link {
    name: "400g",
    rate: 50e9,
    latency_s: 5e-6,
};

/// 10 Gb/s for each node.
pub const LINK_10G: Link = Link {
    name: "10g",
    rate: 1.25e9,
    latency_s: 50e-6,
};

/// All nodes in one NVLink domain, at the rate inside a node.
pub const LINK_NVLINK: Link = Link {
    name: "nvlink",
    rate: f64::INFINITY,
    latency_s: 5e-6,
};

/// How the ranks work together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Whether gradients are added in the order of micro-batches.
    pub is_ordered: bool,
    /// Whether each rank keeps a part of the moments.
    pub is_sharded: bool,
}

/// An update to plan.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The model.
    pub config: &'a ModelConfig,
    /// Sequences of an update, on all ranks.
    pub windows: u64,
    /// Tokens of a sequence.
    pub context: usize,
    /// How the ranks work together.
    pub way: Way,
}

/// What an update takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Ranks.
    pub ranks: usize,
    /// Seconds of an update.
    pub step_s: f64,
    /// Seconds of the forward and backward passes.
    pub compute_s: f64,
    /// Seconds of the optimizer.
    pub update_s: f64,
    /// Seconds of communication, hidden or not.
    pub reduce_s: f64,
    /// Seconds of communication that the backward pass does not hide.
    pub exposed_s: f64,
    /// Speed over that of as many single ranks.
    pub efficiency: f64,
    /// Sequences of a micro-batch, as many as fit.
    pub micro_batch: u64,
    /// Micro-batches of a rank.
    pub accumulate: u64,
    /// Bytes that a rank sends in an update.
    pub sent_bytes: f64,
    /// Memory of a rank.
    pub memory_bytes: f64,
    /// What is wrong or slow with it, the worst first.
    pub limits: Vec<String>,
}

/// Bytes of weights and gradients for a parameter: both in f32.
const WEIGHT_AND_GRADIENT: f64 = 8.0;
/// Bytes of the copy of a weight that products read, where it is not the weight itself.
const COPY: f64 = 2.0;
/// Bytes of both moments.
const MOMENTS: f64 = 8.0;
/// Bytes that the optimizer moves: it reads five numbers and writes three, with some of the gradient norm.
const UPDATE: f64 = 36.0;
/// Share of a micro-batch's time that is the backward pass.
const BACKWARD: f64 = 2.0 / 3.0;
/// Bytes of a gradient on the wire.
const WIRE: f64 = 4.0;
/// Share of the computing time above which communication that is not hidden counts as a limit.
const NOTABLE: f64 = 0.1;

impl Job<'_> {
    /// Operations of an update.
    pub fn flops(&self) -> f64 {
        let tokens = self.windows as f64 * self.context as f64;
        tokens * self.config.train_flops_per_token(self.context)
    }

    /// The update on `ranks` ranks.
    pub fn on(&self, ranks: usize, hardware: &Hardware, link: &Link) -> Estimate {
        let params = self.config.params() as f64;
        let of_rank = self.windows.div_ceil(ranks as u64).max(1);
        let (state_bytes, window_bytes) = self.memory(ranks, hardware);
        let room = ((hardware.memory_bytes - state_bytes) / window_bytes).floor();
        let micro_batch = (room.max(1.0) as u64).min(of_rank);
        let accumulate = of_rank.div_ceil(micro_batch);
        let window_s = self.context as f64 * self.config.train_flops_per_token(self.context)
            / hardware.flop_rate;
        let compute_s = of_rank as f64 * window_s;
        let updated = if self.way.is_sharded {
            params / ranks as f64
        } else {
            params
        };
        let update_s = UPDATE * updated / hardware.memory_rate;

        let messages = if self.way.is_ordered {
            accumulate as f64
        } else {
            1.0
        };
        let (once_s, share) = one_way(ranks, params * WIRE, hardware, link);
        // Gradients go to their owners, for each micro-batch in the ordered way, and sums or weights come back once.
        let reduce_s = once_s * (messages + 1.0);
        let hidden_s = BACKWARD * compute_s * messages / accumulate as f64;
        let exposed_s = (once_s * messages - hidden_s).max(0.0) + once_s;
        let step_s = compute_s + update_s + exposed_s;
        let ideal_s = self.windows as f64 / ranks as f64 * window_s;
        let mut estimate = Estimate {
            ranks,
            step_s,
            compute_s,
            update_s,
            reduce_s,
            exposed_s,
            efficiency: ideal_s / step_s,
            micro_batch,
            accumulate,
            sent_bytes: params * WIRE * share * (messages + 1.0),
            memory_bytes: state_bytes + micro_batch as f64 * window_bytes,
            limits: Vec::new(),
        };
        estimate.limits = self.limits(&estimate, hardware, room);
        estimate
    }

    /// Bytes of weights, gradients and moments of a rank, and of a window.
    fn memory(&self, ranks: usize, hardware: &Hardware) -> (f64, f64) {
        let params = self.config.params() as f64;
        let copy = if hardware.activation_bytes < 4.0 {
            COPY
        } else {
            0.0
        };
        let moments = match self.way.is_sharded {
            true => MOMENTS / ranks as f64,
            false => MOMENTS,
        };
        let plan = TrainingPlan::new(
            self.config,
            1,
            self.context,
            Recompute::None,
            MomentFormat::F32,
        );
        let window = plan.activation_bytes as f64 / 4.0 * hardware.activation_bytes;
        (params * (WEIGHT_AND_GRADIENT + copy + moments), window)
    }

    fn limits(&self, found: &Estimate, hardware: &Hardware, room: f64) -> Vec<String> {
        let mut limits = Vec::new();
        let ranks = found.ranks;
        if room < 1.0 {
            limits.push("a rank has no room for one sequence".to_string());
        }
        if ranks as u64 > self.windows {
            limits.push(format!(
                "{} ranks have no sequence",
                ranks as u64 - self.windows
            ));
        } else if !self.windows.is_multiple_of(ranks as u64) {
            limits.push("sequences cannot be divided evenly".into());
        }
        if self.way.is_ordered {
            let gathered = (MESSAGE * ranks) as f64 * WIRE;
            if gathered > 0.05 * hardware.memory_bytes {
                let gib = gathered / f64::from(1 << 30);
                limits.push(format!(
                    "a message gathered from all ranks takes {gib:.1} GiB"
                ));
            }
        }
        if self.way.is_ordered || self.way.is_sharded {
            let excess = self.imbalance(ranks);
            if excess > 1.5 {
                limits.push(format!(
                    "the largest array makes its owner do {excess:.1} times the mean"
                ));
            }
        }
        if found.exposed_s > NOTABLE * found.compute_s {
            let share = 100.0 * found.exposed_s / found.step_s;
            limits.push(format!(
                "communication that nothing hides: {share:.0} % of the step"
            ));
        }
        if found.update_s > NOTABLE * found.compute_s {
            let share = 100.0 * found.update_s / found.step_s;
            limits.push(format!("the optimizer: {share:.0} % of the step"));
        }
        limits
    }

    /// Numbers of the rank that owns most over the mean: an array is never divided between owners.
    fn imbalance(&self, ranks: usize) -> f64 {
        let mut owners = Owners::new(ranks);
        let table = self.config.vocab * self.config.width;
        let sites = self.config.blocks.iter().flat_map(|block| block.layers());
        // Two arrays a layer, of equal size; what is small beside them is left out.
        let arrays = sites.flat_map(|layer| [layer.hidden() * self.config.width; 2]);
        owners.extend(std::iter::once(table).chain(arrays).enumerate());
        let most = owners.loads().iter().copied().max().unwrap_or(0) as f64;
        let mean = owners.loads().iter().sum::<usize>() as f64 / ranks as f64;
        most / mean.max(1.0)
    }
}

/// Seconds until `bytes` on every rank have gone to their owners (or back), and the share of them that a rank sends.
fn one_way(ranks: usize, bytes: f64, hardware: &Hardware, link: &Link) -> (f64, f64) {
    if ranks <= 1 {
        return (0.0, 0.0);
    }
    let inside = ranks.min(hardware.per_node) as f64;
    let nodes = (ranks as f64 / hardware.per_node as f64).ceil();
    let inside_s = (inside - 1.0) / inside * bytes / hardware.inside_rate;
    // The ranks of a node have added up their gradients, so that a node sends them once.
    let between_s = (nodes - 1.0) / nodes * bytes / link.rate;
    let latency_s = (ranks as f64).log2().ceil() * link.latency_s;
    (
        inside_s + between_s + latency_s,
        (ranks as f64 - 1.0) / ranks as f64,
    )
}

/// The model of a preset.
///
/// # Errors
/// If there is no preset of this name.
pub fn model(preset: &str) -> tokenformer_train::Result<ModelConfig> {
    Ok(Preset::named(preset)?.spec().build()?)
}

/// Time of an iteration of the published 150M run, which its authors state for 64 GPUs: 1024 sequences of 2048 tokens.
pub const PUBLISHED_STEP_S: f64 = 0.633;

#[cfg(test)]
mod tests {
    use super::*;

    fn job(config: &ModelConfig, way: Way) -> Job<'_> {
        Job {
            config,
            windows: 1024,
            context: 2048,
            way,
        }
    }

    #[test]
    fn one_rank_computes_and_sends_nothing() {
        let config = model("150m").unwrap();
        let found = job(&config, Way::default()).on(1, &H100, &LINK_10G);
        assert_eq!(
            (found.reduce_s, found.sent_bytes, found.exposed_s),
            (0.0, 0.0, 0.0)
        );
        let expected = job(&config, Way::default()).flops() / H100.flop_rate;
        assert!((found.compute_s / expected - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_slow_network_shows_and_an_ordered_sum_of_more_micro_batches_sends_more() {
        let config = model("1.5b").unwrap();
        let of = |way, link: &Link| job(&config, way).on(64, &A100, link);
        let plain = Way::default();
        let ordered = Way {
            is_ordered: true,
            ..plain
        };
        assert!(of(plain, &LINK_10G).step_s > 2.0 * of(plain, &LINK_400G).step_s);
        let [a, b] = [plain, ordered].map(|way| of(way, &LINK_400G));
        let times = (b.accumulate as f64 + 1.0) / 2.0;
        assert!((b.sent_bytes / a.sent_bytes / times - 1.0).abs() < 1e-12);
        let few = of(plain, &LINK_10G);
        assert!(
            few.limits
                .iter()
                .any(|limit| limit.contains("nothing hides")),
            "{:?}",
            few.limits
        );
    }

    #[test]
    fn sharded_moments_take_their_part_of_the_memory() {
        let config = model("1.5b").unwrap();
        let memory = |is_sharded| {
            let way = Way {
                is_sharded,
                ..Way::default()
            };
            let found = job(&config, way).on(64, &H100, &LINK_400G);
            found.memory_bytes - found.micro_batch as f64 * job(&config, way).memory(64, &H100).1
        };
        let saved = memory(false) - memory(true);
        let expected = MOMENTS * config.params() as f64 * (1.0 - 1.0 / 64.0);
        assert!((saved / expected - 1.0).abs() < 1e-9);
    }

    #[test]
    fn at_ten_thousand_ranks_the_sequences_run_out_first() {
        let config = model("150m").unwrap();
        let found = job(&config, Way::default()).on(10_000, &H100, &LINK_400G);
        assert_eq!(found.limits[0], "8976 ranks have no sequence");
        assert!(found.efficiency < 0.1);
    }
}

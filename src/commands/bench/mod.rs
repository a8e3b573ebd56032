//! `bench`: speed and memory of training, prefill, decoding and classifying, of single kernels and of growth, compared
//! with what the machine can do at most.

mod decode;
mod growth;
mod kernels;
mod machine;
mod predict;
mod prefill;
mod speed;
mod sums;
mod train;

use super::device_in;
use crate::args::{BenchArgs, BenchWhat};
use crate::{Failure, devices, usage};
use std::sync::Arc;
use tokenformer_core::optim::MomentFormat;
use tokenformer_core::presets::Preset;
use tokenformer_core::{Device, ModelConfig, ModelSpec, Precision, Recompute, WeightFormat};
use tokenformer_train::Result;
use tokenformer_train::memory::{self, TrainingPlan};

/// Runs the verb; returns the exit code, which is that of the rank where this process only guards one.
pub fn run(args: &BenchArgs) -> std::result::Result<i32, Failure> {
    let setup = Setup::new(args)?;
    match args.what {
        BenchWhat::Train => speed::train(&setup)?,
        BenchWhat::Prefill => speed::prefill(&setup)?,
        BenchWhat::Decode => speed::decode(&setup)?,
        BenchWhat::Predict => speed::predict(&setup)?,
        BenchWhat::Kernels => kernels::run(&setup)?,
        BenchWhat::Growth => growth::run(&setup)?,
        BenchWhat::Sums => return sums::run(args),
    }
    Ok(0)
}

/// The checked settings of a measurement.
struct Setup<'a> {
    args: &'a BenchArgs,
    spec: ModelSpec,
    config: ModelConfig,
    /// Sequences or pictures at a time.
    batch: usize,
    /// Tokens of each sequence, or positions of each picture.
    context: usize,
}

impl<'a> Setup<'a> {
    fn new(args: &'a BenchArgs) -> Result<Self> {
        if args.steps == 0 {
            return Err(usage("--steps", "at least 1", 0, "5 or more give a median"));
        }
        let trains = matches!(args.what, BenchWhat::Train | BenchWhat::Growth);
        if !trains && args.recompute != Recompute::None {
            let help = "only training has a backward pass: `bench train` or `bench growth`";
            return Err(usage("--recompute", "none", args.recompute, help));
        }
        const MAX_BATCH: usize = 1 << 10;
        if let Some(batch) = args.batch
            && !(1..=MAX_BATCH).contains(&batch)
        {
            let help = "leave it out for the usual batch";
            return Err(usage("--batch", "between 1 and 1024", batch, help));
        }
        let spec = Preset::named(&args.preset)?.spec();
        let config = spec.build()?;
        if let BenchWhat::Prefill | BenchWhat::Decode | BenchWhat::Growth = args.what
            && !config.input.is_tokens()
        {
            let help = "a model of pictures has `bench train`, `bench predict` and `bench kernels`";
            return Err(usage("--preset", "a language model", &args.preset, help));
        }
        // The published sizes are measured on one sequence or a few pictures, small ones on a small batch.
        let (batch, context) = match (args.what, config.input.is_tokens(), config.width) {
            (BenchWhat::Decode, ..) => (1, decode::CONTEXT.min(config.context)),
            (BenchWhat::Predict, ..) => (1, config.context),
            (_, true, 768..) => (1, 512),
            (_, true, _) => (8, config.context.min(256)),
            (_, false, 768..) => (4, config.context),
            (_, false, _) => (64, config.context),
        };
        let batch = args.batch.unwrap_or(batch);
        Ok(Self {
            args,
            spec,
            config,
            batch,
            context,
        })
    }

    /// Tokens of all sequences, or positions of all pictures.
    fn rows(&self) -> usize {
        self.batch * self.context
    }

    fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        self.args.compute.threads.unwrap_or_else(all)
    }

    /// The precision of training.
    fn precision(&self) -> Result<Precision> {
        self.args.precision.training().ok_or_else(|| {
            let help = "8-bit weights are for decode and prefill";
            usage("--precision", "f32, bf16 or auto", "int8", help)
        })
    }

    /// The format of weights for inference.
    fn weights(&self) -> Result<WeightFormat> {
        self.args.precision.weights().ok_or_else(|| {
            let help = "what weights are kept as is yours to choose";
            usage("--precision", "f32, bf16 or int8", "auto", help)
        })
    }

    fn is_on_gpu(&self) -> bool {
        devices::is_gpu(self.args.compute.device.as_deref())
    }

    fn device(&self, precision: Precision) -> Result<Arc<dyn Device>> {
        device_in(&self.args.compute, precision)
    }

    /// Returns an error if there is too little memory to train the model.
    fn ensure_training(&self, config: &ModelConfig) -> Result<()> {
        let moments = MomentFormat::default();
        let recompute = self.args.recompute;
        let plan = TrainingPlan::new(config, self.batch, self.context, recompute, moments);
        let device = self.device(self.precision()?)?;
        let plan = plan.with_activations_of(device.activation_bytes());
        self.ensure(&*device, plan.total_bytes())
    }

    fn ensure(&self, device: &dyn Device, bytes: u64) -> Result<()> {
        memory::ensure(device, "the benchmark", bytes, "choose a smaller --preset")
    }
}

/// Forward operations per position, attention at half under a causal mask.
fn flops_per_token(config: &ModelConfig, context: usize) -> f64 {
    let full = config.forward_flops_per_token(context);
    match config.causal {
        true => full - 2.0 * (config.layers() * config.width * context) as f64,
        false => full,
    }
}

fn tokens(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % vocab) as u32).collect()
}

/// Numbers between -1 and 1, as pixels are after their normalisation.
fn pixels(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| (i * 7919 % 255) as f32 / 127.0 - 1.0)
        .collect()
}

/// The median.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

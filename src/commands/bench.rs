//! `bench`: speed and memory of training, prefill and decoding, beside what the machine can do at most.

use super::{device_in, print_json};
use crate::args::{BenchArgs, BenchWhat};
use crate::usage;
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::generate::Session;
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::param::Gradients;
use tokenformer_core::presets::Preset;
use tokenformer_core::{Device, Graph, Model, ModelConfig};
use tokenformer_kernels::{Exec, Pool, Scratch, probe};
use tokenformer_report::table::{human_bytes, human_count};
use tokenformer_train::Result;
use tokenformer_train::memory::{self, TrainingPlan};

/// Positions up to which decoding is timed.
const DECODE_CONTEXT: usize = 128;
/// Prompt tokens before decoding.
const DECODE_PROMPT: usize = 16;

#[derive(serde::Serialize)]
struct Output {
    what: &'static str,
    preset: String,
    params: u64,
    precision: &'static str,
    threads: usize,
    computed_on: String,
    batch: usize,
    context: usize,
    steps: usize,
    tokens_per_s: f64,
    min: f64,
    max: f64,
    step_ms: f64,
    peak_rss_bytes: Option<u64>,
    gflops: f64,
    read_gb_per_s: f64,
    share_of_limit: Option<f64>,
    machine: Machine,
}

#[derive(serde::Serialize)]
struct Machine {
    peak_gflops: Option<f64>,
    read_gb_per_s: f64,
}

/// Runs the verb.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.steps == 0 {
        return Err(usage("--steps", "at least 1", 0, "5 or more give a median"));
    }
    let precision = args.precision.resolve();
    let device = device_in(&args.compute, precision)?;
    let config = Preset::named(&args.preset)?.spec().build()?;
    // The published sizes are measured on one sequence, small ones on a small batch.
    let (batch, context) = match config.width {
        768.. => (1, 512),
        _ => (8, config.context.min(256)),
    };
    let needed = match args.what {
        BenchWhat::Train => TrainingPlan::new(&config, batch, context).total_bytes(),
        BenchWhat::Prefill | BenchWhat::Decode => config.params() * 5,
    };
    memory::ensure("the benchmark", needed, "choose a smaller --preset")?;
    let threads = args
        .compute
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let machine = measure_machine(threads);
    let (what, times, tokens, batch, context) = match args.what {
        BenchWhat::Train => (
            "train",
            train(&config, batch, context, args.steps, &device)?,
            batch * context,
            batch,
            context,
        ),
        BenchWhat::Prefill => {
            let batch = if config.width >= 768 { 1 } else { batch };
            (
                "prefill",
                prefill(&config, batch, context, args.steps, &device)?,
                batch * context,
                batch,
                context,
            )
        }
        BenchWhat::Decode => {
            let context = DECODE_CONTEXT.min(config.context);
            (
                "decode",
                decode(&config, context, args.steps, &device)?,
                1,
                1,
                context,
            )
        }
    };
    let mut rates: Vec<f64> = times.iter().map(|s| tokens as f64 / s).collect();
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    let forward = flops_per_token(&config, context);
    let gflops = median * forward * if what == "train" { 3.0 } else { 1.0 } / 1e9;
    let read = median / batch as f64 * config.params() as f64 * 4.0 / 1e9;
    let share = match what {
        "decode" => Some(read / machine.read_gb_per_s),
        _ => machine.peak_gflops.map(|peak| gflops / peak),
    };
    let output = Output {
        what,
        preset: args.preset.clone(),
        params: config.params(),
        precision: precision.name(),
        threads,
        computed_on: device.describe(),
        batch,
        context,
        steps: times.len(),
        tokens_per_s: median,
        min: rates[0],
        max: rates[rates.len() - 1],
        step_ms: 1e3 * tokens as f64 / median,
        peak_rss_bytes: peak_rss_bytes(),
        gflops,
        read_gb_per_s: if what == "decode" { read } else { 0.0 },
        share_of_limit: share,
        machine,
    };
    if args.json {
        print_json(&output);
        return Ok(());
    }
    outln!(
        "{what} {}: {} parameters, batch {batch} x {context}, {}",
        output.preset,
        human_count(output.params),
        output.computed_on
    );
    outln!(
        "tokens/s       {:.1} (median of {}; {:.1} to {:.1})",
        output.tokens_per_s,
        output.steps,
        output.min,
        output.max
    );
    outln!("step           {:.2} ms", output.step_ms);
    if let Some(bytes) = output.peak_rss_bytes {
        outln!("peak memory    {}", human_bytes(bytes));
    }
    let m = &output.machine;
    let of = |limit: String| match share {
        Some(share) => format!(", {:.0} % of the {limit}", 100.0 * share),
        None => String::new(),
    };
    match what {
        "decode" => {
            println!(
                "weights read   {read:.1} GB/s{}",
                of(format!(
                    "{:.1} GB/s that the machine reads",
                    m.read_gb_per_s
                ))
            );
        }
        _ => {
            let peak = m.peak_gflops.unwrap_or_default();
            println!(
                "computes       {gflops:.0} GFLOP/s{}",
                of(format!("{peak:.0} GFLOP/s that its units do"))
            );
        }
    }
    Ok(())
}

/// Forward operations per token, attention at half for the causal mask.
fn flops_per_token(config: &ModelConfig, context: usize) -> f64 {
    let full = config.forward_flops_per_token(context);
    full - 2.0 * (config.layers() * config.width * context) as f64
}

fn tokens(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % vocab) as u32).collect()
}

/// Seconds of each step.
fn train(
    config: &ModelConfig,
    batch: usize,
    context: usize,
    steps: usize,
    device: &Arc<dyn Device>,
) -> Result<Vec<f64>> {
    let mut model = Model::fresh(device, config, 0)?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model)?;
    let mut gradients = Gradients::zeros(device, model.params())?;
    let inputs = tokens(batch * context, config.vocab);
    let targets = tokens(batch * context + 1, config.vocab)[1..].to_vec();
    let mut step = || -> Result<f64> {
        let started = Instant::now();
        gradients.reset(device)?;
        let mut g = Graph::training(device, &mut gradients);
        model.loss(&mut g, &inputs, &targets, batch, 1.0 / inputs.len() as f32)?;
        g.backward()?;
        optimizer.step(&mut model, &gradients, 1e-4)?;
        Ok(started.elapsed().as_secs_f64())
    };
    step()?;
    (0..steps).map(|_| step()).collect()
}

fn prefill(
    config: &ModelConfig,
    batch: usize,
    context: usize,
    steps: usize,
    device: &Arc<dyn Device>,
) -> Result<Vec<f64>> {
    let model = Model::fresh(device, config, 0)?;
    let inputs = tokens(batch * context, config.vocab);
    let mut cache = model.cache(batch, context)?;
    let last: Vec<u32> = (1..=batch).map(|b| (b * context - 1) as u32).collect();
    let mut step = || -> Result<f64> {
        let started = Instant::now();
        cache.truncate(0);
        let mut g = Graph::inference(device);
        let hidden = model.hidden(&mut g, &inputs, batch, Some(&mut cache))?;
        let hidden = g.select_rows(&hidden, &last)?;
        model.logits(&mut g, &hidden)?;
        Ok(started.elapsed().as_secs_f64())
    };
    step()?;
    (0..steps).map(|_| step()).collect()
}

/// Mean seconds per token of each pass from the prompt to `context` positions.
fn decode(
    config: &ModelConfig,
    context: usize,
    steps: usize,
    device: &Arc<dyn Device>,
) -> Result<Vec<f64>> {
    let model = Model::fresh(device, config, 0)?;
    let inputs = tokens(context, config.vocab);
    let pass = || -> Result<f64> {
        let mut session = Session::new(&model, context)?;
        session.feed(&inputs[..DECODE_PROMPT])?;
        let started = Instant::now();
        for token in &inputs[DECODE_PROMPT..] {
            session.feed(&[*token])?;
        }
        Ok(started.elapsed().as_secs_f64() / (context - DECODE_PROMPT) as f64)
    };
    pass()?;
    (0..steps).map(|_| pass()).collect()
}

fn measure_machine(threads: usize) -> Machine {
    const FLOATS: usize = 64 << 20;
    let pool = Pool::new(threads);
    let mut scratch = Scratch::default();
    let mut exec = Exec {
        pool: &pool,
        scratch: &mut scratch,
    };
    let peak_gflops = probe::peak_flops(&mut exec).map(|flops| flops / 1e9);
    let memory = vec![1.0f32; FLOATS];
    Machine {
        peak_gflops,
        read_gb_per_s: probe::read_bandwidth(&mut exec, &memory) / 1e9,
    }
}

/// Largest resident memory of this process so far, where the system tells (Linux).
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

//! `bench`: speed and memory of training, prefill and decoding, beside what the machine can do at most.

mod decode;
mod machine;
mod prefill;
mod train;

use self::machine::Machine;
use super::{device_in, print_json};
use crate::args::{BenchArgs, BenchWhat};
use crate::usage;
use tokenformer_core::presets::Preset;
use tokenformer_core::{ModelConfig, Precision, WeightFormat};
use tokenformer_report::table::{human_bytes, human_count};
use tokenformer_train::Result;
use tokenformer_train::memory::{self, TrainingPlan};

#[derive(serde::Serialize)]
struct Output {
    what: &'static str,
    preset: String,
    params: u64,
    precision: &'static str,
    threads: usize,
    computed_on: String,
    memory: tokenformer_core::Memory,
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

/// Runs the verb.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.steps == 0 {
        return Err(usage("--steps", "at least 1", 0, "5 or more give a median"));
    }
    const MAX_BATCH: usize = 1 << 10;
    if let Some(batch) = args.batch
        && !(1..=MAX_BATCH).contains(&batch)
    {
        let help = "leave it out for the usual batch";
        return Err(usage("--batch", "between 1 and 1024", batch, help));
    }
    let training = args.precision.training().ok_or_else(|| {
        let help = "8-bit weights are for decode and prefill";
        usage("--precision", "f32, bf16 or auto", "int8", help)
    });
    let weights = args.precision.weights().ok_or_else(|| {
        let help = "what weights are kept as is yours to choose";
        usage("--precision", "f32, bf16 or int8", "auto", help)
    });
    let (precision, weights) = match args.what {
        BenchWhat::Train => (training?, WeightFormat::F32),
        BenchWhat::Prefill | BenchWhat::Decode => (Precision::F32, weights?),
    };
    let device = device_in(&args.compute, precision)?;
    let config = Preset::named(&args.preset)?.spec().build()?;
    // The published sizes are measured on one sequence, small ones on a small batch.
    let (batch, context) = match config.width {
        768.. => (1, 512),
        _ => (8, config.context.min(256)),
    };
    let batch = args.batch.unwrap_or(match args.what {
        BenchWhat::Decode => 1,
        BenchWhat::Train | BenchWhat::Prefill => batch,
    });
    let needed = match args.what {
        BenchWhat::Train => TrainingPlan::new(&config, batch, context, args.memory).total_bytes(),
        BenchWhat::Prefill | BenchWhat::Decode => weights
            .bytes(config.params())
            .saturating_add(memory::inference_bytes(&config, (batch * context) as u64)),
    };
    memory::ensure("the benchmark", needed, "choose a smaller --preset")?;
    let threads = args
        .compute
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let machine = Machine::measure(threads);
    let (what, times, tokens, batch, context) = match args.what {
        BenchWhat::Train => (
            "train",
            train::run(&config, [batch, context], args.memory, args.steps, &device)?,
            batch * context,
            batch,
            context,
        ),
        BenchWhat::Prefill => (
            "prefill",
            prefill::run(&config, batch, context, weights, args.steps, &device)?,
            batch * context,
            batch,
            context,
        ),
        BenchWhat::Decode => {
            let context = decode::CONTEXT.min(config.context);
            (
                "decode",
                decode::run(&config, batch, context, weights, args.steps, &device)?,
                batch,
                batch,
                context,
            )
        }
    };
    let mut rates: Vec<f64> = times.iter().map(|s| tokens as f64 / s).collect();
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    let forward = flops_per_token(&config, context);
    let gflops = median * forward * if what == "train" { 3.0 } else { 1.0 } / 1e9;
    let read = median / batch as f64 * weights.bytes(config.params()) as f64 / 1e9;
    let share = match what {
        "decode" => Some(read / machine.read_gb_per_s),
        _ => machine.peak_gflops.map(|peak| gflops / peak),
    };
    let output = Output {
        what,
        preset: args.preset.clone(),
        params: config.params(),
        precision: match args.what {
            BenchWhat::Train => precision.name(),
            BenchWhat::Prefill | BenchWhat::Decode => weights.name(),
        },
        threads,
        computed_on: device.describe(),
        memory: args.memory,
        batch,
        context,
        steps: times.len(),
        tokens_per_s: median,
        min: rates[0],
        max: rates[rates.len() - 1],
        step_ms: 1e3 * tokens as f64 / median,
        peak_rss_bytes: memory::resident().map(|r| r.peak_bytes),
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
            outln!(
                "weights read   {read:.1} GB/s{}",
                of(format!(
                    "{:.1} GB/s that the machine reads",
                    m.read_gb_per_s
                ))
            );
        }
        _ => {
            let peak = m.peak_gflops.unwrap_or_default();
            outln!(
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

//! Tokens per second of training, prefill and decoding; pictures per second of training and classifying.

use super::machine::Machine;
use super::{Setup, decode, flops_per_token, predict, prefill, train};
use crate::commands::print_json;
use crate::usage;
use std::sync::Arc;
use tokenformer_core::{Device, Precision, Recompute};
use tokenformer_report::table::{human_bytes, human_count};
use tokenformer_train::{Result, memory};

#[derive(serde::Serialize)]
struct Output<'a> {
    what: &'static str,
    preset: &'a str,
    params: u64,
    precision: &'static str,
    threads: usize,
    computed_on: String,
    recompute: Recompute,
    batch: usize,
    context: usize,
    steps: usize,
    /// Of a language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_s: Option<f64>,
    /// Of a model of pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    images_per_s: Option<f64>,
    /// The least and the most of them.
    min: f64,
    max: f64,
    step_ms: f64,
    peak_rss_bytes: Option<u64>,
    gflops: f64,
    read_gb_per_s: f64,
    share_of_limit: Option<f64>,
    /// Of the CPU alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<Machine>,
}

/// What was timed.
struct Timed {
    what: &'static str,
    precision: &'static str,
    computed_on: String,
    /// Seconds of each step.
    seconds: Vec<f64>,
    /// Tokens or pictures of a step.
    items: usize,
    /// Operations of a step.
    flops: f64,
    /// Bytes of weights that a step reads, where reading them is the limit.
    read_bytes: Option<u64>,
}

/// Training steps.
pub fn train(setup: &Setup<'_>) -> Result<()> {
    let precision = setup.precision()?;
    setup.ensure_training(&setup.config)?;
    let device = setup.device(precision)?;
    let shape = [setup.batch, setup.context];
    let recompute = setup.args.recompute;
    report(
        setup,
        Timed {
            what: "train",
            precision: precision.name(),
            computed_on: device.describe(),
            seconds: train::run(&setup.config, shape, recompute, setup.args.steps, &device)?,
            items: match setup.config.input.is_tokens() {
                true => setup.rows(),
                false => setup.batch,
            },
            // Forward once; backward to the inputs and to the weights.
            flops: 3.0 * forward_flops(setup, setup.rows()),
            read_bytes: None,
        },
    )
}

/// Passes over prompts.
pub fn prefill(setup: &Setup<'_>) -> Result<()> {
    inference(setup, "prefill", prefill::run, setup.rows(), false)
}

/// Tokens one after the other.
pub fn decode(setup: &Setup<'_>) -> Result<()> {
    inference(setup, "decode", decode::run, setup.batch, true)
}

/// Passes over pictures.
pub fn predict(setup: &Setup<'_>) -> Result<()> {
    let Some(image) = setup.config.input.image() else {
        let help = "`bench prefill` and `bench decode` are for language models";
        return Err(usage(
            "--preset",
            "a model of pictures",
            &setup.args.preset,
            help,
        ));
    };
    let run = |setup: &Setup<'_>, device: &Arc<dyn Device>| predict::run(setup, device, image);
    inference(setup, "predict", run, setup.batch, false)
}

/// Operations of a forward pass over `positions`.
fn forward_flops(setup: &Setup<'_>, positions: usize) -> f64 {
    positions as f64 * flops_per_token(&setup.config, setup.context)
}

fn inference(
    setup: &Setup<'_>,
    what: &'static str,
    run: impl FnOnce(&Setup<'_>, &Arc<dyn Device>) -> Result<Vec<f64>>,
    items: usize,
    is_read_bound: bool,
) -> Result<()> {
    let weights = setup.weights()?;
    let weight_bytes = weights.bytes(setup.config.params());
    let work_bytes = memory::inference_bytes(&setup.config, setup.rows() as u64);
    let device = setup.device(Precision::F32)?;
    setup.ensure(&*device, weight_bytes.saturating_add(work_bytes))?;
    report(
        setup,
        Timed {
            what,
            precision: weights.name(),
            computed_on: device.describe(),
            seconds: run(setup, &device)?,
            items,
            flops: match setup.config.input.is_tokens() {
                true => forward_flops(setup, items),
                false => forward_flops(setup, setup.rows()),
            },
            read_bytes: is_read_bound.then_some(weight_bytes),
        },
    )
}

fn report(setup: &Setup<'_>, timed: Timed) -> Result<()> {
    let mut rates: Vec<f64> = (timed.seconds.iter())
        .map(|s| timed.items as f64 / s)
        .collect();
    rates.sort_by(f64::total_cmp);
    let rate = rates[rates.len() / 2];
    let steps_per_s = rate / timed.items as f64;
    let gflops = steps_per_s * timed.flops / 1e9;
    let of_texts = setup.config.input.is_tokens();
    let read = (timed.read_bytes).map(|bytes| steps_per_s * bytes as f64 / 1e9);
    // The peak is read first, because measuring the machine takes memory of its own.
    let peak_rss_bytes = (!setup.is_on_gpu())
        .then(memory::resident)
        .flatten()
        .map(|resident| resident.peak_bytes);
    let machine = (!setup.is_on_gpu()).then(|| Machine::measure(setup.threads()));
    let of_limit = |machine: &Machine| match read {
        Some(read) => Some(read / machine.read_gb_per_s),
        None => machine.peak_gflops.map(|peak| gflops / peak),
    };
    let output = Output {
        what: timed.what,
        preset: &setup.args.preset,
        params: setup.config.params(),
        precision: timed.precision,
        threads: setup.threads(),
        computed_on: timed.computed_on,
        recompute: setup.args.recompute,
        batch: setup.batch,
        context: setup.context,
        steps: rates.len(),
        tokens_per_s: of_texts.then_some(rate),
        images_per_s: (!of_texts).then_some(rate),
        min: rates[0],
        max: rates[rates.len() - 1],
        step_ms: 1e3 / steps_per_s,
        peak_rss_bytes,
        gflops,
        read_gb_per_s: read.unwrap_or_default(),
        share_of_limit: machine.as_ref().and_then(of_limit),
        machine,
    };
    match setup.args.json {
        true => print_json(&output),
        false => print(
            &output,
            if of_texts { "tokens/s" } else { "images/s" },
            rate,
        ),
    }
    Ok(())
}

fn print(output: &Output<'_>, unit: &str, rate: f64) {
    outln!(
        "{} {}: {} parameters, batch {} x {}, {}",
        output.what,
        output.preset,
        human_count(output.params),
        output.batch,
        output.context,
        output.computed_on
    );
    outln!(
        "{unit:<15}{rate:.1} (median of {}; {:.1} to {:.1})",
        output.steps,
        output.min,
        output.max
    );
    outln!("step           {:.2} ms", output.step_ms);
    if let Some(bytes) = output.peak_rss_bytes {
        outln!("peak memory    {}", human_bytes(bytes));
    }
    let machine = output.machine.as_ref();
    let (name, value, limit) = match output.read_gb_per_s > 0.0 {
        true => (
            "weights read",
            format!("{:.1} GB/s", output.read_gb_per_s),
            machine.map(|m| format!("{:.1} GB/s that the machine reads", m.read_gb_per_s)),
        ),
        false => (
            "computes",
            format!("{:.0} GFLOP/s", output.gflops),
            machine
                .and_then(|m| m.peak_gflops)
                .map(|peak| format!("{peak:.0} GFLOP/s that its units do")),
        ),
    };
    match output.share_of_limit.zip(limit) {
        Some((share, limit)) => outln!("{name:<15}{value}, {:.0} % of the {limit}", 100.0 * share),
        None => outln!("{name:<15}{value}"),
    }
}

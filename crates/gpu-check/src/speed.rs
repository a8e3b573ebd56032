//! Speed: copies, products, training steps.

use crate::{Memory, Report, Result};
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::presets::Preset;
use tokenformer_core::{Gradients, Graph, Model};
use tokenformer_cuda::{Cuda, Factor, Gemm, Gpu, Number};
use tokenformer_device::{Device, Precision};
use tokenformer_testing::Random;

/// Measures the milliseconds that queued work takes on the GPU.
pub type Timer<'a> = &'a dyn Fn(&mut dyn FnMut() -> Result<()>) -> Result<f64>;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of several measurements, after one that is not counted.
fn repeated(timer: Timer<'_>, times: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    timer(&mut work)?;
    let all: Result<Vec<f64>> = (0..times).map(|_| timer(&mut work)).collect();
    Ok(median(all?))
}

/// Bytes per second of copies inside the GPU's memory; reads and writes both count.
///
/// # Errors
/// If the GPU fails.
pub fn copy_bandwidth(gpu: &dyn Gpu, bytes: usize, timer: Timer<'_>) -> Result<Report> {
    let (from, to) = (Memory::new(gpu, bytes)?, Memory::new(gpu, bytes)?);
    let ms = repeated(timer, 10, || {
        // SAFETY: both have as many bytes.
        unsafe { gpu.copy(from.at, to.at, bytes) }?;
        Ok(())
    })?;
    let rate = 2.0 * bytes as f64 / ms / 1e6;
    Ok((
        format!("copies: {rate:.0} GB/s read and written"),
        vec![("copy (GB/s)".into(), rate)],
    ))
}

/// TFLOP/s of the products of a step of `rows` rows in bfloat16 at a width, number of tokens and vocabulary: scores,
/// outputs, the gradients of both, and those of the head.
///
/// # Errors
/// If the GPU fails.
pub fn product_rates(
    gpu: &dyn Gpu,
    rows: usize,
    [width, tokens, vocab]: [usize; 3],
    timer: Timer<'_>,
) -> Result<Report> {
    // Rows, columns, terms, which factor is transposed, the type of the result, and whether it is added.
    let shapes = [
        (
            "scores X K'",
            [rows, tokens, width],
            [false, true],
            Number::Bf16,
            0.0,
        ),
        (
            "output S V",
            [rows, width, tokens],
            [false, false],
            Number::Bf16,
            0.0,
        ),
        (
            "weight gradient S' dY",
            [tokens, width, rows],
            [true, false],
            Number::F32,
            1.0,
        ),
        (
            "logits H E'",
            [rows, vocab, width],
            [false, true],
            Number::Bf16,
            0.0,
        ),
        (
            "head's input dL E",
            [rows, width, vocab],
            [false, false],
            Number::Bf16,
            0.0,
        ),
        (
            "table gradient dL' H",
            [vocab, width, rows],
            [true, false],
            Number::F32,
            1.0,
        ),
    ];
    let mut values = Vec::new();
    for (name, [m, n, k], [ta, tb], c_number, beta) in shapes {
        let memory = |len: usize, number: Number| -> Result<Memory<'_>> {
            let memory = Memory::new(gpu, len * number.bytes())?;
            // SAFETY: it has as many bytes.
            unsafe { gpu.zero(memory.at, len * number.bytes())? };
            Ok(memory)
        };
        let (a, b, c) = (
            memory(m * k, Number::Bf16)?,
            memory(k * n, Number::Bf16)?,
            memory(m * n, c_number)?,
        );
        fill(&a)?;
        fill(&b)?;
        let factor = |memory: &Memory<'_>, transposed, rows, cols| Factor {
            at: memory.at,
            number: Number::Bf16,
            row_stride: if transposed { rows } else { cols },
            transposed,
            batch_stride: 0,
        };
        let gemm = Gemm {
            m,
            n,
            k,
            a: factor(&a, ta, m, k),
            b: factor(&b, tb, k, n),
            c: c.at,
            c_number,
            c_row_stride: n,
            c_batch_stride: 0,
            alpha: 1.0,
            beta,
            batch: 1,
        };
        let ms = repeated(timer, 10, || {
            // SAFETY: the operands fill their memory.
            unsafe { gpu.gemm(&gemm) }?;
            Ok(())
        })?;
        let rate = 2.0 * (m * n) as f64 * k as f64 / ms / 1e9;
        values.push((format!("{name} {m}x{n}x{k} (TFLOP/s)"), rate));
    }
    let slowest = values
        .iter()
        .map(|(_, rate)| *rate)
        .fold(f64::INFINITY, f64::min);
    Ok((format!("products: {slowest:.0} TFLOP/s or more"), values))
}

/// Random numbers in bfloat16: zeros would need less power, and so run faster than real numbers.
fn fill(memory: &Memory<'_>) -> Result<()> {
    const PART: usize = 1 << 20;
    let part: Vec<u8> = Random::new(3)
        .normals(PART.min(memory.bytes / 2), 1.0)
        .iter()
        .flat_map(|x| ((x.to_bits() >> 16) as u16).to_ne_bytes())
        .collect();
    for start in (0..memory.bytes).step_by(part.len()) {
        let bytes = part.len().min(memory.bytes - start);
        // SAFETY: the part lies inside of the memory.
        unsafe { memory.gpu.upload(&part[..bytes], memory.at.plus(start))? };
    }
    Ok(())
}

/// Milliseconds, tokens per second, share of the peak and memory of training steps of a preset. `peak_tflops` is the
/// GPU's for dense products in bfloat16, if it is known; operations are counted as `6 N + 12 L T d` a token.
///
/// # Errors
/// If the GPU fails.
pub fn training_step(
    gpu: &Arc<dyn Gpu>,
    preset: &str,
    [batch, context]: [usize; 2],
    steps: usize,
    peak_tflops: Option<f64>,
) -> Result<Report> {
    let mut spec = Preset::named(preset)?.spec();
    spec.context = context;
    let config = spec.build()?;
    let device: Arc<dyn Device> = Cuda::new(Arc::clone(gpu), Precision::Bf16);
    let mut model = Model::fresh(&device, &config, 0)?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model)?;
    let mut gradients = Gradients::zeros(&device, model.params())?;
    let tokens = Random::new(1).tokens(batch * context + 1, config.vocab);
    let rows = batch * context;
    let mut step = || -> Result<f64> {
        let started = Instant::now();
        gradients.reset();
        let mut graph = Graph::training(&device, &mut gradients);
        model.loss(
            &mut graph,
            &tokens[..rows],
            &tokens[1..],
            batch,
            1.0 / rows as f32,
        )?;
        graph.backward()?;
        optimizer.step(&mut model, &gradients, 1e-4)?;
        // The loss is read in every step; the rest of the step has to be waited for.
        device.synchronize()?;
        Ok(started.elapsed().as_secs_f64())
    };
    step()?;
    let all: Result<Vec<f64>> = (0..steps).map(|_| step()).collect();
    let all = all?;
    let (fastest, slowest) = (
        all.iter().copied().fold(f64::INFINITY, f64::min),
        all.iter().copied().fold(0.0, f64::max),
    );
    let seconds = median(all);
    let rate = rows as f64 / seconds;
    let gib = device.usage().total() as f64 / (1u64 << 30) as f64;
    let parameters = model.param_count() as f64;
    let flops = 6.0 * parameters + 12.0 * (config.layers() * context * config.width) as f64;
    let mut values = vec![
        ("step (ms)".into(), seconds * 1e3),
        ("fastest step (ms)".into(), fastest * 1e3),
        ("slowest step (ms)".into(), slowest * 1e3),
        ("tokens per second".into(), rate),
        ("memory (GiB)".into(), gib),
    ];
    let mut line = format!(
        "{preset} at {batch}x{context}: {:.1} ms, {rate:.0} tokens/s, {gib:.1} GiB",
        seconds * 1e3
    );
    if let Some(peak) = peak_tflops {
        let share = rate * flops / (peak * 1e12);
        line += &format!(", MFU {:.1} %", share * 100.0);
        values.push(("MFU (6N + 12LTd)".into(), share));
    }
    Ok((line, values))
}

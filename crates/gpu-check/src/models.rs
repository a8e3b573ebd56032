//! Whole models on a GPU: training against the CPU, growth, and too little memory.

use crate::{Report, Result};
use std::sync::Arc;
use tokenformer_core::config::NormSpan;
use tokenformer_core::growth::{Amount, Birth, Growth, Probe, grow};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::presets::Preset;
use tokenformer_core::{Gradients, Graph, Model, ModelSpec};
use tokenformer_cpu::Cpu;
use tokenformer_cuda::{Cuda, Gpu};
use tokenformer_device::{Device, DeviceError, Precision, Role};
use tokenformer_testing::Random;

fn spec(preset: &str) -> Result<ModelSpec> {
    Ok(Preset::named(preset)?.spec())
}

/// Mean losses of `steps` training steps.
fn train(
    device: &Arc<dyn Device>,
    spec: &ModelSpec,
    batch: usize,
    steps: usize,
    seed: u64,
) -> Result<Vec<f64>> {
    let mut model = Model::fresh(device, &spec.build()?, 7)?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model)?;
    let mut gradients = Gradients::zeros(device, model.params())?;
    let mut random = Random::new(seed);
    // Half of the vocabulary, so that there is something to learn.
    let mut losses = Vec::new();
    for _ in 0..steps {
        let tokens = random.tokens(batch * spec.context + 1, spec.vocab / 2);
        let (inputs, targets) = (&tokens[..tokens.len() - 1], &tokens[1..]);
        gradients.reset();
        let mut graph = Graph::training(device, &mut gradients);
        let weight = 1.0 / inputs.len() as f32;
        let all = model.loss(&mut graph, inputs, targets, batch, weight)?;
        graph.backward()?;
        optimizer.step(&mut model, &gradients, 3e-3)?;
        losses.push(all.iter().map(|x| f64::from(*x)).sum::<f64>() / all.len() as f64);
    }
    Ok(losses)
}

/// Trains a preset on the GPU and on the CPU, from the same weights on the same tokens. Losses must agree within
/// `limit`, and fall.
///
/// # Errors
/// If they do not, or a device fails.
pub fn losses(
    gpu: &Arc<dyn Gpu>,
    precision: Precision,
    preset: &str,
    steps: usize,
    seed: u64,
) -> Result<Report> {
    let spec = spec(preset)?;
    let cpu: Arc<dyn Device> = Cpu::new(None);
    let cuda: Arc<dyn Device> = Cuda::new(Arc::clone(gpu), precision);
    let want = train(&cpu, &spec, 2, steps, seed)?;
    let got = train(&cuda, &spec, 2, steps, seed)?;
    // Differences grow with the steps; in f32 they come from other orders of sums only.
    let limit = match precision {
        Precision::F32 => 2e-3,
        Precision::Bf16 => 5e-2,
    };
    let differences = got.iter().zip(&want).map(|(got, want)| (got - want).abs());
    let largest = differences.fold(
        0.0,
        |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) },
    );
    let (first, last) = (want[0], want[steps - 1]);
    if largest > limit {
        return Err(format!("losses of {preset} differ by {largest:.1e} from those of the CPU, allowed {limit:.0e}: {got:?}").into());
    }
    if got[steps - 1] >= got[0] {
        return Err(format!("the loss of {preset} does not fall: {got:?}").into());
    }
    Ok((
        format!(
            "{steps} steps of {preset} in {precision}: loss {first:.4} to {last:.4}, as on the CPU"
        ),
        vec![
            ("largest difference (nats)".into(), largest),
            ("first loss (nats)".into(), got[0]),
            ("last loss (nats)".into(), got[steps - 1]),
        ],
    ))
}

/// Grows a preset with a norm per segment, by odd numbers of tokens, so that rows of scores begin anywhere: no bit of a logit may
/// change.
///
/// # Errors
/// If one does, or the GPU fails.
pub fn growth(gpu: &Arc<dyn Gpu>, precision: Precision, preset: &str, seed: u64) -> Result<Report> {
    let mut spec = spec(preset)?;
    spec.norm = NormSpan::Segment;
    let device: Arc<dyn Device> = Cuda::new(Arc::clone(gpu), precision);
    let mut model = Model::fresh(&device, &spec.build()?, seed)?;
    let growth = Growth {
        qkv: Amount::To(spec.slots.qkv * 2 + 7),
        proj: Amount::To(spec.slots.proj * 2 + 1),
        ffn: Amount::To(spec.slots.ffn * 3 + 5),
        layers: 1,
        ..Growth::default()
    };
    let birth = Birth {
        stage: 1,
        step: 0,
        seed,
    };
    let probe = Random::new(seed).tokens(spec.context.min(48), spec.vocab);
    let report = grow(&mut model, &growth, birth, Probe::text(&probe))?;
    if report.max_logit_diff != 0.0 {
        return Err(format!(
            "growth of {preset} in {precision} changes a logit by {}",
            report.max_logit_diff
        )
        .into());
    }
    Ok((
        format!(
            "{preset} in {precision} grew from {} to {} parameters and computes the same bits",
            report.params_before, report.params_after
        ),
        vec![("largest logit difference".into(), report.max_logit_diff)],
    ))
}

/// Asks for more memory than there is: an error that says so, after which the GPU still works.
///
/// # Errors
/// If it is another error, or none.
pub fn out_of_memory(gpu: &Arc<dyn Gpu>) -> Result<Report> {
    let total = gpu.memory()?.total;
    let device: Arc<dyn Device> = Cuda::new(Arc::clone(gpu), Precision::F32);
    match device.alloc(total / 4 + 1, Role::Weight) {
        Ok(_) => return Err("more memory was allocated than there is".into()),
        Err(DeviceError::OutOfMemory { .. }) => {}
        Err(other) => return Err(format!("another error: {other}").into()),
    }
    let small = device.alloc_from(vec![1.0, 2.0], Role::Weight)?;
    let mut numbers = [0.0; 2];
    device.read(&small, &mut numbers)?;
    match numbers == [1.0, 2.0] {
        true => Ok((
            "too large an allocation is refused, and the next one works".into(),
            vec![(
                "total memory (GiB)".into(),
                total as f64 / (1u64 << 30) as f64,
            )],
        )),
        false => Err(format!("after it, {numbers:?} is read for [1, 2]").into()),
    }
}

//! Shared by the tests: small models, and common operations on them.
#![allow(dead_code)]

use proptest::test_runner::{Config, RngSeed};
use rand::Rng;
use std::sync::Arc;
use tokenformer_core::config::{
    Family, HeadKind, LogitScale, ModelSpec, NormKind, Positions, Residual, Slots,
};
use tokenformer_core::device::{Buffer, reference::Reference};
use tokenformer_core::growth::Probe;
use tokenformer_core::optim::{AdamW, StepOutcome};
use tokenformer_core::param::Param;
use tokenformer_core::path::ParamRole;
use tokenformer_core::{Device, Gradients, Graph, Model, ModelConfig, SiteKind, init};
use tokenformer_cpu::Cpu;

pub mod golden;
pub mod images;

pub const ROTARY: Positions = tokenformer_testing::models::ROTARY;

pub fn cpu() -> Arc<dyn Device> {
    Cpu::new(Some(2))
}

pub fn reference() -> Arc<dyn Device> {
    Reference::new()
}

/// A model of two blocks that takes a moment to train.
pub fn spec() -> ModelSpec {
    tokenformer_testing::models::small(29, 24)
}

/// A plain Transformer of the size of [`spec`]: rotary positions, one affine norm, no biases, a tied head.
pub fn gpt() -> ModelSpec {
    ModelSpec {
        family: Family::Gpt,
        slots: Slots::default(),
        mlp_hidden: 40,
        ..spec()
    }
}

/// Learned positions, affine norms and biases.
pub fn gpt2() -> ModelSpec {
    ModelSpec {
        positions: Positions::Learned,
        block_norm: NormKind::Affine,
        bias: true,
        ..gpt()
    }
}

/// No causal mask and no positions, branches in parallel, an untied head.
pub fn encoder() -> ModelSpec {
    ModelSpec {
        causal: false,
        residual: Residual::Parallel,
        positions: Positions::None,
        head: HeadKind::Untied,
        logit_scale: LogitScale::InverseSqrtWidth,
        ..gpt2()
    }
}

/// Whether the loss does not depend on an array: softmax ignores a number added to all scores of a row, as the bias of
/// keys does where positions turn no keys.
pub fn is_without_effect(config: &ModelConfig, param: &Param) -> bool {
    let path = param.path();
    path.role == ParamRole::Bias
        && path.kind() == Some(SiteKind::Key)
        && !matches!(config.positions, Positions::Rotary { .. })
}

pub fn fresh(device: &Arc<dyn Device>, spec: &ModelSpec, seed: u64) -> Model {
    Model::fresh(device, &spec.build().unwrap(), seed).unwrap()
}

/// Random tokens below `vocab`.
pub fn tokens(seed: u64, len: usize, vocab: usize) -> Vec<u32> {
    let mut rng = init::stream(seed, "tokens");
    (0..len)
        .map(|_| (rng.next_u64() % vocab as u64) as u32)
        .collect()
}

/// Two sequences of tokens that a growth is verified on.
pub fn pair(tokens: &[u32]) -> Probe<'_> {
    Probe::Tokens { tokens, batch: 2 }
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Every array's name and bits.
pub fn weights(model: &Model) -> Vec<(String, Vec<u32>)> {
    (model.each_param())
        .map(|p| (p.name().to_string(), bits(&host(model.device(), p.value()))))
        .collect()
}

/// The numbers of a buffer.
pub fn host(device: &Arc<dyn Device>, buffer: &Buffer) -> Vec<f32> {
    let mut host = vec![0.0; buffer.len()];
    device.read(buffer, &mut host).unwrap();
    host
}

/// The gradients of the mean loss, by name, and that loss.
pub fn gradients(model: &Model, inputs: &[u32], targets: &[u32], batch: usize) -> (f64, Gradients) {
    let mut gradients = Gradients::zeros(model.device(), model.params()).unwrap();
    let mut g = Graph::training(model.device(), &mut gradients);
    let weight = 1.0 / inputs.len() as f32;
    let nll = model.loss(&mut g, inputs, targets, batch, weight).unwrap();
    g.backward().unwrap();
    (mean(&nll), gradients)
}

pub fn mean(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64
}

/// One update on the mean loss.
pub fn train_step(
    model: &mut Model,
    optimizer: &mut AdamW,
    [inputs, targets]: [&[u32]; 2],
    batch: usize,
    lr: f64,
) -> (f64, StepOutcome) {
    let (loss, gradients) = gradients(model, inputs, targets, batch);
    (loss, optimizer.step(model, &gradients, lr).unwrap())
}

pub fn max_abs_difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let larger = |m: f64, x: f64| if x > m || x.is_nan() { x } else { m };
    a.iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs())
        .fold(0.0, larger)
}

/// `‖got − want‖ / ‖want‖`.
pub fn l2_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let off: f64 = got
        .iter()
        .zip(want)
        .map(|(g, w)| (f64::from(*g) - f64::from(*w)).powi(2))
        .sum();
    let all: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    if off == 0.0 { 0.0 } else { (off / all).sqrt() }
}

/// The same cases in every run.
pub fn cases(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(0x7070),
        failure_persistence: None,
        ..Config::default()
    }
}

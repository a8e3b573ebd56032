//! A growth that keeps the function must keep it over the first updates, too: beside a run that does not grow, on the
//! same batches and at the same flat learning rate, no loss rises.

mod common;

use common::{cpu, mean, train_step};
use std::sync::Arc;
use tokenformer_core::config::{NormSpan, Slots};
use tokenformer_core::growth::{Amount, Birth, Growth, NewBlocks, grow};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Device, Model, ModelSpec};

const CONTEXT: usize = 48;
const BATCH: usize = 8;
/// Updates before the growth.
const BASE: usize = 250;
/// Updates after it that are compared.
const AFTER: usize = 200;
/// The learning rate of `recipes/grow.toml`.
const LR: f64 = 2e-3;
/// How much higher a loss may be than without the growth.
const BAR: f64 = 0.02;

fn spec(norm: NormSpan) -> ModelSpec {
    ModelSpec {
        vocab: 128,
        width: 32,
        layers: 2,
        heads: 2,
        context: CONTEXT,
        slots: Slots {
            qkv: 24,
            proj: 24,
            ffn: 96,
        },
        norm,
        ..ModelSpec::default()
    }
}

/// English prose at hand: the documentation of this workspace, its bytes as tokens.
fn text() -> Vec<u32> {
    let docs = [
        include_str!("../src/growth/mod.rs"),
        include_str!("../src/model.rs"),
        include_str!("../src/graph.rs"),
        include_str!("../src/config/mod.rs"),
        include_str!("../src/generate.rs"),
    ];
    let bytes = docs.into_iter().flat_map(str::bytes);
    bytes.filter(u8::is_ascii).map(u32::from).collect()
}

/// The batch of a step: windows at places that step and seed decide.
fn batch(text: &[u32], seed: u64, step: usize) -> [Vec<u32>; 2] {
    let windows = text.len() - CONTEXT - 1;
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for i in 0..BATCH as u64 {
        let n = (step as u64 * BATCH as u64 + i + 1) * (2 * seed + 7919);
        let at = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize % windows;
        inputs.extend(&text[at..at + CONTEXT]);
        targets.extend(&text[at + 1..at + 1 + CONTEXT]);
    }
    [inputs, targets]
}

struct Run {
    model: Model,
    optimizer: AdamW,
    seed: u64,
    step: usize,
}

impl Run {
    fn new(device: &Arc<dyn Device>, spec: &ModelSpec, seed: u64) -> Self {
        let model = Model::fresh(device, &spec.build().unwrap(), seed).unwrap();
        let optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
        Self {
            model,
            optimizer,
            seed,
            step: 0,
        }
    }

    /// Losses of some updates.
    fn train(&mut self, text: &[u32], updates: usize) -> Vec<f64> {
        let mut losses = Vec::new();
        for _ in 0..updates {
            let [inputs, targets] = batch(text, self.seed, self.step);
            self.step += 1;
            let warm = (self.step as f64 / 50.0).min(1.0);
            let both = [&inputs[..], &targets[..]];
            let found = train_step(&mut self.model, &mut self.optimizer, both, BATCH, LR * warm);
            losses.push(found.0);
        }
        losses
    }

    fn grow(&mut self, growth: &Growth) {
        let birth = Birth {
            stage: 1,
            step: self.step as u64,
            seed: self.seed,
        };
        let probe: Vec<u32> = (0..CONTEXT as u32).collect();
        let report = grow(&mut self.model, growth, birth, &probe, 1).unwrap();
        assert!(report.preserving && report.max_logit_diff == 0.0);
        self.optimizer.extend(&self.model).unwrap();
    }
}

/// Largest relative rise of a loss after each of `growths`, over three seeds.
fn worst(norm: NormSpan, growths: &[Growth]) -> Vec<f64> {
    let (device, text) = (cpu(), text());
    let mut worst = vec![f64::NEG_INFINITY; growths.len()];
    for seed in [1, 2, 3] {
        let spec = spec(norm);
        let mut control = Run::new(&device, &spec, seed);
        control.train(&text, BASE);
        let without = control.train(&text, AFTER);
        for (worst, growth) in worst.iter_mut().zip(growths) {
            let mut run = Run::new(&device, &spec, seed);
            run.train(&text, BASE);
            run.grow(growth);
            let with = run.train(&text, AFTER);
            let rises = with.iter().zip(&without).map(|(a, b)| a / b - 1.0);
            *worst = rises.fold(*worst, f64::max);
        }
    }
    worst
}

fn times(factor: usize) -> Growth {
    let Slots { qkv, proj, ffn } = spec(NormSpan::Segment).slots;
    Growth {
        qkv: Amount::To(factor * qkv),
        proj: Amount::To(factor * proj),
        ffn: Amount::To(factor * ffn),
        ..Growth::default()
    }
}

fn check(norm: NormSpan, growths: &[Growth]) {
    let found = worst(norm, growths);
    println!("{norm:?}: largest rises {found:.4?}");
    assert!(found.iter().all(|rise| *rise <= BAR), "{found:?}");
}

#[test]
fn no_loss_rises_after_a_growth_with_a_norm_per_segment() {
    check(NormSpan::Segment, &[times(2), times(4), times(16)]);
}

#[test]
fn no_loss_rises_after_a_growth_with_zero_keys() {
    check(NormSpan::Joint, &[times(2), times(4), times(16)]);
}

#[test]
fn no_loss_rises_after_new_blocks() {
    let blocks = Growth {
        layers: 2,
        blocks: NewBlocks::Zero,
        ..Growth::default()
    };
    let both = Growth {
        layers: 1,
        ..times(4)
    };
    check(NormSpan::Segment, &[blocks, both]);
}

/// Without warm-up and slots rule the same growth forgets: the test above can fail.
#[test]
fn the_first_update_at_the_full_rate_undoes_a_growth() {
    let (device, text) = (cpu(), text());
    let mut run = Run::new(&device, &spec(NormSpan::Segment), 1);
    run.train(&text, BASE);
    let before = mean(
        &run.train(&text, 5)
            .iter()
            .map(|&x| x as f32)
            .collect::<Vec<_>>(),
    );
    run.grow(&times(16));
    for param in run.model.params_mut() {
        param.training = Default::default();
    }
    let after = run.train(&text, 5)[1];
    println!("loss {before:.3} before, {after:.3} after the first update");
    assert!(after > 1.3 * before);
}

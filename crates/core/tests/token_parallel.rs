//! Parameter tokens divided between ranks: what an undivided model computes, learns and grows to.

mod common;

use common::{cpu, fresh, gradients, host, pair, reference, spec, tokens, train_step, weights};
use std::sync::Arc;
use tokenformer_core::Device;
use tokenformer_core::config::{ModelSpec, NormSpan, Slots, Theta};
use tokenformer_core::device::{Collective, Divided};
use tokenformer_core::growth::{Amount, Birth, Growth, TauRule, grow};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_cpu::Cpu;
use tokenformer_testing::Threads;

const VOCAB: usize = 29;
const BATCH: usize = 2;
/// Updates before the growth, and after it.
const UPDATES: usize = 3;

/// What a run leaves: losses of its updates, norms of their gradients, first gradients and last logits and weights.
#[derive(Debug, PartialEq)]
struct Found {
    losses: Vec<f64>,
    norms: Vec<f64>,
    gradients: Vec<(String, Vec<f32>)>,
    logits: Vec<f32>,
    weights: Vec<(String, Vec<u32>)>,
    /// Bytes of weights and moments on this rank.
    persistent: usize,
}

fn spec_of(theta: Theta, norm: NormSpan) -> ModelSpec {
    // Some parts of three ranks differ in size, and one segment of the growth has fewer tokens than ranks.
    ModelSpec {
        theta,
        norm,
        slots: Slots {
            qkv: 7,
            proj: 10,
            ffn: 23,
        },
        ..spec()
    }
}

/// Trains, grows, and trains on.
fn run(device: &Arc<dyn Device>, spec: &ModelSpec, preserving: bool) -> Found {
    let (inputs, targets) = (tokens(1, 40, VOCAB), tokens(2, 40, VOCAB));
    let mut model = fresh(device, spec, 5);
    let (_, first) = gradients(&model, &inputs, &targets, BATCH);
    let gradients = (model.each_param())
        .map(|p| (p.name().to_string(), host(device, first.get(p).unwrap())))
        .collect();
    drop(first);
    let config = AdamWConfig {
        clip: 0.5,
        ..AdamWConfig::default()
    };
    let mut optimizer = AdamW::new(config, &model).unwrap();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..2 * UPDATES {
        if step == UPDATES {
            let growth = Growth {
                qkv: Amount::Add(2),
                proj: Amount::Add(5),
                ffn: Amount::Add(12),
                tau: if preserving {
                    TauRule::Pinned
                } else {
                    TauRule::SqrtN
                },
                ..Growth::default()
            };
            let birth = Birth {
                stage: 1,
                step: step as u64,
                seed: 1,
            };
            let report = grow(&mut model, &growth, birth, pair(&inputs)).unwrap();
            assert_eq!(
                (report.preserving, report.max_logit_diff == 0.0),
                (preserving, preserving)
            );
            optimizer.extend(&model).unwrap();
        }
        let text = [&inputs[..], &targets[..]];
        let (loss, applied) = train_step(&mut model, &mut optimizer, text, BATCH, 1e-3);
        losses.push(loss);
        norms.push(applied.grad_norm);
    }
    Found {
        losses,
        norms,
        gradients,
        logits: model.infer(&inputs, BATCH).unwrap(),
        weights: weights(&model),
        persistent: device.usage().persistent,
    }
}

fn divided(
    world: usize,
    inner: impl Fn() -> Arc<dyn Device> + Sync,
    spec: &ModelSpec,
    preserving: bool,
) -> Vec<Found> {
    Threads::run(world, |ranks: Arc<dyn Collective>| {
        let device = Divided::between(inner(), ranks).unwrap();
        run(&device, spec, preserving)
    })
}

/// L2 norm of the difference, relative to that of `want`.
fn error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f64| x * x;
    let off: f64 = got
        .iter()
        .zip(want)
        .map(|(g, w)| square(f64::from(g - w)))
        .sum();
    let all: f64 = want.iter().map(|w| square(f64::from(*w))).sum();
    (off / all).sqrt()
}

/// Compares the ranks with an undivided run; the largest relative errors of losses, gradients and logits.
fn compare(ranks: &[Found], whole: &Found, bars: [f64; 3]) -> [f64; 3] {
    for rank in &ranks[1..] {
        assert_eq!(rank.losses, ranks[0].losses);
        assert_eq!(
            (&rank.gradients, &rank.logits),
            (&ranks[0].gradients, &ranks[0].logits)
        );
        assert_eq!(rank.weights, ranks[0].weights);
    }
    let found = &ranks[0];
    let relative = |a: &[f64], b: &[f64]| {
        let each = a.iter().zip(b).map(|(a, b)| (a / b - 1.0).abs());
        each.fold(0.0, f64::max)
    };
    let all: Vec<f32> = whole
        .gradients
        .iter()
        .flat_map(|(_, g)| g.clone())
        .collect();
    let got: Vec<f32> = found
        .gradients
        .iter()
        .flat_map(|(_, g)| g.clone())
        .collect();
    let errors = [
        relative(&found.losses, &whole.losses).max(relative(&found.norms, &whole.norms)),
        error(&got, &all),
        error(&found.logits, &whole.logits),
    ];
    let below = errors.iter().zip(bars).all(|(error, bar)| *error <= bar);
    assert!(below, "{errors:?}");
    errors
}

#[test]
fn divided_tokens_learn_what_whole_ones_do() {
    let mut worst = [0.0f64; 3];
    for (theta, norm) in Theta::ALL
        .iter()
        .flat_map(|t| [(*t, NormSpan::Joint), (*t, NormSpan::Segment)])
    {
        let spec = spec_of(theta, norm);
        let preserving = norm == NormSpan::Segment || theta.ignores_zero_scores();
        let whole = run(&cpu(), &spec, preserving);
        for world in [1, 2, 3] {
            let ranks = divided(world, || Cpu::new(Some(1)), &spec, preserving);
            let errors = compare(&ranks, &whole, [1e-6, 3e-6, 1e-6]);
            println!("{theta} {norm:?}, {world} ranks: {errors:?}");
            for (worst, error) in worst.iter_mut().zip(errors) {
                *worst = worst.max(error);
            }
            // Weights and moments of tokens are there once, not on every rank.
            let most = ranks.iter().map(|rank| rank.persistent).max().unwrap();
            assert!(
                world == 1 || most < whole.persistent,
                "{most} of {}",
                whole.persistent
            );
        }
    }
    println!("largest errors of losses, gradients, logits: {worst:?}");
}

#[test]
fn the_plain_device_divides_them_too() {
    for theta in Theta::ALL {
        let spec = spec_of(theta, NormSpan::Joint);
        let preserving = theta.ignores_zero_scores();
        let whole = run(&reference(), &spec, preserving);
        compare(&divided(2, reference, &spec, preserving), &whole, [1e-6; 3]);
    }
}

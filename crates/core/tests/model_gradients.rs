//! Gradients of whole models: against central differences in f64, and of the fast device against the
//! plain one.

mod common;

use common::{THETAS, cpu, fresh, gradients, l2_error, reference, spec, tokens};
use std::sync::Arc;
use tokenformer_core::Gradients;
use tokenformer_core::config::{
    Init, LogitScale, ModelConfig, ModelSpec, NormKind, NormSpan, Positions, SegmentConfig,
    SiteKind, Slots, Theta,
};
use tokenformer_core::device::reference::{values, values_mut};
use tokenformer_core::{Device, Graph, LossTargets, Model, init};

/// A tiny model whose sites have segments of `segments` tokens.
fn config(base: ModelSpec, segments: &[usize]) -> ModelConfig {
    let mut config = base.build().unwrap();
    for block in &mut config.blocks {
        for (i, kind) in SiteKind::ALL.into_iter().enumerate() {
            let site = block.site_mut(kind).unwrap();
            let first = site.segments[0].clone();
            site.segments = segments
                .iter()
                .map(|&n| SegmentConfig {
                    tokens: n + i % 2,
                    tau: 0.9 * (n as f64).sqrt(),
                    ..first.clone()
                })
                .collect();
            site.tau = 0.8 * (site.tokens() as f64).sqrt();
        }
    }
    config
}

fn tiny() -> ModelSpec {
    ModelSpec {
        vocab: 11,
        width: 8,
        heads: 2,
        context: 6,
        slots: Slots {
            qkv: 1,
            proj: 1,
            ffn: 1,
        },
        ..spec()
    }
}

/// The kinds of model that together reach every operation, with their segments.
fn kinds(theta: Theta, norm: NormSpan) -> [(ModelSpec, &'static [usize]); 2] {
    let one = ModelSpec {
        theta,
        norm,
        ..tiny()
    };
    let other = ModelSpec {
        positions: Positions::None,
        final_norm: NormKind::Plain,
        logit_scale: LogitScale::InverseSqrtWidth,
        ..one.clone()
    };
    [(one, &[5, 3, 4]), (other, &[7])]
}

/// The sum of all losses in f64. (A model gives its losses as f32, too coarse for differences.)
fn loss(model: &Model, [inputs, targets]: [&[u32]; 2], batch: usize) -> f64 {
    let device = model.device();
    let mut g = Graph::inference(device);
    let hidden = model.hidden(&mut g, inputs, batch, None).unwrap();
    let classes = LossTargets::Classes(targets);
    let losses = model.losses(&mut g, &hidden, classes, 1.0).unwrap();
    values(losses.buffer()).iter().sum()
}

/// The derivative by one number, to fourth order in the distance.
fn difference(model: &mut Model, param: usize, index: usize, loss: impl Fn(&Model) -> f64) -> f64 {
    const H: f64 = 2e-4;
    let mut at = |offset: f64| {
        let change = |model: &mut Model, by: f64| {
            values_mut(model.params_mut()[param].value_mut())[index] += by
        };
        let before = values(model.params()[param].value())[index];
        change(model, offset);
        let found = loss(model);
        values_mut(model.params_mut()[param].value_mut())[index] = before;
        found
    };
    (8.0 * (at(H) - at(-H)) - (at(2.0 * H) - at(-2.0 * H))) / (12.0 * H)
}

fn check_differences(theta: Theta, norm: NormSpan) {
    let mut worst = 0.0f64;
    for (base, segments) in kinds(theta, norm) {
        let config = config(base, segments);
        let device = reference();
        let mut model = Model::fresh(&device, &config, 5).unwrap();
        // Away from the fresh 1 and 0 of the final norm.
        for param in model
            .params_mut()
            .into_iter()
            .filter(|p| p.name().starts_with("final_norm"))
        {
            let noise = init::normal(6, param.name(), param.len(), 0.3);
            values_mut(param.value_mut())
                .iter_mut()
                .zip(noise)
                .for_each(|(p, n)| *p += f64::from(n));
        }
        let (batch, len) = (2, 2 * 6);
        let (inputs, targets) = (tokens(1, len, config.vocab), tokens(2, len, config.vocab));
        let both = [&inputs[..], &targets];

        let mut gradients = Gradients::zeros(&device, model.params()).unwrap();
        let mut g = Graph::training(&device, &mut gradients);
        model.loss(&mut g, &inputs, &targets, batch, 1.0).unwrap();
        g.backward().unwrap();

        for p in 0..model.params().len() {
            let param = model.params()[p];
            let (name, len) = (param.name().to_string(), param.len());
            let got: Vec<f64> = values(gradients.get(param).unwrap()).to_vec();
            let largest = got.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            assert!(largest > 0.0, "{name} has no gradient");
            for index in tokens(p as u64, 4, len).into_iter().map(|i| i as usize) {
                let want = difference(&mut model, p, index, |m| loss(m, both, batch));
                let error = (got[index] - want).abs() / want.abs().max(0.1 * largest);
                assert!(
                    error <= 1e-7,
                    "{name}[{index}]: {} is not {want}, off by {error:e}: {config:?}",
                    got[index]
                );
                worst = worst.max(error);
            }
        }
    }
    println!("{theta:?} {norm:?}: largest relative error {worst:.1e}");
}

#[test]
fn differences_l2_norm_gelu_joint() {
    check_differences(Theta::L2NormGelu, NormSpan::Joint);
}

#[test]
fn differences_l2_norm_gelu_segment() {
    check_differences(Theta::L2NormGelu, NormSpan::Segment);
}

#[test]
fn differences_gelu_l2_norm_joint() {
    check_differences(Theta::GeluL2Norm, NormSpan::Joint);
}

#[test]
fn differences_gelu_l2_norm_segment() {
    check_differences(Theta::GeluL2Norm, NormSpan::Segment);
}

#[test]
fn differences_softmax_joint() {
    check_differences(Theta::Softmax, NormSpan::Joint);
}

#[test]
fn differences_softmax_segment() {
    check_differences(Theta::Softmax, NormSpan::Segment);
}

fn host(device: &Arc<dyn Device>, buffer: &tokenformer_core::device::Buffer) -> Vec<f32> {
    let mut host = vec![0.0; buffer.len()];
    device.read(buffer, &mut host).unwrap();
    host
}

fn norm_of(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn fast_device_against_plain_one() {
    let mut worst = 0.0f64;
    for theta in THETAS {
        for norm in [NormSpan::Joint, NormSpan::Segment] {
            let [(one, _), (other, _)] = kinds(theta, norm);
            let larger = |base| ModelSpec {
                vocab: 67,
                width: 24,
                heads: 3,
                context: 70,
                ..base
            };
            for (base, init) in [(larger(one), Init::FanIn), (larger(other), Init::Released)] {
                let config = config(ModelSpec { init, ..base }, &[20, 13]);
                let (fast, plain) = (cpu(), reference());
                let models =
                    [&fast, &plain].map(|device| Model::fresh(device, &config, 3).unwrap());
                let (inputs, targets) = (tokens(1, 2 * 70, 67), tokens(2, 2 * 70, 67));
                let [(fast_loss, got), (plain_loss, want)] = models
                    .each_ref()
                    .map(|model| gradients(model, &inputs, &targets, 2));
                assert!(
                    (fast_loss - plain_loss).abs() < 2e-6,
                    "{fast_loss} is not {plain_loss}"
                );
                let all = models[1]
                    .params()
                    .into_iter()
                    .map(|p| norm_of(&host(&plain, want.get(p).unwrap())));
                let all = all.map(|n| n * n).sum::<f64>().sqrt();
                for (f, p) in models[0].params().into_iter().zip(models[1].params()) {
                    let (got, want) = (
                        host(&fast, got.get(f).unwrap()),
                        host(&plain, want.get(p).unwrap()),
                    );
                    // A gradient that nearly vanishes is the small rest of large sums.
                    let error = l2_error(&got, &want) * (norm_of(&want) / (1e-4 * all)).min(1.0);
                    assert!(
                        error <= 2e-5,
                        "{}: {error:e} ({theta:?}, {norm:?}, {init:?})",
                        f.name()
                    );
                    worst = worst.max(error);
                }
            }
        }
    }
    println!("largest relative error of a gradient: {worst:.1e}");
}

#[test]
fn gradients_add_up_over_batches() {
    let device = cpu();
    let model = fresh(&device, &spec(), 1);
    let [(a, b), (c, d)] = [(1, 2), (3, 4)].map(|(i, t)| (tokens(i, 20, 29), tokens(t, 20, 29)));
    let mut sum = Gradients::zeros(&device, model.params()).unwrap();
    for (inputs, targets) in [(&a, &b), (&c, &d)] {
        let mut g = Graph::training(&device, &mut sum);
        model.loss(&mut g, inputs, targets, 1, 1.0 / 40.0).unwrap();
        g.backward().unwrap();
    }
    let (_, both) = gradients(&model, &[a, c].concat(), &[b, d].concat(), 2);
    for param in model.params() {
        let (sum, both) = (
            host(&device, sum.get(param).unwrap()),
            host(&device, both.get(param).unwrap()),
        );
        assert!(l2_error(&sum, &both) < 1e-5, "{}", param.name());
    }
    sum.reset();
    // Nothing is held of a gradient that is zero.
    assert!(model.params().into_iter().all(|p| sum.get(p).is_none()));
}

#[test]
fn same_gradients_for_any_number_of_threads() {
    let bits = |threads| {
        let device: Arc<dyn Device> = tokenformer_cpu::Cpu::new(Some(threads));
        let config = config(
            ModelSpec {
                context: 70,
                ..spec()
            },
            &[40, 30],
        );
        let model = Model::fresh(&device, &config, 3).unwrap();
        let (_, found) = gradients(&model, &tokens(1, 140, 29), &tokens(2, 140, 29), 2);
        let all = model
            .params()
            .into_iter()
            .flat_map(|p| host(&device, found.get(p).unwrap()));
        all.map(f32::to_bits).collect::<Vec<_>>()
    };
    let one = bits(1);
    assert!(one == bits(2) && one == bits(3));
}

#[test]
fn frozen_parameters_have_no_gradient_and_change_no_other() {
    let device = cpu();
    let mut model = Model::fresh(&device, &config(spec(), &[6, 5]), 3).unwrap();
    let (inputs, targets) = (tokens(1, 20, 29), tokens(2, 20, 29));
    let (_, all) = gradients(&model, &inputs, &targets, 1);
    for block in model.blocks_mut() {
        for kind in SiteKind::ALL {
            block.site_mut(kind).unwrap().segments_mut()[0].set_trainable(false);
        }
    }
    let (_, some) = gradients(&model, &inputs, &targets, 1);
    for param in model.params() {
        match some.get(param) {
            None => assert!(param.name().contains("segments.0")),
            Some(found) => {
                assert!(!param.name().contains("segments.0"));
                assert_eq!(
                    host(&device, found),
                    host(&device, all.get(param).unwrap()),
                    "{}",
                    param.name()
                );
            }
        }
    }
}

//! Gradients of whole models: against central differences in f64, and of the fast device against the
//! plain one.

mod common;

use common::{
    cpu, encoder, fresh, gpt, gpt2, gradients, host, is_without_effect, l2_error,
    max_abs_difference, reference, spec, tokens,
};
use std::sync::Arc;
use tokenformer_core::config::{
    HeadKind, Init, LayerConfig, LogitScale, ModelConfig, ModelSpec, NormKind, NormSpan, Positions,
    Residual, SegmentConfig, SiteKind, Slots, Theta,
};
use tokenformer_core::device::reference::{values, values_mut};
use tokenformer_core::path::ParamRole;
use tokenformer_core::{Device, Gradients, Graph, LossTargets, Model, init};

/// The model of `base`, whose sites, if it has any, have segments of `segments` tokens.
fn config(base: &ModelSpec, segments: &[usize]) -> ModelConfig {
    let mut config = base.build().unwrap();
    for block in &mut config.blocks {
        for (i, kind) in SiteKind::ALL.into_iter().enumerate() {
            let Some(site) = block.site_mut(kind) else {
                continue;
            };
            let first = site.segments[0].clone();
            site.segments = (segments.iter().zip(0..))
                .map(|(&n, id)| SegmentConfig {
                    id,
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

/// A fresh model whose norms and biases are not at the 1 and 0 where they start.
fn model_of(device: &Arc<dyn Device>, config: &ModelConfig, seed: u64) -> Model {
    Model::build(device, config, &mut |path, shape| {
        let len = shape.iter().product();
        let name = path.to_string();
        let numbers = match path.role {
            ParamRole::Gain => {
                let noise = init::normal(seed, &name, len, 0.3);
                noise.into_iter().map(|x| 1.0 + x).collect()
            }
            ParamRole::Bias => init::normal(seed, &name, len, 0.3),
            _ => init::normal(seed, &name, len, init::std(config, path, shape)),
        };
        Ok(numbers)
    })
    .unwrap()
}

/// The kinds of TokenFormer that together reach every operation, with their segments.
fn sites(theta: Theta, norm: NormSpan) -> [(ModelSpec, &'static [usize]); 2] {
    let one = ModelSpec {
        theta,
        norm,
        slots: Slots {
            qkv: 1,
            proj: 1,
            ffn: 1,
        },
        ..spec()
    };
    let other = ModelSpec {
        positions: Positions::None,
        final_norm: NormKind::Plain,
        logit_scale: LogitScale::InverseSqrtWidth,
        ..one.clone()
    };
    [(one, &[5, 3, 4]), (other, &[7])]
}

/// The kinds of plain Transformer.
fn plain() -> [ModelSpec; 4] {
    let neox = ModelSpec {
        residual: Residual::Parallel,
        block_norm: NormKind::Affine,
        head: HeadKind::Untied,
        bias: true,
        ..gpt()
    };
    [gpt(), gpt2(), encoder(), neox]
}

/// A model so small that differences of all its arrays take a moment.
fn tiny(base: ModelSpec) -> ModelSpec {
    ModelSpec {
        vocab: 11,
        width: 8,
        heads: 2,
        context: 6,
        mlp_hidden: 10,
        ..base
    }
}

/// The sum of all losses in f64. (A model gives its losses as f32, too coarse for differences.)
fn loss(model: &Model, [inputs, targets]: [&[u32]; 2], batch: usize) -> f64 {
    let mut g = Graph::inference(model.device());
    let hidden = model.hidden(&mut g, inputs, batch, None).unwrap();
    let nll = model.losses(&mut g, &hidden, LossTargets::Classes(targets), 1.0);
    values(nll.unwrap().buffer()).iter().sum()
}

/// Distances of the points of a difference.
const SMOOTH: &[f64] = &[2e-4];
/// The same where scores of 0 are kinks of the loss: one between the points spoils a difference, but not all of these.
const KINKED: &[f64] = &[2e-4, 2e-5, 4e-6];

/// The derivative by one number, to fourth order in the distance `h`.
fn difference(
    model: &mut Model,
    (param, index): (usize, usize),
    h: f64,
    loss: impl Fn(&Model) -> f64,
) -> f64 {
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
    (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
}

/// The largest relative error of a gradient of the model.
fn check_differences(config: &ModelConfig, distances: &[f64]) -> f64 {
    let device = reference();
    let mut model = model_of(&device, config, 5);
    let (batch, len) = (2, 2 * 6);
    let (inputs, targets) = (tokens(1, len, config.vocab), tokens(2, len, config.vocab));
    let both = [&inputs[..], &targets];

    let mut gradients = Gradients::zeros(&device, model.params()).unwrap();
    let mut g = Graph::training(&device, &mut gradients);
    model.loss(&mut g, &inputs, &targets, batch, 1.0).unwrap();
    g.backward().unwrap();

    let mut worst = 0.0f64;
    for p in 0..model.params().len() {
        let param = model.params()[p];
        let (name, len) = (param.name().to_string(), param.len());
        let got: Vec<f64> = values(gradients.get(param).unwrap()).to_vec();
        let largest = got.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        if is_without_effect(config, param) {
            assert!(largest < 1e-12, "{name} has the gradient {largest:e}");
            continue;
        }
        assert!(largest > 0.0, "{name} has no gradient");
        for index in tokens(p as u64, 4, len).into_iter().map(|i| i as usize) {
            let tries = distances.iter().map(|h| {
                let want = difference(&mut model, (p, index), *h, |m| loss(m, both, batch));
                let error = (got[index] - want).abs() / want.abs().max(0.1 * largest);
                (error, want)
            });
            let (error, want) = tries
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .expect("a distance");
            assert!(
                error <= 1e-7,
                "{name}[{index}]: {} is not {want}, off by {error:e}: {config:?}",
                got[index]
            );
            worst = worst.max(error);
        }
    }
    worst
}

fn check_differences_of_sites(theta: Theta) {
    let distances = match theta {
        Theta::L1NormGelu => KINKED,
        _ => SMOOTH,
    };
    for norm in [NormSpan::Joint, NormSpan::Segment] {
        for (base, segments) in sites(theta, norm) {
            let worst = check_differences(&config(&tiny(base), segments), distances);
            println!("{theta} {norm:?}: largest relative error {worst:.1e}");
        }
    }
}

#[test]
fn differences_l2_norm_gelu() {
    check_differences_of_sites(Theta::L2NormGelu);
}

#[test]
fn differences_l1_norm_gelu() {
    check_differences_of_sites(Theta::L1NormGelu);
}

#[test]
fn differences_gelu_l2_norm() {
    check_differences_of_sites(Theta::GeluL2Norm);
}

#[test]
fn differences_softmax() {
    check_differences_of_sites(Theta::Softmax);
}

#[test]
fn differences_gelu() {
    check_differences_of_sites(Theta::Gelu);
}

#[test]
fn differences_of_plain_transformers() {
    for base in plain() {
        let worst = check_differences(&config(&tiny(base), &[]), SMOOTH);
        println!("largest relative error {worst:.1e}");
    }
}

fn norm_of(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// The largest relative error of a gradient of the fast device, whose threads share more rows than a block has.
fn check_fast_device(base: ModelSpec, segments: &[usize]) -> f64 {
    let base = ModelSpec {
        vocab: 67,
        width: 24,
        heads: 3,
        context: 70,
        ..base
    };
    let config = config(&base, segments);
    let (fast, plain) = (cpu(), reference());
    let models = [&fast, &plain].map(|device| model_of(device, &config, 3));
    let (inputs, targets) = (tokens(1, 2 * 70, 67), tokens(2, 2 * 70, 67));
    let [(fast_loss, got), (plain_loss, want)] = models
        .each_ref()
        .map(|model| gradients(model, &inputs, &targets, 2));
    assert!(
        (fast_loss - plain_loss).abs() < 2e-6,
        "{fast_loss} is not {plain_loss}: {base:?}"
    );
    let squares =
        (models[1].each_param()).map(|p| norm_of(&host(&plain, want.get(p).unwrap())).powi(2));
    let all = squares.sum::<f64>().sqrt();
    let mut worst = 0.0f64;
    for (f, p) in models[0].each_param().zip(models[1].each_param()) {
        let got = host(&fast, got.get(f).unwrap());
        let want = host(&plain, want.get(p).unwrap());
        // A gradient that nearly vanishes is the small rest of large sums.
        let error = if is_without_effect(&config, f) {
            norm_of(&got) / all
        } else {
            l2_error(&got, &want) * (norm_of(&want) / (1e-4 * all)).min(1.0)
        };
        assert!(error <= 2e-5, "{}: {error:e}: {base:?}", f.name());
        worst = worst.max(error);
    }
    worst
}

#[test]
fn fast_device_against_plain_one() {
    let mut worst = 0.0f64;
    for theta in Theta::ALL {
        for norm in [NormSpan::Joint, NormSpan::Segment] {
            for ((base, _), init) in
                (sites(theta, norm).into_iter()).zip([Init::FanIn, Init::Released])
            {
                worst = worst.max(check_fast_device(ModelSpec { init, ..base }, &[20, 13]));
            }
        }
    }
    println!("largest relative error of a gradient: {worst:.1e}");
}

#[test]
fn fast_device_against_plain_one_for_plain_transformers() {
    let errors = plain().map(|base| check_fast_device(base, &[]));
    println!("largest relative errors of a gradient: {errors:?}");
}

/// A model whose feed-forward networks are sites with `Θ = gelu`, and one of MLPs with the same weights.
fn site_and_mlp(device: &Arc<dyn Device>) -> [Model; 2] {
    const HIDDEN: usize = 40;
    let mlp = gpt().build().unwrap();
    let mut site = mlp.clone();
    for block in &mut site.blocks {
        let gelu = ModelSpec {
            theta: Theta::Gelu,
            slots: Slots {
                qkv: 1,
                proj: 1,
                ffn: HIDDEN,
            },
            ..spec()
        };
        block.ffn = gelu.build().unwrap().blocks[0].ffn.clone();
        assert!(matches!(block.ffn, LayerConfig::Pattention(_)));
    }
    let numbers = |name: &str, shape: &[usize]| init::normal(4, name, shape.iter().product(), 0.3);
    let site = Model::build(device, &site, &mut |path, shape| {
        Ok(numbers(&path.to_string(), shape))
    });
    let mlp = Model::build(device, &mlp, &mut |path, shape| {
        let name = path.to_string();
        let ours = name.replace("ffn.up.weight", "ffn.segments.0.keys");
        if let Some(block) = name.strip_suffix("ffn.down.weight") {
            // The columns of the second matrix are the values.
            let values = numbers(&format!("{block}ffn.segments.0.values"), shape);
            return Ok(transposed(&values, shape[1], shape[0]));
        }
        Ok(numbers(&ours, shape))
    });
    [site.unwrap(), mlp.unwrap()]
}

/// `[cols, rows]` of `x` `[rows, cols]`.
fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    assert_eq!(x.len(), rows * cols);
    let at = |i: usize| x[i % rows * cols + i / rows];
    (0..x.len()).map(at).collect()
}

#[test]
fn a_site_with_gelu_alone_is_an_mlp() {
    for (device, bar) in [(cpu(), 2e-5), (reference(), 1e-6)] {
        let [site, mlp] = site_and_mlp(&device);
        let (inputs, targets) = (tokens(1, 2 * 20, 29), tokens(2, 2 * 20, 29));
        let logits = [&site, &mlp].map(|model| model.infer(&inputs, 2).unwrap());
        assert!(max_abs_difference(&logits[0], &logits[1]) <= bar);
        assert!(norm_of(&logits[0]) > 1.0);
        let [(_, of_site), (_, of_mlp)] =
            [&site, &mlp].map(|model| gradients(model, &inputs, &targets, 2));
        for (s, m) in site.each_param().zip(mlp.each_param()) {
            let mut want = host(&device, of_mlp.get(m).unwrap());
            if s.path().role == ParamRole::Values {
                want = transposed(&want, m.shape()[0], m.shape()[1]);
            }
            let got = host(&device, of_site.get(s).unwrap());
            let error = l2_error(&got, &want);
            assert!(error <= bar, "{} and {}: {error:e}", s.name(), m.name());
        }
    }
}

#[test]
fn gradients_add_up_over_batches() {
    for spec in [spec(), gpt2(), encoder()] {
        let device = cpu();
        let model = fresh(&device, &spec, 1);
        let [(a, b), (c, d)] =
            [(1, 2), (3, 4)].map(|(i, t)| (tokens(i, 20, 29), tokens(t, 20, 29)));
        let mut sum = Gradients::zeros(&device, model.params()).unwrap();
        for (inputs, targets) in [(&a, &b), (&c, &d)] {
            let mut g = Graph::training(&device, &mut sum);
            model.loss(&mut g, inputs, targets, 1, 1.0 / 40.0).unwrap();
            g.backward().unwrap();
        }
        let (_, both) = gradients(&model, &[a, c].concat(), &[b, d].concat(), 2);
        let config = model.config();
        for param in model
            .each_param()
            .filter(|p| !is_without_effect(&config, p))
        {
            let sum = host(&device, sum.get(param).unwrap());
            let both = host(&device, both.get(param).unwrap());
            assert!(l2_error(&sum, &both) < 1e-5, "{}", param.name());
        }
        sum.reset();
        // Nothing is held of a gradient that is zero.
        assert!(model.each_param().all(|p| sum.get(p).is_none()));
    }
}

#[test]
fn same_gradients_for_any_number_of_threads() {
    for base in [&[spec()][..], &plain()].concat() {
        let base = ModelSpec {
            context: 70,
            mlp_hidden: 150,
            ..base
        };
        let bits = |threads| {
            let device: Arc<dyn Device> = tokenformer_cpu::Cpu::new(Some(threads));
            let model = model_of(&device, &config(&base, &[40, 30]), 3);
            let (_, found) = gradients(&model, &tokens(1, 140, 29), &tokens(2, 140, 29), 2);
            let all = (model.each_param()).flat_map(|p| host(&device, found.get(p).unwrap()));
            all.map(f32::to_bits).collect::<Vec<_>>()
        };
        let one = bits(1);
        assert!(one == bits(2) && one == bits(3), "{base:?}");
    }
}

#[test]
fn frozen_parameters_have_no_gradient_and_change_no_other() {
    let device = cpu();
    for base in [&[spec()][..], &plain()].concat() {
        let mut model = model_of(&device, &config(&base, &[6, 5]), 3);
        let (inputs, targets) = (tokens(1, 20, 29), tokens(2, 20, 29));
        let (_, all) = gradients(&model, &inputs, &targets, 1);
        // Segments as a whole, and one of two in an operation with two arrays; then the others.
        let old = |name: &str| name.contains("segments.0");
        let one_of_two = |name: &str| {
            let ends = ["keys", "weight", "gain", "embedding"];
            ends.iter().any(|end| name.ends_with(end))
        };
        let freezes: [&dyn Fn(&str) -> bool; 3] = [&old, &one_of_two, &|name| !one_of_two(name)];
        for is_frozen in freezes {
            for param in model.each_param_mut() {
                param.training.trainable = !is_frozen(param.name());
            }
            let (_, some) = gradients(&model, &inputs, &targets, 1);
            for param in model.each_param() {
                let name = param.name();
                let Some(found) = some.get(param) else {
                    assert!(is_frozen(name), "{name} has no gradient");
                    continue;
                };
                assert!(!is_frozen(name), "{name} has a gradient");
                let want = host(&device, all.get(param).unwrap());
                assert_eq!(host(&device, found), want, "{name}");
            }
        }
    }
}

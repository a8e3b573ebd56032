//! Image models: gradients against central differences in f64, the fast device against the plain one, stochastic depth,
//! recomputation, growth, and what is refused.

mod common;

use common::images::{Case, cases, labels};
use common::{bits, cpu, host, is_without_effect, l2_error, reference, weights};
use std::sync::Arc;
use tokenformer_core::config::{
    HeadKind, ImageInput, Input, ModelConfig, NormSpan, Pool, Positions, Theta,
};
use tokenformer_core::device::reference::{values, values_mut};
use tokenformer_core::growth::{Amount, Birth, Fill, Growth, GrowthReport, Method, Probe, grow};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{
    Device, DropPath, Error, Gradients, Graph, LossTargets, Model, Recompute, WeightFormat,
};
use tokenformer_cpu::Cpu;

const BATCH: usize = 3;
const DROPPING: DropPath = DropPath {
    rate: 0.4,
    seed: 5,
    first: 40,
};

/// The objective in f64.
fn loss(model: &Model, case: &Case, dropping: Option<DropPath>) -> f64 {
    let mut g = Graph::inference(model.device());
    if let Some(dropping) = dropping {
        g = g.dropping(dropping);
    }
    let pooled = model.pooled(&mut g, &case.pixels, BATCH).unwrap();
    let losses = model.losses(&mut g, &pooled, case.targets(), 1.0).unwrap();
    values(losses.buffer()).iter().sum()
}

fn gradients(
    model: &Model,
    case: &Case,
    dropping: Option<DropPath>,
    recompute: Recompute,
) -> (Vec<f32>, Gradients) {
    let device = model.device();
    let mut gradients = Gradients::zeros(device, model.params()).unwrap();
    let mut g = Graph::training(device, &mut gradients).recomputing(recompute);
    if let Some(dropping) = dropping {
        g = g.dropping(dropping);
    }
    let pooled = model.pooled(&mut g, &case.pixels, BATCH).unwrap();
    let losses = model.losses(&mut g, &pooled, case.targets(), 1.0).unwrap();
    let losses = losses.to_host(&**device).unwrap();
    g.backward().unwrap();
    (losses, gradients)
}

/// The derivative by one number, to fourth order in the distance `h` of the points.
fn difference(
    model: &mut Model,
    (param, index): (usize, usize),
    h: f64,
    loss: impl Fn(&Model) -> f64,
) -> f64 {
    let before = values(model.params()[param].value())[index];
    let mut at = |offset: f64| {
        values_mut(model.params_mut()[param].value_mut())[index] = before + offset;
        let found = loss(model);
        values_mut(model.params_mut()[param].value_mut())[index] = before;
        found
    };
    (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
}

fn check_differences(case: &Case, dropping: Option<DropPath>) {
    let mut model = case.model(&reference());
    let (_, gradients) = gradients(&model, case, dropping, Recompute::None);
    // Between the points must not be a score of 0, where the L1 norm has a kink.
    let kinks = case.theta == Some(Theta::L1NormGelu);
    let h = if kinks { 1e-5 } else { 2e-4 };
    for p in 0..model.params().len() {
        let param = model.params()[p];
        let (name, len) = (param.name().to_string(), param.len());
        let got: Vec<f64> = values(gradients.get(param).unwrap()).to_vec();
        let largest = got.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        if is_without_effect(&case.config, param) {
            assert!(largest < 1e-12, "{name} has the gradient {largest:e}");
            continue;
        }
        assert!(largest > 0.0, "{name} has no gradient");
        for index in labels(p as u64, 3, len).into_iter().map(|i| i as usize) {
            let want = difference(&mut model, (p, index), h, |m| loss(m, case, dropping));
            let error = (got[index] - want).abs() / want.abs().max(0.1 * largest);
            assert!(
                error <= 1e-7,
                "{}, {name}[{index}]: {} is not {want}, off by {error:e}",
                case.name,
                got[index]
            );
        }
    }
}

#[test]
fn gradients_are_central_differences() {
    let cases = cases();
    let thetas = cases.iter().filter_map(|case| case.theta);
    assert!(
        Theta::ALL
            .iter()
            .all(|t| thetas.clone().any(|theta| theta == *t))
    );
    for case in &cases {
        check_differences(case, None);
    }
}

#[test]
fn gradients_with_dropped_branches_are_central_differences() {
    let cases = cases();
    for case in cases.iter().step_by(3).chain(cases.last()) {
        check_differences(case, Some(DROPPING));
    }
}

#[test]
fn the_fast_device_agrees_with_the_plain_one() {
    for case in cases() {
        for dropping in [None, Some(DROPPING)] {
            let [fast, plain] = [cpu(), reference()].map(|device| case.model(&device));
            let (fast_losses, got) = gradients(&fast, &case, dropping, Recompute::None);
            let (losses, want) = gradients(&plain, &case, dropping, Recompute::None);
            assert!(l2_error(&fast_losses, &losses) < 1e-5, "{}", case.name);
            let pairs = fast.each_param().zip(plain.each_param());
            for (f, p) in pairs.filter(|(f, _)| !is_without_effect(&case.config, f)) {
                let got = host(fast.device(), got.get(f).unwrap());
                let want = host(plain.device(), want.get(p).unwrap());
                let error = l2_error(&got, &want);
                assert!(error <= 1e-4, "{}, {}: {error:e}", case.name, f.name());
            }
        }
    }
}

/// Bits of losses and of all gradients.
fn found(model: &Model, case: &Case, recompute: Recompute) -> Vec<Vec<u32>> {
    let (losses, gradients) = gradients(model, case, Some(DROPPING), recompute);
    let of = |p| bits(&host(model.device(), gradients.get(p).unwrap()));
    std::iter::once(bits(&losses))
        .chain(model.each_param().map(of))
        .collect()
}

#[test]
fn threads_and_recomputation_change_no_bit() {
    for case in cases() {
        let on = |threads, recompute| {
            let device: Arc<dyn Device> = Cpu::new(Some(threads));
            found(&case.model(&device), &case, recompute)
        };
        let want = on(1, Recompute::None);
        for recompute in Recompute::ALL {
            for threads in [1, 2, 3] {
                assert!(
                    on(threads, recompute) == want,
                    "{}, {recompute}, {threads}",
                    case.name
                );
            }
        }
    }
}

/// What a sample skips is a matter of its number in the run alone: halves of a batch are the batch.
#[test]
fn dropped_branches_follow_the_sample_and_not_the_batch() {
    let case = cases().into_iter().next().unwrap();
    let model = case.model(&cpu());
    let losses = |from: usize, to: usize| {
        let mut gradients = Gradients::zeros(model.device(), model.params()).unwrap();
        let first = DROPPING.first + from as u64;
        let mut g = Graph::training(model.device(), &mut gradients)
            .dropping(DropPath { first, ..DROPPING });
        let pixels = &case.pixels[from * case.image().pixels()..to * case.image().pixels()];
        let pooled = model.pooled(&mut g, pixels, to - from).unwrap();
        let targets = LossTargets::Classes(&[1, 2, 3][from..to]);
        model
            .losses(&mut g, &pooled, targets, 1.0)
            .unwrap()
            .to_host(&**model.device())
            .unwrap()
    };
    assert_eq!(losses(0, 3), [losses(0, 1), losses(1, 3)].concat());
    let other = DropPath {
        seed: 6,
        ..DROPPING
    };
    let model = case.model(&cpu());
    let [a, b] = [DROPPING, other].map(|d| gradients(&model, &case, Some(d), Recompute::None).0);
    assert_ne!(a, b, "another seed");
}

/// With a rate of 0 nothing is dropped, and the bits are those without.
#[test]
fn a_rate_of_zero_drops_nothing() {
    let case = cases().into_iter().next().unwrap();
    let model = case.model(&cpu());
    let none = DropPath {
        rate: 0.0,
        ..DROPPING
    };
    let losses = |dropping| gradients(&model, &case, dropping, Recompute::None).0;
    assert_eq!(losses(Some(none)), losses(None));
    assert_ne!(losses(Some(DROPPING)), losses(None));
}

#[test]
fn the_operations_counted_are_those_of_the_formula() {
    for case in cases() {
        let mut model = case.model(&cpu());
        let counted = |model: &Model, recompute| {
            let (_, gradients) = gradients(model, &case, None, recompute);
            gradients.flops() as f64 / BATCH as f64
        };
        let formula = case.config.train_flops();
        for recompute in Recompute::ALL {
            assert_eq!(counted(&model, recompute), formula, "{}", case.name);
        }
        let mut g = Graph::inference(model.device());
        let pooled = model.pooled(&mut g, &case.pixels, BATCH).unwrap();
        model.logits(&mut g, &pooled).unwrap();
        let forward = g.flops() as f64 / BATCH as f64;
        drop(g);
        let image = case.image();
        // By hand: a product for each patch, each row of each block and each image; and what Θ or GELU costs.
        let c = &case.config;
        let units: usize = (c.blocks.iter().flat_map(|b| b.layers()))
            .map(|l| l.hidden())
            .sum();
        let body: u64 = (c.blocks.iter().flat_map(|b| b.layers()))
            .map(|l| l.matrix_params(c.width))
            .sum();
        let rows = c.context as u64 * (2 * body + (4 * c.layers() * c.width * c.context) as u64);
        let ends = 2 * image.patches() * image.patch_len() * c.width + 2 * c.vocab * c.width;
        assert_eq!(
            c.forward_flops(),
            (rows + ends as u64) as f64,
            "{}",
            case.name
        );
        assert_eq!(
            forward,
            c.forward_flops() + (10 * units * c.context) as f64,
            "{}",
            case.name
        );
        assert!((model.train_flops() / formula - 1.0).abs() < 1e-12);
        for param in model.each_param_mut() {
            param.training.trainable = !["patches.weight", "head.weight"].contains(&param.name());
        }
        let (found, want) = (counted(&model, Recompute::None), model.train_flops());
        assert!(
            (found / want - 1.0).abs() < 1e-12 && want < formula,
            "{}: {found}, {want}",
            case.name
        );
    }
}

const BIRTH: Birth = Birth {
    stage: 1,
    step: 3,
    seed: 9,
};

fn grown(model: &mut Model, case: &Case, growth: &Growth) -> GrowthReport {
    let (pixels, batch) = (&case.pixels, BATCH);
    grow(model, growth, BIRTH, Probe::Images { pixels, batch }).unwrap()
}

/// Logits keep their bits through tokens, hidden units and blocks, and all that is new learns.
#[test]
fn growth_keeps_every_bit() {
    for case in cases() {
        // A norm or a softmax over one more token is another.
        let keeps = matches!(case.theta, None | Some(Theta::L2NormGelu | Theta::Gelu))
            || case.norm == Some(NormSpan::Segment) && case.theta == Some(Theta::GeluL2Norm);
        if !keeps {
            continue;
        }
        let tokens = Growth {
            qkv: Amount::Add(3),
            proj: Amount::Add(2),
            ..Growth::default()
        };
        let growth = Growth {
            ffn: Amount::Add(5),
            layers: 1,
            ..if case.theta.is_some() {
                tokens
            } else {
                Growth::default()
            }
        };
        let mut model = case.model(&cpu());
        let before = model.classify(&case.pixels, BATCH).unwrap();
        let report = grown(&mut model, &case, &growth);
        let after = model.classify(&case.pixels, BATCH).unwrap();
        assert_eq!(bits(&before), bits(&after), "{}", case.name);
        assert!(report.preserving && report.max_logit_diff == 0.0 && report.probe_flops > 0);
        assert_eq!(model.param_count(), report.params_after);
        assert!(report.params_after > report.params_before);

        let start = weights(&model);
        let config = AdamWConfig::default();
        let mut optimizer = AdamW::new(config, &model).unwrap();
        for _ in 0..4 {
            let (_, gradients) = gradients(&model, &case, None, Recompute::None);
            optimizer.step(&mut model, &gradients, 1e-3).unwrap();
        }
        for ((name, before), (_, after)) in start.into_iter().zip(weights(&model)) {
            assert_ne!(before, after, "{}: {name} does not learn", case.name);
        }
    }
}

/// Wider by copies: heads and hidden units are repeated, the pixels of a patch are not.
#[test]
fn a_plain_image_model_grows_in_width() {
    for case in cases().iter().filter(|case| case.theta.is_none()) {
        for method in [Method::Clone, Method::Lemon] {
            let growth = Growth {
                method: Some(method),
                width: Amount::To(2 * case.config.width),
                ..Growth::default()
            };
            let mut model = case.model(&cpu());
            if case.config.positions == Positions::SinCos2d {
                let (pixels, batch) = (&case.pixels, BATCH);
                let error = grow(&mut model, &growth, BIRTH, Probe::Images { pixels, batch });
                assert!(error.unwrap_err().to_string().contains("sincos2d"));
                continue;
            }
            let report = grown(&mut model, case, &growth);
            assert!(
                report.relative_logit_diff < 1e-5,
                "{method}: {}",
                report.relative_logit_diff
            );
            assert_eq!(model.config().width, 2 * case.config.width);
        }
        let growth = Growth {
            method: Some(Method::ShrinkPad),
            width: Amount::To(2 * case.config.width),
            ..Growth::default()
        };
        let mut model = case.model(&cpu());
        assert!(grown(&mut model, case, &growth).relative_logit_diff > 0.0);
    }
}

/// Keys of new tokens that are as large as the old ones' scores are measured on images.
#[test]
fn new_tokens_follow_the_scores_on_images() {
    let case = cases()
        .into_iter()
        .find(|case| case.norm == Some(NormSpan::Segment))
        .unwrap();
    let growth = Growth {
        ffn: Amount::Add(6),
        keys: Some(Fill::Scores),
        values: Some(Fill::Zero),
        ..Growth::default()
    };
    let mut model = case.model(&cpu());
    let report = grown(&mut model, &case, &growth);
    assert_eq!(report.max_logit_diff, 0.0);
}

#[test]
fn packed_weights_give_the_same_bits() {
    for case in cases() {
        let plain = case.model(&cpu());
        let packed =
            Model::build_for_inference(&cpu(), &case.config, WeightFormat::F32, &mut |path, _| {
                let name = path.to_string();
                let param = plain.each_param().find(|p| p.name() == name).unwrap();
                Ok(host(plain.device(), param.value()))
            });
        let [want, got] =
            [&plain, &packed.unwrap()].map(|m| m.classify(&case.pixels, BATCH).unwrap());
        assert_eq!(bits(&got), bits(&want), "{}", case.name);
        let one = case.image().pixels();
        assert_eq!(
            plain.classify(&case.pixels[..one], 1).unwrap(),
            want[..case.config.vocab]
        );
    }
}

#[test]
fn arrays_have_their_names_and_the_decay_of_timm() {
    let case = &cases()[0];
    assert_eq!(
        (case.image().pool, case.config.positions),
        (Pool::Class, Positions::Learned)
    );
    let model = case.model(&cpu());
    let trunk = |p: &&tokenformer_core::param::Param| !p.name().starts_with("blocks.");
    let found: Vec<_> = (model.each_param().filter(trunk))
        .map(|p| (p.name(), p.shape().to_vec(), p.path().decays()))
        .collect();
    let (d, c) = (case.config.width, case.config.vocab);
    let want = [
        ("patches.weight", vec![d, case.image().patch_len()], true),
        ("patches.bias", vec![d], false),
        ("class_token.weight", vec![1, d], false),
        ("positions.weight", vec![case.config.context, d], false),
        ("final_norm.gain", vec![d], false),
        ("final_norm.bias", vec![d], false),
        ("head.weight", vec![c, d], true),
        ("head.bias", vec![c], false),
    ];
    assert_eq!(found, want);
    let of_language = common::fresh(&cpu(), &common::gpt2(), 1);
    let decays = |name| {
        of_language
            .each_param()
            .find(|p| p.name() == name)
            .unwrap()
            .path()
            .decays()
    };
    assert!(decays("positions") && decays("embedding"));
}

#[test]
fn fresh_models_favour_no_class_and_learn() {
    for case in cases() {
        let device = cpu();
        let mut model = Model::fresh(&device, &case.config, 3).unwrap();
        assert!(
            model
                .classify(&case.pixels, BATCH)
                .unwrap()
                .iter()
                .all(|l| l.to_bits() == 0)
        );
        let std = |name: &str| {
            let param = model.each_param().find(|p| p.name() == name)?;
            let numbers = host(&device, param.value());
            let squares: f64 = numbers.iter().map(|x| f64::from(*x).powi(2)).sum();
            Some((squares / numbers.len() as f64).sqrt())
        };
        let inputs = case.image().patch_len() as f64;
        assert!((std("patches.weight").unwrap() * inputs.sqrt() - 1.0).abs() < 0.5);
        for name in ["class_token.weight", "positions.weight"] {
            assert!(
                std(name).is_none_or(|std| (0.005..0.04).contains(&std)),
                "{name}"
            );
        }
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
        let mut losses = Vec::new();
        // Soft targets have an entropy that no model gets below.
        for _ in 0..30 {
            let (found, gradients) = gradients(&model, &case, None, Recompute::None);
            losses.push(found.iter().sum::<f32>());
            optimizer.step(&mut model, &gradients, 1e-2).unwrap();
        }
        assert!(losses[29] < 0.93 * losses[0], "{}: {losses:?}", case.name);
    }
}

#[test]
fn a_configuration_survives_its_file() {
    for case in cases() {
        let text = case.config.to_json();
        let (read, _) = ModelConfig::from_json(&text, "config.json").unwrap();
        assert_eq!(read, case.config);
    }
    let text = common::spec().build().unwrap().to_json();
    for key in ["input", "head_bias"] {
        assert!(
            !text.contains(key),
            "files of language models have no {key}"
        );
    }
}

/// Field and got of a contradiction.
fn refused(change: impl Fn(&mut ModelConfig)) -> String {
    let mut config = cases()[0].config.clone();
    change(&mut config);
    match config.validate() {
        Err(Error::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

fn change_image(config: &mut ModelConfig, change: impl Fn(&mut ImageInput)) {
    let Input::Image(image) = &mut config.input else {
        panic!("an image model");
    };
    change(image);
}

#[test]
fn contradictions_are_named() {
    for (change, field) in [
        ((|c| c.context += 1) as fn(&mut ModelConfig), "context"),
        (|c| c.causal = true, "causal"),
        (|c| c.positions = common::ROTARY, "positions"),
        (|c| (c.head, c.head_bias) = (HeadKind::Tied, false), "head"),
        (|c| change_image(c, |i| i.patch = [0, 1]), "input.patch"),
        (|c| change_image(c, |i| i.patch[1] = 5), "input.patch"),
        (|c| change_image(c, |i| i.height = 0), "input.height"),
        (|c| change_image(c, |i| i.width = usize::MAX), "input.width"),
        (
            |c| change_image(c, |i| i.channels = usize::MAX),
            "input.channels",
        ),
        (|c| change_image(c, |i| i.pool = Pool::Mean), "context"),
        (
            |c| (c.width, c.heads, c.positions) = (6, 2, Positions::SinCos2d),
            "positions",
        ),
    ] {
        assert_eq!(refused(change), field);
    }
    let mut language = common::spec().build().unwrap();
    language.head_bias = true;
    assert!(
        language
            .validate()
            .unwrap_err()
            .to_string()
            .starts_with("head_bias")
    );
    language.head = HeadKind::Untied;
    language.validate().unwrap();
    language.positions = Positions::SinCos2d;
    assert!(
        language
            .validate()
            .unwrap_err()
            .to_string()
            .starts_with("positions")
    );
}

#[test]
fn the_wrong_input_is_an_error() {
    let case = &cases()[0];
    let images = case.model(&cpu());
    let text = common::fresh(&cpu(), &common::spec(), 1);
    assert!(matches!(
        images.infer(&[1, 2], 1),
        Err(Error::OtherInput {
            expected: "images",
            ..
        })
    ));
    assert!(matches!(
        text.classify(&case.pixels, BATCH),
        Err(Error::OtherInput {
            expected: "tokens",
            ..
        })
    ));
    assert!(matches!(images.cache(1, 2), Err(Error::NotCausal)));
    let mut g = Graph::inference(images.device());
    let pooled = images.pooled(&mut g, &case.pixels, BATCH).unwrap();
    let classes = case.config.vocab as u32;
    let error = images
        .losses(&mut g, &pooled, LossTargets::Classes(&[0, classes, 1]), 1.0)
        .unwrap_err();
    assert!(matches!(error, Error::ClassOutOfRange { class, .. } if class == classes));
    let growth = Growth {
        layers: 1,
        ..Growth::default()
    };
    let mut images = images;
    let error = grow(&mut images, &growth, BIRTH, Probe::text(&[1, 2])).unwrap_err();
    assert!(matches!(error, Error::OtherInput { .. }));
}

/// A language model may have a head with a bias too.
#[test]
fn the_bias_of_a_language_models_head_adds_to_its_logits() {
    let spec = tokenformer_core::ModelSpec {
        head: HeadKind::Untied,
        head_bias: true,
        ..common::gpt2()
    };
    let mut model = common::fresh(&cpu(), &spec, 1);
    let before = model.infer(&[1, 2, 3], 1).unwrap();
    let bias = model
        .each_param_mut()
        .find(|p| p.name() == "head.bias")
        .unwrap();
    let numbers: Vec<f32> = (0..29).map(|i| i as f32 / 8.0).collect();
    cpu().write(&numbers, bias.value_mut()).unwrap();
    let after = model.infer(&[1, 2, 3], 1).unwrap();
    for (i, (b, a)) in before.iter().zip(&after).enumerate() {
        assert_eq!(*a, b + numbers[i % 29]);
    }
    assert_eq!(model.param_count(), spec.build().unwrap().params());
}

//! Whole models on the CUDA device, emulated: losses and gradients against the plain f64 device, exact growth, decoding,
//! recomputation, training.
#![cfg(feature = "emulator")]

mod common;

use common::device;
use std::sync::Arc;
use tokenformer_core::config::{
    Family, HeadKind, ImageInput, Input, ModelSpec, NormKind, NormSpan, Pool, Positions, Slots,
    Theta,
};
use tokenformer_core::device::reference::Reference;
use tokenformer_core::generate::Session;
use tokenformer_core::growth::{Amount, Birth, Fill, Growth, Method, Probe, TauRule, grow};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::path::ParamPath;
use tokenformer_core::{
    Device, DropPath, Gradients, Graph, LossTargets, Model, Precision, Recompute, init,
};

const BATCH: usize = 2;

fn spec() -> ModelSpec {
    ModelSpec {
        vocab: 29,
        width: 16,
        layers: 2,
        heads: 2,
        context: 10,
        slots: Slots {
            qkv: 12,
            proj: 10,
            ffn: 20,
        },
        theta: Theta::L2NormGelu,
        norm: NormSpan::Joint,
        positions: Positions::Rotary {
            fraction: 0.5,
            base: 10_000.0,
        },
        final_norm: NormKind::Affine,
        ..ModelSpec::default()
    }
}

/// A plain Transformer with learned positions, affine norms and biases.
fn gpt2() -> ModelSpec {
    ModelSpec {
        family: Family::Gpt,
        slots: Slots::default(),
        mlp_hidden: 40,
        positions: Positions::Learned,
        block_norm: NormKind::Affine,
        bias: true,
        ..spec()
    }
}

fn fresh(device: &Arc<dyn Device>, spec: &ModelSpec) -> Model {
    Model::fresh(device, &spec.build().expect("a valid model"), 3).expect("memory")
}

fn tokens(seed: u64, len: usize) -> Vec<u32> {
    tokenformer_testing::Random::new(seed).tokens(len, 29)
}

fn host(device: &dyn Device, buffer: &tokenformer_core::device::Buffer) -> Vec<f32> {
    let mut host = vec![0.0; buffer.len()];
    device.read(buffer, &mut host).expect("read");
    host
}

/// The mean loss of a fixed batch, and the gradients of all parameters.
fn learn(model: &Model, recompute: Recompute) -> (f64, Gradients) {
    let device = model.device();
    let (inputs, targets) = (tokens(1, BATCH * 10), tokens(2, BATCH * 10));
    let mut gradients = Gradients::zeros(device, model.params()).expect("memory");
    let mut g = Graph::training(device, &mut gradients).recomputing(recompute);
    let weight = 1.0 / inputs.len() as f32;
    let losses = model.loss(&mut g, &inputs, &targets, BATCH, weight);
    let losses = losses.unwrap_or_else(|error| panic!("{error}"));
    g.backward().unwrap_or_else(|error| panic!("{error}"));
    let mean = losses.iter().map(|x| f64::from(*x)).sum::<f64>() / losses.len() as f64;
    (mean, gradients)
}

fn all_gradients(model: &Model, gradients: &Gradients) -> Vec<Vec<f32>> {
    let of = |p| host(&**model.device(), gradients.get(p).expect("trainable"));
    model.each_param().map(of).collect()
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// Fails unless loss and gradients are those of the plain device: those of a parameter within `bar` of their norm.
fn check_gradients(spec: &ModelSpec, order: u32, precision: Precision, bar: f64) {
    let Some(fast) = device(order, precision) else {
        return;
    };
    let plain: Arc<dyn Device> = Reference::new();
    let [fast, plain] = [&fast, &plain].map(|device| fresh(device, spec));
    let found = [&fast, &plain].map(|model| learn(model, Recompute::None));
    compare([&fast, &plain], found, bar);
}

/// Fails unless the first model's loss and gradients are those of the second: within `bar` of their norms.
fn compare(
    [fast, plain]: [&Model; 2],
    [(loss, got), (want_loss, want)]: [(f64, Gradients); 2],
    bar: f64,
) {
    let off = (loss - want_loss).abs() / want_loss.max(1.0);
    assert!(off < bar, "{loss} is not {want_loss}");
    let (got, want) = (all_gradients(fast, &got), all_gradients(plain, &want));
    let all = want.iter().map(|g| norm(g).powi(2)).sum::<f64>().sqrt();
    for ((got, want), param) in got.iter().zip(&want).zip(plain.each_param()) {
        let off: Vec<f32> = got.iter().zip(want).map(|(g, w)| g - w).collect();
        // A gradient that nearly vanishes is the small rest of large sums.
        let error = norm(&off) / norm(want).max(1e-3 * all);
        assert!(error < bar, "{}: {error:e}", param.name());
    }
}

#[test]
fn gradients_of_token_formers() {
    for (order, theta) in Theta::ALL.into_iter().enumerate() {
        for norm in [NormSpan::Joint, NormSpan::Segment] {
            let spec = ModelSpec {
                theta,
                norm,
                ..spec()
            };
            check_gradients(&spec, order as u32, Precision::F32, 5e-5);
        }
    }
}

#[test]
fn gradients_of_plain_transformers() {
    for (order, causal) in [(0, true), (2, false)] {
        let spec = ModelSpec { causal, ..gpt2() };
        check_gradients(&spec, order, Precision::F32, 5e-5);
    }
}

/// Images, with a class token or the mean of patches, soft targets and branches that are dropped.
fn learn_images(model: &Model) -> (f64, Gradients) {
    let device = model.device();
    let pixels = tokenformer_testing::Random::new(4).normals(3 * 6 * 4 * 2, 1.0);
    let soft: Vec<f32> = (0..21).map(|i| (i % 4) as f32 / 4.0).collect();
    let mut gradients = Gradients::zeros(device, model.params()).expect("memory");
    let mut g = Graph::training(device, &mut gradients).dropping(DropPath {
        rate: 0.4,
        seed: 5,
        first: 40,
    });
    let pooled = model.pooled(&mut g, &pixels, 3).expect("images");
    let losses = model.losses(&mut g, &pooled, LossTargets::Soft(&soft), 0.3);
    let losses = losses.unwrap_or_else(|error| panic!("{error}"));
    let losses = losses.to_host(&**device).expect("losses");
    g.backward().unwrap_or_else(|error| panic!("{error}"));
    (losses.iter().map(|x| f64::from(*x)).sum(), gradients)
}

fn image_spec(pool: Pool) -> ModelSpec {
    ModelSpec {
        input: Input::Image(ImageInput {
            height: 6,
            width: 4,
            channels: 2,
            patch: [2, 2],
            pool,
        }),
        vocab: 7,
        // It follows from the input.
        context: ModelSpec::default().context,
        causal: false,
        positions: Positions::Learned,
        head: HeadKind::Untied,
        head_bias: true,
        ..spec()
    }
}

/// A model of images on the device and on the plain one. A fresh head is zero; here it is not.
fn image_models(fast: &Arc<dyn Device>, pool: Pool) -> [Model; 2] {
    let plain: Arc<dyn Device> = Reference::new();
    let config = image_spec(pool).build().expect("a valid model");
    [fast, &plain].map(|device| {
        let numbers = &mut |path: &ParamPath, shape: &[usize]| {
            let len = shape.iter().product();
            Ok(init::normal(11, &path.to_string(), len, 0.4))
        };
        Model::build(device, &config, numbers).expect("memory")
    })
}

#[test]
fn gradients_of_vision_models() {
    for (order, pool) in [(1, Pool::Class), (2, Pool::Mean)] {
        let Some(fast) = device(order, Precision::F32) else {
            return;
        };
        let [fast, plain] = image_models(&fast, pool);
        compare(
            [&fast, &plain],
            [learn_images(&fast), learn_images(&plain)],
            5e-5,
        );
    }
}

/// In bfloat16 gradients have errors of its roundings, and stay near.
#[test]
fn gradients_in_bf16() {
    check_gradients(&spec(), 2, Precision::Bf16, 0.05);
    // Heads of the size that the kernels on tensor cores take.
    let spec = ModelSpec {
        width: 64,
        ..gpt2()
    };
    check_gradients(&spec, 1, Precision::Bf16, 0.05);
}

/// `‖got − want‖ / ‖want‖`.
fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let off: Vec<f32> = got.iter().zip(want).map(|(got, want)| got - want).collect();
    norm(&off) / norm(want)
}

const BIRTH: Birth = Birth {
    stage: 1,
    step: 1,
    seed: 7,
};

fn must_grow(model: &mut Model, growth: &Growth) -> f64 {
    let text = tokens(5, BATCH * 10);
    let probe = Probe::Tokens {
        tokens: &text,
        batch: BATCH,
    };
    let report = grow(model, growth, BIRTH, probe).unwrap_or_else(|error| panic!("{error}"));
    report.max_logit_diff
}

/// New keys in bfloat16 have the size that scores on the plain device ask for.
#[test]
fn keys_as_large_as_scores_ask_for_in_bf16() {
    let growth = Growth {
        ffn: Amount::Add(40),
        keys: Some(Fill::Scores),
        values: Some(Fill::Random),
        tau: TauRule::SqrtN,
        ..Growth::default()
    };
    let Some(fast) = device(1, Precision::Bf16) else {
        return;
    };
    let plain: Arc<dyn Device> = Reference::new();
    let [fast, plain] = [&fast, &plain].map(|device| {
        let mut model = fresh(device, &spec());
        must_grow(&mut model, &growth);
        model
    });
    for (fast_param, param) in fast.each_param().zip(plain.each_param()) {
        let got = host(&**fast.device(), fast_param.value());
        let want = host(&**plain.device(), param.value());
        // Biases are zero.
        let is_near = got == want || relative(&got, &want) < 0.02;
        assert!(is_near, "{}", param.name());
    }
}

/// A τ that follows the scores goes in bfloat16 as on the plain device.
#[test]
fn a_tracked_tau_in_bf16() {
    let growth = Growth {
        ffn: Amount::Add(40),
        tau: TauRule::Tracked,
        warmup: Some(0),
        method: Some(Method::ZeroKey),
        ..Growth::default()
    };
    let Some(fast) = device(2, Precision::Bf16) else {
        return;
    };
    let plain: Arc<dyn Device> = Reference::new();
    let [got, want] = [&fast, &plain].map(|device| {
        let mut model = fresh(device, &spec());
        must_grow(&mut model, &growth);
        let losses = losses_of(model);
        assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
        losses
    });
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() < 0.05, "{got:?} is not {want:?}");
    }
}

/// What a model of pictures has seen, in bfloat16 and on the plain device.
#[test]
fn what_was_seen_in_bf16() {
    let Some(fast) = device(0, Precision::Bf16) else {
        return;
    };
    for pool in [Pool::Class, Pool::Mean] {
        let pixels = tokenformer_testing::Random::new(4).normals(3 * 6 * 4 * 2, 1.0);
        let [got, want] = image_models(&fast, pool)
            .map(|model| model.seen(&pixels, 3, true).expect("what was seen"));
        assert!(relative(&got.logits, &want.logits) < 0.05);
        assert!(relative(&got.rollout, &want.rollout) < 0.05);
        assert_eq!(got.sites.len(), want.sites.len());
        for (got, want) in got.sites.iter().zip(&want.sites) {
            assert!(relative(&got.firing, &want.firing) < 0.1, "{:?}", want.kind);
            for ((stage, energy), (_, want)) in got.energies.iter().zip(&want.energies) {
                let off = (energy / want - 1.0).abs();
                assert!(off < 0.1, "stage {stage}: {energy} is not {want}");
            }
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Growth by tokens with zero keys changes no bit of the logits, and the grown model learns.
#[test]
fn growth_is_exact() {
    for (order, norm) in [(1, NormSpan::Joint), (2, NormSpan::Segment)] {
        let Some(device) = device(order, Precision::F32) else {
            return;
        };
        let mut model = fresh(&device, &ModelSpec { norm, ..spec() });
        let text = tokens(5, BATCH * 10);
        let before = model.infer(&text, BATCH).expect("logits");
        let growth = Growth {
            qkv: Amount::Add(7),
            proj: Amount::Add(130),
            ffn: Amount::Add(40),
            ..Growth::default()
        };
        assert_eq!(must_grow(&mut model, &growth), 0.0, "{norm:?}");
        let after = model.infer(&text, BATCH).expect("logits");
        assert_eq!(bits(&before), bits(&after), "{norm:?}");
        let (_, gradients) = learn(&model, Recompute::None);
        assert!(
            all_gradients(&model, &gradients)
                .iter()
                .flatten()
                .all(|g| g.is_finite())
        );
    }
}

/// So it is with the program's own products in bfloat16, by any number of tokens: which kernel computes a product, and in
/// which order it sums, does not depend on what was appended to the matrix that a factor is cut from.
#[test]
fn growth_is_exact_with_own_products_in_bf16() {
    for (norm, added) in [
        (NormSpan::Joint, [7, 130, 41]),
        (NormSpan::Segment, [8, 3, 40]),
    ] {
        let Some(gpu) = common::gpu(1) else { return };
        let gpu = Arc::new(gpu.with_own_products());
        let device: Arc<dyn Device> = tokenformer_cuda::Cuda::new(gpu, Precision::Bf16);
        let slots = Slots {
            qkv: 40,
            proj: 48,
            ffn: 72,
        };
        let spec = ModelSpec {
            norm,
            slots,
            ..spec()
        };
        let mut model = fresh(&device, &spec);
        let text = tokens(5, BATCH * 10);
        let before = model.infer(&text, BATCH).expect("logits");
        let [qkv, proj, ffn] = added.map(Amount::Add);
        let growth = Growth {
            qkv,
            proj,
            ffn,
            ..Growth::default()
        };
        assert_eq!(must_grow(&mut model, &growth), 0.0, "{norm:?}");
        let after = model.infer(&text, BATCH).expect("logits");
        assert_eq!(bits(&before), bits(&after), "{norm:?}");
    }
}

/// Decoding with a cache gives the logits of a full pass: with the emulator's products, to the bit.
#[test]
fn decoding_is_a_full_pass() {
    for spec in [spec(), gpt2()] {
        let Some(device) = device(2, Precision::F32) else {
            return;
        };
        let model = fresh(&device, &spec);
        let text = tokens(6, 10);
        let whole = model.infer(&text, 1).expect("logits");
        for first in [1, 4] {
            let mut session = Session::new(&model, 10).expect("a cache");
            session.feed(&text[..first]).expect("room");
            for (at, token) in text.iter().enumerate().skip(first) {
                session.feed(&[*token]).expect("room");
                let want = &whole[at * 29..][..29];
                assert_eq!(bits(session.logits()), bits(want), "token {at}");
            }
        }
    }
}

/// What is recomputed has the same bits.
#[test]
fn recomputation_changes_nothing() {
    let Some(device) = device(2, Precision::F32) else {
        return;
    };
    let model = fresh(&device, &spec());
    let [kept, scores, blocks] = [Recompute::None, Recompute::Scores, Recompute::Blocks]
        .map(|recompute| all_gradients(&model, &learn(&model, recompute).1));
    for other in [scores, blocks] {
        for (kept, other) in kept.iter().zip(&other) {
            assert_eq!(bits(kept), bits(other));
        }
    }
}

fn losses(device: &Arc<dyn Device>, spec: &ModelSpec) -> Vec<f64> {
    losses_of(fresh(device, spec))
}

/// Losses of a few updates, which also clip and decay, and let each τ follow the scores if it does.
fn losses_of(mut model: Model) -> Vec<f64> {
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model).expect("memory");
    let step = |_| {
        let (loss, gradients) = learn(&model, Recompute::None);
        optimizer
            .step(&mut model, &gradients, 1e-2)
            .expect("an update");
        loss
    };
    (0..4).map(step).collect()
}

#[test]
fn training_goes_as_on_the_plain_device() {
    let Some(fast) = device(2, Precision::F32) else {
        return;
    };
    let plain: Arc<dyn Device> = Reference::new();
    let [got, want] = [&fast, &plain].map(|device| losses(device, &spec()));
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() < 1e-4, "{got} is not {want}");
    }
    assert!(got[3] < got[0] - 0.1, "{got:?}");
}

/// A dry run takes the memory that the run takes, and computes nothing.
#[test]
fn a_dry_run_takes_the_same_memory() {
    let Some(device) = device(0, Precision::F32) else {
        return;
    };
    let dry = device.dry_run().expect("a dry run");
    let usages = [&device, &dry].map(|device| {
        let model = fresh(device, &spec());
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model).expect("memory");
        let mut model = model;
        let (_, gradients) = learn(&model, Recompute::None);
        let during = device.usage();
        optimizer
            .step(&mut model, &gradients, 1e-2)
            .expect("an update");
        (during, device.usage())
    });
    assert_eq!(usages[0], usages[1]);
    assert!(usages[0].0.persistent > 0 && usages[0].0.temporary > 0);
}

/// Memory that is not there is an error that says how much is missing, and the device stays usable.
#[test]
fn memory_that_cannot_be_had_is_an_error() {
    let Some(gpu) = common::gpu(0) else { return };
    let gpu = Arc::new(gpu.with_memory(1 << 20));
    let device: Arc<dyn Device> = tokenformer_cuda::Cuda::new(gpu, Precision::F32);
    use tokenformer_core::device::{DeviceError, Role, Temp};
    for len in [1 << 19, usize::MAX / 2] {
        let error = Temp::new(&device, len, Role::Activation).expect_err("no memory");
        assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
        let error = device.alloc(len, Role::Weight).expect_err("no memory");
        assert!(error.to_string().contains("help:"), "{error}");
    }
    assert_eq!(device.usage().total(), 0);
    let text = tokens(1, 10);
    let model = fresh(&device, &spec());
    assert!(
        model
            .infer(&text, 1)
            .expect("memory")
            .iter()
            .all(|x| x.is_finite())
    );
}

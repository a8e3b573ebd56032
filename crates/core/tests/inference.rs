//! Models whose weights are laid out for inference compute what the others compute.

mod common;

use common::{bits, cpu, encoder, fresh, gpt, gpt2, max_abs_difference, reference, spec, tokens};
use std::sync::Arc;
use tokenformer_core::config::{ModelSpec, NormSpan, Theta};
use tokenformer_core::device::DeviceError;
use tokenformer_core::generate::Session;
use tokenformer_core::{Device, Error, Graph, Model, WeightFormat};
use tokenformer_cpu::Cpu;

const ALL: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];

fn inference(device: &Arc<dyn Device>, spec: &ModelSpec, precision: WeightFormat) -> Model {
    Model::fresh_for_inference(device, &spec.build().unwrap(), precision, 9).unwrap()
}

/// A model of the same numbers that a prepared one holds, as plain f32.
fn widened(device: &Arc<dyn Device>, spec: &ModelSpec, model: &Model) -> Model {
    Model::build(device, &spec.build().unwrap(), &mut |path, shape| {
        let param = (model.params().into_iter())
            .find(|p| p.path() == *path)
            .unwrap();
        let mut host = vec![0.0; shape.iter().product()];
        model.device().read(param.value(), &mut host)?;
        Ok(host)
    })
    .unwrap()
}

fn wide(spec: ModelSpec) -> ModelSpec {
    ModelSpec {
        width: 320,
        heads: 5,
        ..spec
    }
}

/// A model of each family.
fn wide_specs() -> [ModelSpec; 3] {
    [wide(spec()), wide(gpt()), wide(gpt2())]
}

/// The same bits, but for 8-bit integers, which are summed before they are scaled: close.
fn same(precision: WeightFormat, got: &[f32], want: &[f32]) {
    if precision != WeightFormat::Int8 {
        return assert_eq!(bits(got), bits(want), "{precision:?}");
    }
    let most = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let off = max_abs_difference(got, want);
    assert!(off <= 1e-5 * f64::from(most), "{off:e} of {most:e}");
}

#[test]
fn the_prepared_model_is_the_plain_model_of_its_numbers() {
    let others = [
        ModelSpec {
            theta: Theta::Softmax,
            norm: NormSpan::Segment,
            ..spec()
        },
        wide(ModelSpec {
            theta: Theta::Gelu,
            ..spec()
        }),
        wide(encoder()),
    ];
    for spec in wide_specs().into_iter().chain(others) {
        let device = cpu();
        for precision in ALL {
            let model = inference(&device, &spec, precision);
            let plain = widened(&device, &spec, &model);
            let text = tokens(1, 2 * 24, spec.vocab);
            let (got, want) = (
                model.infer(&text, 2).unwrap(),
                plain.infer(&text, 2).unwrap(),
            );
            same(precision, &got, &want);
            let loss = |model: &Model| {
                let mut g = Graph::inference(&device);
                model.loss(&mut g, &text, &text, 2, 0.0).unwrap()
            };
            same(precision, &loss(&model), &loss(&plain));
        }
        let exact = inference(&device, &spec, WeightFormat::F32);
        let fresh = fresh(&device, &spec, 9);
        let text = tokens(2, 24, spec.vocab);
        assert_eq!(
            bits(&exact.infer(&text, 1).unwrap()),
            bits(&fresh.infer(&text, 1).unwrap())
        );
    }
}

#[test]
fn decoding_a_token_gives_the_bits_of_one_pass() {
    for (spec, precision) in
        (wide_specs().into_iter()).flat_map(|spec| ALL.map(|precision| (spec.clone(), precision)))
    {
        let model = inference(&cpu(), &spec, precision);
        let text = tokens(1, 24, spec.vocab);
        let whole = model.infer(&text, 1).unwrap();
        let mut session = Session::new(&model, 24).unwrap();
        for (at, token) in text.iter().enumerate() {
            session.feed(&[*token]).unwrap();
            let want = &whole[at * spec.vocab..(at + 1) * spec.vocab];
            assert_eq!(bits(session.logits()), bits(want), "{precision:?} at {at}");
        }
    }
}

#[test]
fn sequences_of_a_batch_and_threads_do_not_disturb_each_other() {
    for (spec, precision) in
        (wide_specs().into_iter()).flat_map(|spec| ALL.map(|precision| (spec.clone(), precision)))
    {
        for batch in [2, 4, 9] {
            let text = tokens(5, batch * 3, spec.vocab);
            let run = |threads| {
                let device: Arc<dyn Device> = Cpu::new(Some(threads));
                let model = inference(&device, &spec, precision);
                let mut cache = model.cache(batch, 8).unwrap();
                let step = |tokens: &[u32], cache: &mut _| {
                    let mut g = Graph::inference(&device);
                    let hidden = model.hidden(&mut g, tokens, batch, Some(cache)).unwrap();
                    let logits = model.logits(&mut g, &hidden).unwrap();
                    logits.to_host(&*device).unwrap()
                };
                let mut last = Vec::new();
                for t in 0..3 {
                    let tokens: Vec<u32> = text.chunks(3).map(|s| s[t]).collect();
                    last = step(&tokens, &mut cache);
                }
                (model.infer(&text, batch).unwrap(), last)
            };
            let (whole, last) = run(1);
            for (b, last) in last.chunks(spec.vocab).enumerate() {
                let at = (b * 3 + 2) * spec.vocab;
                assert_eq!(
                    bits(last),
                    bits(&whole[at..at + spec.vocab]),
                    "{precision:?}"
                );
            }
            let (whole_3, last_3) = run(3);
            assert_eq!((bits(&whole_3), bits(&last_3)), (bits(&whole), bits(&last)));
        }
    }
}

#[test]
fn less_precision_is_a_little_off() {
    wide_specs().iter().for_each(check_less_precision);
}

fn check_less_precision(spec: &ModelSpec) {
    let device = cpu();
    let text = tokens(1, 24, spec.vocab);
    let exact = inference(&device, spec, WeightFormat::F32)
        .infer(&text, 1)
        .unwrap();
    let largest = exact.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    for precision in [WeightFormat::Bf16, WeightFormat::Int8] {
        let got = inference(&device, spec, precision).infer(&text, 1).unwrap();
        let error = max_abs_difference(&got, &exact) / f64::from(largest);
        assert!(error > 1e-5 && error < 0.05, "{precision:?}: {error:e}");
    }
}

#[test]
fn a_device_without_a_precision_says_so() {
    let config = spec().build().unwrap();
    assert!(Model::fresh_for_inference(&reference(), &config, WeightFormat::F32, 1).is_ok());
    let refused = Model::fresh_for_inference(&reference(), &config, WeightFormat::Int8, 1);
    let error = refused.unwrap_err();
    assert!(
        matches!(&error, Error::Device(DeviceError::Failed { operation, .. }) if operation.contains("int8")),
        "{error}"
    );
}

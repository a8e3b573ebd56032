//! What a step recomputes changes its memory and none of its numbers.

mod common;

use common::{bits, encoder, gpt, gpt2, host, is_without_effect, spec, tokens, weights};
use std::sync::Arc;
use tokenformer_core::Gradients;
use tokenformer_core::config::{Family, NormSpan, Slots, Theta};
use tokenformer_core::growth::{Amount, Birth, Growth, Probe, grow};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Device, Graph, Model, ModelSpec, Precision, Recompute};
use tokenformer_cpu::Cpu;

/// Sequences of a micro-batch, and their tokens.
type Shape = [usize; 2];
const SHAPE: Shape = [3, 24];

/// Bits of losses and gradients of some updates with a growth between them, and of the weights after them.
fn run(
    spec: &ModelSpec,
    device: Arc<dyn Device>,
    recompute: Recompute,
    [batch, context]: Shape,
) -> (Vec<Vec<u32>>, usize) {
    let mut model = Model::fresh(&device, &spec.build().unwrap(), 5).unwrap();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
    let mut found = Vec::new();
    let mut kept = 0;
    for step in 0..4 {
        if step == 2 {
            let growth = match spec.family {
                Family::Tokenformer => Growth {
                    ffn: Amount::Add(7),
                    qkv: Amount::Add(3),
                    ..Growth::default()
                },
                Family::Gpt => Growth {
                    layers: 1,
                    ..Growth::default()
                },
            };
            let birth = Birth {
                stage: 1,
                step,
                seed: 1,
            };
            grow(
                &mut model,
                &growth,
                birth,
                Probe::text(&tokens(1, context, 29)),
            )
            .unwrap();
            optimizer.extend(&model).unwrap();
        }
        let mut gradients = Gradients::zeros(&device, model.each_param()).unwrap();
        // Two micro-batches, so that gradients are added to.
        for micro in 0..2 {
            let all = tokens(10 * step + micro, batch * context + 1, 29);
            let before = device.usage().temporary;
            let mut g = Graph::training(&device, &mut gradients).recomputing(recompute);
            let (inputs, targets) = (&all[..batch * context], &all[1..]);
            found.push(bits(
                &model.loss(&mut g, inputs, targets, batch, 0.01).unwrap(),
            ));
            kept = kept.max(device.usage().temporary - before);
            g.backward().unwrap();
        }
        for param in model.each_param() {
            let gradient = host(&device, gradients.get(param).expect("trainable"));
            let name = param.name();
            // New keys, new values or the ends of new blocks are zero for a step, and the gradient of others with them.
            let is_new = name.contains("segments.1.") || name.starts_with("blocks.2.");
            let may_be_zero = step == 2 && is_new || is_without_effect(&model.config(), param);
            assert!(may_be_zero || gradient.iter().any(|&x| x != 0.0), "{name}");
            found.push(bits(&gradient));
        }
        optimizer.step(&mut model, &gradients, 1e-2).unwrap();
    }
    found.extend(weights(&model).into_iter().map(|(_, bits)| bits));
    (found, kept)
}

#[test]
fn losses_gradients_and_weights_are_the_same_to_the_bit() {
    let sites = [
        (Theta::L2NormGelu, NormSpan::Segment),
        (Theta::GeluL2Norm, NormSpan::Joint),
        (Theta::Softmax, NormSpan::Joint),
        (Theta::Gelu, NormSpan::Joint),
    ];
    let sites = sites.map(|(theta, norm)| ModelSpec {
        theta,
        norm,
        ..spec()
    });
    for spec in [&sites[..], &[gpt(), gpt2(), encoder()]].concat() {
        for precision in Precision::ALL {
            let run = |recompute, threads| {
                run(
                    &spec,
                    Cpu::with_precision(Some(threads), precision),
                    recompute,
                    SHAPE,
                )
            };
            let (want, most) = run(Recompute::None, 1);
            for recompute in Recompute::ALL {
                for threads in [1, 2] {
                    let (got, kept) = run(recompute, threads);
                    let what = format!("{precision}, {recompute}, {threads} threads: {spec:?}");
                    assert!(got == want, "{what}");
                    // A plain Transformer has no scores of sites that could be computed again.
                    let keeps_all = match spec.family {
                        Family::Tokenformer => recompute == Recompute::None,
                        Family::Gpt => recompute != Recompute::Blocks,
                    };
                    assert_eq!(kept == most, keeps_all, "{what}: {kept}");
                }
            }
        }
    }
}

/// A pass that keeps nothing has other kernels for a few rows, which decoding has, too.
#[test]
fn a_few_rows_change_no_bit_either() {
    for precision in Precision::ALL {
        let found = Recompute::ALL.map(|recompute| {
            let device = Cpu::with_precision(Some(2), precision);
            run(&spec(), device, recompute, [1, 6]).0
        });
        assert!(found.iter().all(|bits| *bits == found[0]), "{precision}");
    }
}

#[test]
fn each_choice_keeps_less_than_the_one_before() {
    let spec = ModelSpec {
        layers: 4,
        slots: Slots {
            qkv: 64,
            proj: 64,
            ffn: 256,
        },
        ..spec()
    };
    let kept = Recompute::ALL.map(|recompute| run(&spec, Cpu::new(Some(1)), recompute, SHAPE).1);
    assert!(kept[1] < kept[0] / 2 && kept[2] < kept[1] / 2, "{kept:?}");
}

#[test]
fn a_dry_run_takes_what_the_run_takes() {
    let [batch, context] = SHAPE;
    for spec in [spec(), gpt(), gpt2(), encoder()] {
        for recompute in Recompute::ALL {
            let usage = |dry: bool| {
                let mut device: Arc<dyn Device> = Cpu::new(Some(2));
                if dry {
                    device = device.dry_run().unwrap();
                }
                let mut model = Model::fresh(&device, &spec.build().unwrap(), 5).unwrap();
                let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
                for step in 0..2 {
                    let mut gradients = Gradients::zeros(&device, model.each_param()).unwrap();
                    let all = tokens(step, batch * context, 29);
                    let mut g = Graph::training(&device, &mut gradients).recomputing(recompute);
                    model.loss(&mut g, &all, &all, batch, 0.01).unwrap();
                    g.backward().unwrap();
                    optimizer.step(&mut model, &gradients, 1e-2).unwrap();
                }
                device.usage()
            };
            assert_eq!(usage(true), usage(false), "{recompute}");
        }
    }
}

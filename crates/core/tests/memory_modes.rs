//! What a step keeps changes its memory and none of its numbers.

mod common;

use common::{bits, spec, tokens, weights};
use std::sync::Arc;
use tokenformer_core::config::{NormSpan, Slots, Theta};
use tokenformer_core::grow::{Amount, Birth, Growth, grow};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::param::Gradients;
use tokenformer_core::{Cpu, Device, Graph, Memory, Model, ModelSpec, Precision};

const BATCH: usize = 3;
const CONTEXT: usize = 24;

/// Bits of losses and gradients of some updates with a growth between them, and of the weights after them.
fn run(spec: &ModelSpec, cpu: Arc<Cpu>, memory: Memory) -> (Vec<Vec<u32>>, usize) {
    let device: Arc<dyn Device> = cpu.clone();
    let mut model = Model::fresh(&device, &spec.build().unwrap(), 5).unwrap();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
    let mut found = Vec::new();
    let mut kept = 0;
    for step in 0..4 {
        if step == 2 {
            let growth = Growth {
                ffn: Amount::Add(7),
                qkv: Amount::Add(3),
                ..Growth::default()
            };
            let birth = Birth {
                stage: 1,
                step,
                seed: 1,
            };
            grow(&mut model, &growth, birth, &tokens(1, CONTEXT, 29), 1).unwrap();
            optimizer.adopt(&model).unwrap();
        }
        let mut gradients = Gradients::zeros(&device, model.each_param()).unwrap();
        // Two micro-batches, so that gradients are added to.
        for micro in 0..2 {
            let all = tokens(10 * step + micro, BATCH * CONTEXT + 1, 29);
            let before = cpu.memory().arena.in_use;
            let mut g = Graph::training(&device, &mut gradients).keeping(memory);
            let (inputs, targets) = (&all[..BATCH * CONTEXT], &all[1..]);
            found.push(bits(
                &model.loss(&mut g, inputs, targets, BATCH, 0.01).unwrap(),
            ));
            kept = kept.max(cpu.memory().arena.in_use - before);
            g.backward().unwrap();
        }
        for param in model.each_param() {
            let gradient = gradients.get(param).expect("trainable");
            let mut host = vec![0.0; param.len()];
            device.download(gradient, &mut host).unwrap();
            // New keys or new values are zero for a step, and the gradient of the others with them.
            let born = step == 2 && param.name().contains("segments.1.");
            assert!(born || host.iter().any(|&x| x != 0.0), "{}", param.name());
            found.push(bits(&host));
        }
        optimizer.step(&mut model, &gradients, 1e-2).unwrap();
    }
    found.extend(weights(&model).into_iter().map(|(_, bits)| bits));
    (found, kept)
}

#[test]
fn losses_gradients_and_weights_are_the_same_to_the_bit() {
    let kinds = [
        (Theta::L2NormGelu, NormSpan::Segment),
        (Theta::GeluL2Norm, NormSpan::Joint),
        (Theta::Softmax, NormSpan::Joint),
    ];
    for (theta, norm) in kinds {
        for precision in Precision::ALL {
            let spec = ModelSpec {
                theta,
                norm,
                ..spec()
            };
            let run =
                |memory, threads| run(&spec, Cpu::with_precision(Some(threads), precision), memory);
            let (want, most) = run(Memory::Speed, 1);
            for memory in Memory::ALL {
                for threads in [1, 2] {
                    let (got, kept) = run(memory, threads);
                    let what = format!("{theta:?} {norm:?} {precision} {memory} {threads} threads");
                    assert!(got == want, "{what}");
                    assert_eq!(kept == most, memory == Memory::Speed, "{what}: {kept}");
                }
            }
        }
    }
}

#[test]
fn each_mode_keeps_less_than_the_one_before() {
    let spec = ModelSpec {
        layers: 4,
        slots: Slots {
            qkv: 64,
            proj: 64,
            ffn: 256,
        },
        ..spec()
    };
    let kept = Memory::ALL.map(|memory| run(&spec, Cpu::new(Some(1)), memory).1);
    assert!(kept[1] < kept[0] / 2 && kept[2] < kept[1] / 2, "{kept:?}");
}

#[test]
fn a_rehearsal_takes_what_the_run_takes() {
    let spec = spec();
    for memory in Memory::ALL {
        let usage = |rehearses: bool| {
            let cpu = match rehearses {
                true => Cpu::rehearsal(Some(2), Precision::F32),
                false => Cpu::new(Some(2)),
            };
            let device: Arc<dyn Device> = cpu.clone();
            let mut model = Model::fresh(&device, &spec.build().unwrap(), 5).unwrap();
            let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
            for step in 0..2 {
                let mut gradients = Gradients::zeros(&device, model.each_param()).unwrap();
                let all = tokens(step, BATCH * CONTEXT, 29);
                let mut g = Graph::training(&device, &mut gradients).keeping(memory);
                model.loss(&mut g, &all, &all, BATCH, 0.01).unwrap();
                g.backward().unwrap();
                optimizer.step(&mut model, &gradients, 1e-2).unwrap();
            }
            cpu.memory()
        };
        assert_eq!(usage(true), usage(false), "{memory}");
    }
}

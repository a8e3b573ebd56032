//! Trains a small model on a text that is made on the spot: `cargo run --release --example train`.

use std::sync::Arc;
use tokenformer_core::config::Slots;
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Device, Gradients, Graph, Model, ModelSpec};
use tokenformer_cpu::Cpu;

const CONTEXT: usize = 32;
const BATCH: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The text counts aloud; its bytes are the tokens.
    let text = (0..2000).map(|n| format!("{n} and ")).collect::<Vec<_>>();
    let text = text.concat().into_bytes();
    let device: Arc<dyn Device> = Cpu::new(None);
    let spec = ModelSpec {
        vocab: 256,
        width: 64,
        layers: 2,
        heads: 4,
        context: CONTEXT,
        slots: Slots {
            qkv: 64,
            proj: 64,
            ffn: 256,
        },
        ..ModelSpec::default()
    };
    let mut model = Model::fresh(&device, &spec.build()?, 1)?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model)?;
    let mut gradients = Gradients::zeros(&device, model.params())?;
    println!(
        "{} parameters on {}",
        model.param_count(),
        device.describe()
    );

    for step in 0..=200 {
        let windows = (0..BATCH).map(|i| (step * BATCH + i) * 101 % (text.len() - CONTEXT - 1));
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for at in windows {
            let window = text[at..=at + CONTEXT].iter().map(|&byte| u32::from(byte));
            inputs.extend(window.clone().take(CONTEXT));
            targets.extend(window.skip(1));
        }
        // A graph notes what the backward pass needs; gradients are those of the mean loss.
        let mut g = Graph::training(&device, &mut gradients);
        let mean = 1.0 / inputs.len() as f32;
        let losses = model.loss(&mut g, &inputs, &targets, BATCH, mean)?;
        g.backward()?;
        optimizer.step(&mut model, &gradients, 3e-3)?;
        gradients.reset();
        if step % 50 == 0 {
            println!("step {step}: loss {:.3}", losses.iter().sum::<f32>() * mean);
        }
    }
    Ok(())
}

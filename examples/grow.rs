//! Grows a model and shows that it computes exactly what it did: `cargo run --release --example grow`.

use std::sync::Arc;
use tokenformer_core::config::{NormSpan, Slots};
use tokenformer_core::growth::{Amount, Birth, Growth, Probe, grow};
use tokenformer_core::{Device, Model, ModelSpec};
use tokenformer_cpu::Cpu;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device: Arc<dyn Device> = Cpu::new(None);
    let spec = ModelSpec {
        vocab: 256,
        width: 64,
        layers: 2,
        heads: 4,
        context: 32,
        slots: Slots {
            qkv: 64,
            proj: 64,
            ffn: 256,
        },
        // Each generation of tokens has a norm of its own, so that old tokens never see new ones.
        norm: NormSpan::Segment,
        ..ModelSpec::default()
    };
    let mut model = Model::fresh(&device, &spec.build()?, 1)?;

    // Three times as many parameter tokens in every site, and one more block.
    let growth = Growth {
        qkv: Amount::To(192),
        proj: Amount::To(192),
        ffn: Amount::To(768),
        layers: 1,
        ..Growth::default()
    };
    let birth = Birth {
        stage: 1,
        step: 0,
        seed: 2,
    };
    let probe: Vec<u32> = (0..32).map(|i| i * 37 % 256).collect();
    let report = grow(&mut model, &growth, birth, Probe::text(&probe))?;

    println!(
        "{} -> {} parameters, {} -> {} blocks",
        report.params_before, report.params_after, report.layers_before, report.layers_after
    );
    println!("largest difference of a logit: {}", report.max_logit_diff);
    assert_eq!(report.max_logit_diff, 0.0);
    Ok(())
}

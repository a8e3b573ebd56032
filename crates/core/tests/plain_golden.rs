//! Plain Transformers against an independent PyTorch implementation, `tests/fixtures/make_plain.py`.

mod common;

use common::golden::{Golden, about, check, fixtures};
use common::{cpu, reference};
use std::collections::BTreeMap;
use tokenformer_core::config::{Family, HeadKind, ModelSpec, NormKind, Positions, Residual};

fn load(name: &str) -> Golden {
    let root = fixtures();
    let about = about(&root, "plain.json", name);
    let config = &about["config"];
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let number = |key: &str| config[key].as_f64().unwrap();
    let is = |key: &str| config[key].as_bool().unwrap();
    let spec = ModelSpec {
        family: Family::Gpt,
        vocab: size("vocab"),
        width: size("width"),
        layers: size("layers"),
        heads: size("heads"),
        context: size("context"),
        mlp_hidden: size("hidden"),
        bias: is("bias"),
        causal: is("causal"),
        residual: match is("parallel") {
            true => Residual::Parallel,
            false => Residual::Sequential,
        },
        positions: match config["positions"].as_str().unwrap() {
            "rotary" => Positions::Rotary {
                fraction: number("rotary_pct"),
                base: number("rope_base"),
            },
            "learned" => Positions::Learned,
            "none" => Positions::None,
            other => panic!("unknown positions {other}"),
        },
        block_norm: match config["block_norm"].as_str().unwrap() {
            "affine" => NormKind::Affine,
            "plain" => NormKind::Plain,
            other => panic!("unknown norm {other}"),
        },
        head: match is("tied") {
            true => HeadKind::Tied,
            false => HeadKind::Untied,
        },
        ..ModelSpec::default()
    };
    let config = spec.build().unwrap();
    assert_eq!(config.norm_eps, number("eps"));
    Golden::open(&root, about, config, BTreeMap::new())
}

fn check_on_both_devices(name: &str) {
    for device in [cpu(), reference()] {
        check(&load(name), &device, 1e-4);
    }
}

#[test]
fn rotary_positions_and_plain_norms() {
    check_on_both_devices("gpt");
}

#[test]
fn learned_positions_biases_and_affine_norms() {
    check_on_both_devices("gpt2");
}

#[test]
fn an_encoder_with_parallel_branches_and_a_head_of_its_own() {
    check_on_both_devices("encoder");
}

//! TokenFormers against an independent PyTorch implementation.

mod common;

use common::golden::{Golden, about, check, fixtures};
use common::{cpu, reference};
use std::path::Path;
use tokenformer_core::config::{ModelSpec, Positions, Slots, Theta};
use tokenformer_core::published;

fn load(root: &Path, name: &str) -> Golden {
    let about = about(root, "lm.json", name);
    let size = |key: &str| about["config"][key].as_u64().unwrap() as usize;
    let number = |key: &str| about["config"][key].as_f64().unwrap();
    let spec = ModelSpec {
        vocab: size("vocab"),
        width: size("width"),
        layers: size("layers"),
        heads: size("heads"),
        context: size("seq"),
        slots: Slots {
            qkv: size("n_qkv"),
            proj: size("n_proj"),
            ffn: size("n_ffn"),
        },
        theta: match about["config"]["theta"].as_str().unwrap() {
            "l2_norm_gelu" => Theta::L2NormGelu,
            "gelu_l2_norm" => Theta::GeluL2Norm,
            other => panic!("unknown theta {other}"),
        },
        positions: Positions::Rotary {
            fraction: number("rotary_pct"),
            base: number("rope_base"),
        },
        ..ModelSpec::default()
    };
    let config = spec.build().unwrap();
    assert_eq!(config.norm_eps, number("eps"));
    let names = published::names(&config).into_iter().collect();
    Golden::open(root, about, config, names)
}

#[test]
fn small_model_on_the_cpu() {
    check(&load(&fixtures(), "lm0"), &cpu(), 1e-4);
}

#[test]
fn small_model_on_the_plain_device() {
    check(&load(&fixtures(), "lm0"), &reference(), 1e-4);
}

/// The larger golden models, from the directory that `TOKENFORMER_GOLDEN` names.
#[test]
#[ignore = "needs TOKENFORMER_GOLDEN=DIR with lm.json and lm0, lm1, lm2"]
fn larger_models() {
    let root =
        std::env::var_os("TOKENFORMER_GOLDEN").expect("TOKENFORMER_GOLDEN names the directory");
    for name in ["lm0", "lm1", "lm2"] {
        for device in [cpu(), reference()] {
            check(&load(Path::new(&root), name), &device, 1e-3);
        }
    }
}

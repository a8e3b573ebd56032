//! A model directory that is not what it was does not pass.

mod common;

use common::{Lab, device, save, weights};
use std::path::Path;
use tokenformer_convert::{Check, WeightType, verify};
use tokenformer_store::DirWriter;

fn checks(dir: &Path) -> Vec<Check> {
    verify(dir, &device()).unwrap()
}

fn failed(dir: &Path) -> Vec<String> {
    let failed = checks(dir).into_iter().filter(|check| !check.passed);
    failed.map(|check| check.name).collect()
}

#[test]
fn a_whole_model_passes_every_check() {
    let lab = Lab::new();
    let checks = checks(&lab.model());
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "manifest.json",
            "config.json",
            "fingerprint.safetensors",
            "model.safetensors",
            "logits"
        ]
    );
    assert!(checks.iter().all(|check| check.passed), "{checks:?}");
}

#[test]
fn each_changed_file_is_named() {
    let lab = Lab::new();
    let model = lab.model();
    for name in ["config.json", "fingerprint.safetensors"] {
        let path = model.join(name);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(failed(&model).contains(&name.to_string()), "{name}");
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(failed(&model).contains(&name.to_string()), "{name}");
        std::fs::write(&path, good).unwrap();
    }
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    assert_eq!(failed(&model), ["model.safetensors", "logits"]);
    std::fs::write(model.join("manifest.json"), "{}").unwrap();
    assert!(failed(&model).contains(&"manifest.json".to_string()));
}

#[test]
fn exchanged_weights_change_the_logits() {
    let lab = Lab::new();
    let model = lab.model();
    let mut tensors = weights();
    tensors
        .get_mut("sequential.2.attention.query.key_param_tokens")
        .unwrap()
        .1[3] += 1.0;
    save(&tensors, &lab.path("other.safetensors"));
    lab.convert(&lab.path("other.safetensors"), "other")
        .unwrap();
    // Published whole, but with the fingerprint of another model: hashes fit, the logits do not.
    let mut writer = DirWriter::begin(&lab.path("mixed"), "model").unwrap();
    for (from, name) in [
        (&model, "config.json"),
        (&model, "fingerprint.safetensors"),
        (&lab.path("other"), "model.safetensors"),
    ] {
        writer
            .write_bytes(name, &std::fs::read(from.join(name)).unwrap())
            .unwrap();
    }
    writer.commit().unwrap();
    assert_eq!(failed(&lab.path("mixed")), ["logits"]);
}

#[test]
fn a_changed_export_is_named() {
    let lab = Lab::new();
    lab.export(&lab.model(), "hf", WeightType::F16).unwrap();
    assert_eq!(failed(&lab.path("hf")), [""; 0]);
    let path = lab.path("hf/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    assert!(failed(&lab.path("hf")).contains(&"model.safetensors".to_string()));
}

#[test]
fn what_is_no_model_is_said() {
    let lab = Lab::new();
    assert_eq!(failed(&lab.folder("empty")), ["manifest.json"]);
    assert!(common::message(verify(&lab.path("lm0.yml"), &device())).contains("a file"));
    assert!(common::message(verify(&lab.path("gone"), &device())).contains("gone"));
}

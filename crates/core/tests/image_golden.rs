//! Image models against an independent PyTorch implementation, `tests/fixtures/make_images.py`: logits, losses and the
//! gradients of all arrays. The models of another folder that it wrote are checked with `TOKENFORMER_IMAGES=FOLDER`.

mod common;

use common::golden::fixtures;
use common::{cpu, host, reference};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenformer_core::device::{Buffer, reference::values};
use tokenformer_core::param::Param;
use tokenformer_core::{Device, Gradients, Graph, LossTargets, Model, ModelConfig};
use tokenformer_store::SafetensorsFile;

const WEIGHT: f32 = 0.25;

fn folders() -> Vec<PathBuf> {
    let root = match std::env::var_os("TOKENFORMER_IMAGES") {
        Some(folder) => PathBuf::from(folder),
        None => fixtures().join("images"),
    };
    let entries = std::fs::read_dir(root).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0f64, |m, x| m.max(x.abs()))
}

/// The largest difference of numbers, relative to the largest of what they should be, or to `least`.
fn error(got: &[f64], want: &[f64], least: f64) -> f64 {
    assert_eq!(got.len(), want.len());
    let size = largest(want).max(least);
    let off = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    off.fold(0.0, |m: f64, x| if x > m || x.is_nan() { x } else { m }) / size
}

/// All digits that the device has.
fn numbers(device: &Arc<dyn Device>, buffer: &Buffer, is_wide: bool) -> Vec<f64> {
    match is_wide {
        true => values(buffer).to_vec(),
        false => host(device, buffer).into_iter().map(f64::from).collect(),
    }
}

fn check(folder: &Path, device: &Arc<dyn Device>, is_wide: bool, bar: f64) {
    let who = format!("{} on {}", folder.display(), device.describe());
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let (config, _) = ModelConfig::from_json(&text, "config.json").unwrap();
    let open = |name: &str| SafetensorsFile::open(&folder.join(name)).unwrap();
    let (weights, expected) = (open("model.safetensors"), open("expected.safetensors"));
    let want = |name: &str| -> Vec<f64> {
        let [near, rest] = ["", ".rest"].map(|end| expected.read_f32(&format!("{name}{end}")));
        let pairs = near.unwrap().into_iter().zip(rest.unwrap());
        pairs
            .map(|(near, rest)| f64::from(near) + f64::from(rest))
            .collect()
    };
    let model = Model::build(device, &config, &mut |path, shape| {
        let name = path.to_string();
        weights.expect_shape(&name, shape).unwrap();
        Ok(weights.read_f32(&name).unwrap())
    });
    let model = model.unwrap();
    assert_eq!(weights.names().count(), model.params().len(), "{who}");
    assert_eq!(model.config(), config, "{who}");

    let pixels = expected.read_f32("pixels").unwrap();
    let targets = expected.read_f32("targets").unwrap();
    let batch = expected.shape("pixels").unwrap()[0];
    let mut gradients = Gradients::zeros(device, model.params()).unwrap();
    let mut g = Graph::training(device, &mut gradients);
    let pooled = model.pooled(&mut g, &pixels, batch).unwrap();
    let losses = model
        .losses(&mut g, &pooled, LossTargets::Soft(&targets), WEIGHT)
        .unwrap();
    let losses = numbers(device, losses.buffer(), is_wide);
    g.backward().unwrap();
    let mut g = Graph::inference(device);
    let pooled = model.pooled(&mut g, &pixels, batch).unwrap();
    let logits = model.logits(&mut g, &pooled).unwrap();
    let mut worst = 0.0f64;
    let mut agree = |what: &str, got: &[f64], least: f64| {
        let off = error(got, &want(what), least);
        assert!(off <= bar, "{who}: {what} is off by {off:e}");
        worst = worst.max(off);
    };
    let logits = numbers(device, logits.buffer(), is_wide);
    agree("logits", &logits, 0.0);
    agree("losses", &losses, 0.0);
    // A gradient that is tiny compared with the others is the rest of large sums: keys of a single token have none.
    let name = |param: &Param| format!("grad.{}", param.name());
    let all = model.each_param().map(|param| largest(&want(&name(param))));
    let least = 1e-3 * all.fold(0.0, f64::max);
    for param in model.each_param() {
        let got = numbers(device, gradients.get(param).unwrap(), is_wide);
        agree(&name(param), &got, least);
    }
    println!("{who}: off by at most {worst:.1e}");
}

#[test]
fn image_models_compute_what_pytorch_does() {
    for folder in folders() {
        check(&folder, &reference(), true, 1e-9);
        check(&folder, &cpu(), false, 1e-4);
    }
}

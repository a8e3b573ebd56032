//! Whole models against an independent PyTorch implementation: logits, losses, gradients, greedy text and
//! a short training run.

mod common;

use common::{cpu, gradients, l2_error, max_abs_difference, mean, reference, train_step};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenformer_core::config::{
    Init, LogitScale, ModelConfig, ModelSpec, NormKind, NormSpan, Positions, Slots, Theta,
};
use tokenformer_core::generate::{Sampler, Sampling, Session};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::published;
use tokenformer_core::{Device, Graph, Model};
use tokenformer_store::SafetensorsFile;

struct Golden {
    name: String,
    config: ModelConfig,
    about: serde_json::Value,
    model: SafetensorsFile,
    expected: SafetensorsFile,
    trained: SafetensorsFile,
}

fn load(root: &Path, name: &str) -> Golden {
    let text = std::fs::read_to_string(root.join("lm.json")).unwrap();
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let about = list.into_iter().find(|m| m["name"] == name).unwrap();
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
        norm: NormSpan::Joint,
        positions: Positions::Rotary {
            fraction: number("rotary_pct"),
            base: number("rope_base"),
        },
        final_norm: NormKind::Affine,
        logit_scale: LogitScale::One,
        init: Init::Released,
        ..ModelSpec::default()
    };
    let config = spec.build().unwrap();
    assert_eq!(config.norm_eps, number("eps"));
    let open = |file: &str| SafetensorsFile::open(&root.join(name).join(file)).unwrap();
    Golden {
        name: name.into(),
        config,
        about,
        model: open("model.safetensors"),
        expected: open("expected.safetensors"),
        trained: open("after_8_steps.safetensors"),
    }
}

impl Golden {
    fn published(&self, ours: &str) -> String {
        let names = published::names(&self.config);
        names
            .into_iter()
            .find(|(here, _)| here == ours)
            .unwrap_or_else(|| panic!("{ours} has no name"))
            .1
    }

    fn build(&self, device: &Arc<dyn Device>) -> Model {
        Model::build(device, &self.config, &mut |path, shape| {
            let name = self.published(&path.to_string());
            self.model.expect_shape(&name, shape).unwrap();
            Ok(self.model.read_f32(&name).unwrap())
        })
        .unwrap()
    }

    /// Inputs and targets, and how many sequences they are.
    fn batch(&self) -> ([Vec<u32>; 2], usize) {
        let batch = self.expected.shape("tokens").unwrap()[0];
        let all = self.expected.read_u32("tokens").unwrap();
        let rows = || all.chunks(all.len() / batch);
        let inputs = rows().flat_map(|r| r[..r.len() - 1].to_vec()).collect();
        let targets = rows().flat_map(|r| r[1..].to_vec()).collect();
        ([inputs, targets], batch)
    }

    fn numbers(&self, path: &[&str]) -> Vec<f64> {
        let found = path.iter().fold(&self.about, |at, key| &at[*key]);
        found
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_f64().unwrap())
            .collect()
    }
}

fn host(model: &Model, buffer: &tokenformer_core::device::Buffer) -> Vec<f32> {
    let mut host = vec![0.0; buffer.len()];
    model.device().read(buffer, &mut host).unwrap();
    host
}

/// `weight_bar` is for the trained weights. A number whose first gradient is near AdamW's epsilon (1e-8)
/// moves by rounding alone: with more of them, a few end up far from where PyTorch's rounding takes them,
/// on the f64 device too.
fn check(golden: &Golden, device: &Arc<dyn Device>, weight_bar: f64) {
    let who = format!("{} on {}", golden.name, device.describe());
    let mut model = golden.build(device);
    assert_eq!(published::names(&golden.config).len(), model.params().len());
    let ([inputs, targets], batch) = golden.batch();

    let logits = model.infer(&inputs, batch).unwrap();
    let logits_error = max_abs_difference(&logits, &golden.expected.read_f32("logits").unwrap());
    assert!(
        logits_error <= 1e-4,
        "{who}: logits are off by {logits_error:e}"
    );

    let mut g = Graph::inference(device);
    let nll = model.loss(&mut g, &inputs, &targets, batch, 1.0).unwrap();
    let nll_error = max_abs_difference(&nll, &golden.expected.read_f32("nll").unwrap());
    assert!(
        nll_error <= 1e-4,
        "{who}: losses of tokens are off by {nll_error:e}"
    );
    let loss_error = (mean(&nll) - golden.about["loss"].as_f64().unwrap()).abs();
    assert!(
        loss_error <= 1e-5,
        "{who}: the loss is off by {loss_error:e}"
    );

    let (_, grads) = gradients(&model, &inputs, &targets, batch);
    let mut gradient_error = 0.0f64;
    for param in model.params() {
        let name = golden.published(param.name());
        let want = golden.expected.read_f32(&format!("grad.{name}")).unwrap();
        let error = l2_error(&host(&model, grads.get(param).unwrap()), &want);
        assert!(
            error <= 1e-4,
            "{who}: the gradient of {name} is off by {error:e}"
        );
        gradient_error = gradient_error.max(error);
    }

    let greedy = golden.expected.read_u32("greedy").unwrap();
    let mut session = Session::new(&model, greedy.len()).unwrap();
    let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
    session.feed(&greedy[..8]).unwrap();
    while session.room() > 0 {
        let next = sampler.choose(session.logits(), session.tokens());
        session.feed(&[next]).unwrap();
    }
    assert_eq!(session.tokens(), greedy, "{who}: greedy text");

    let mut optimizer = AdamW::new(AdamWConfig::default(), &model).unwrap();
    let losses = golden.numbers(&["train", "losses"]);
    let norms = golden.numbers(&["train", "grad_norms_before_clip"]);
    let (mut train_loss_error, mut norm_error) = (0.0f64, 0.0f64);
    for (step, lr) in golden.numbers(&["train", "lrs"]).into_iter().enumerate() {
        let (loss, applied) =
            train_step(&mut model, &mut optimizer, [&inputs, &targets], batch, lr);
        assert!(applied.updated);
        let (off, norm_off) = (
            (loss - losses[step]).abs(),
            (applied.grad_norm / norms[step] - 1.0).abs(),
        );
        assert!(
            off <= 2e-4,
            "{who}: the loss of step {step} is off by {off:e}"
        );
        assert!(
            norm_off <= 1e-3,
            "{who}: the gradient norm of step {step} is off by {norm_off:e}"
        );
        (train_loss_error, norm_error) = (train_loss_error.max(off), norm_error.max(norm_off));
    }
    let (mut weight_error, mut weight_l2) = (0.0f64, 0.0f64);
    for param in model.params() {
        let name = golden.published(param.name());
        let want = golden.trained.read_f32(&name).unwrap();
        let got = host(&model, param.value());
        let (error, l2) = (max_abs_difference(&got, &want), l2_error(&got, &want));
        assert!(
            error <= weight_bar && l2 <= 2e-4,
            "{who}: {name} after training: {error:e}, {l2:e} (L2)"
        );
        (weight_error, weight_l2) = (weight_error.max(error), weight_l2.max(l2));
    }
    println!(
        "{who}: logits {logits_error:.1e}, nll {nll_error:.1e}, gradients {gradient_error:.1e} (relative), \
         training losses {train_loss_error:.1e}, gradient norms {norm_error:.1e} (relative), trained weights \
         {weight_error:.1e}, {weight_l2:.1e} (relative L2)"
    );
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
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

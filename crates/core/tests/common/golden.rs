//! Whole models against golden vectors of an independent implementation: logits, losses, gradients, greedy text and a
//! short training run.

use super::{gradients, host, is_without_effect, l2_error, max_abs_difference, mean, train_step};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenformer_core::config::ModelConfig;
use tokenformer_core::generate::{Sampler, Sampling, Session};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Device, Graph, Model};
use tokenformer_store::SafetensorsFile;

/// A model and what it computes.
pub struct Golden {
    name: String,
    config: ModelConfig,
    /// Losses, gradient norms and learning rates.
    about: serde_json::Value,
    /// From the name of an array to its name in the files, where they differ.
    names: BTreeMap<String, String>,
    model: SafetensorsFile,
    expected: SafetensorsFile,
    trained: SafetensorsFile,
}

/// The golden vectors of this repository.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// What `list`, a file of `root`, says of the model `name`.
pub fn about(root: &Path, list: &str, name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(root.join(list)).unwrap();
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    list.into_iter().find(|m| m["name"] == name).unwrap()
}

impl Golden {
    pub fn open(
        root: &Path,
        about: serde_json::Value,
        config: ModelConfig,
        names: BTreeMap<String, String>,
    ) -> Self {
        let name = about["name"].as_str().unwrap().to_string();
        let open = |file: &str| SafetensorsFile::open(&root.join(&name).join(file)).unwrap();
        Self {
            model: open("model.safetensors"),
            expected: open("expected.safetensors"),
            trained: open("after_8_steps.safetensors"),
            name,
            config,
            about,
            names,
        }
    }

    fn stored<'a>(&'a self, ours: &'a str) -> &'a str {
        self.names.get(ours).map_or(ours, String::as_str)
    }

    fn build(&self, device: &Arc<dyn Device>) -> Model {
        let model = Model::build(device, &self.config, &mut |path, shape| {
            let name = path.to_string();
            let name = self.stored(&name);
            self.model.expect_shape(name, shape).unwrap();
            Ok(self.model.read_f32(name).unwrap())
        });
        let model = model.unwrap();
        assert_eq!(self.model.names().count(), model.params().len());
        model
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
        let numbers = found.as_array().unwrap().iter();
        numbers.map(|n| n.as_f64().unwrap()).collect()
    }
}

/// Largest errors.
#[derive(Default)]
struct Errors {
    logits: f64,
    nll: f64,
    /// Relative L2.
    gradient: f64,
    train_loss: f64,
    /// Relative.
    norm: f64,
    weight: f64,
    /// Relative L2.
    weight_l2: f64,
}

/// `weight_bar` is for the trained weights. A number whose first gradient is near AdamW's epsilon (1e-8)
/// moves by rounding alone: with more of them, a few end up far from where PyTorch's rounding takes them,
/// on the f64 device too.
pub fn check(golden: &Golden, device: &Arc<dyn Device>, weight_bar: f64) {
    let who = format!("{} on {}", golden.name, device.describe());
    let mut model = golden.build(device);
    let mut errors = Errors::default();
    check_forward(golden, &model, &who, &mut errors);
    check_gradients(golden, &model, &who, &mut errors);
    if golden.config.causal {
        check_greedy(golden, &model, &who);
    }
    check_training(golden, &mut model, &who, weight_bar, &mut errors);
    println!(
        "{who}: logits {:.1e}, nll {:.1e}, gradients {:.1e} (relative), training losses {:.1e}, \
         gradient norms {:.1e} (relative), trained weights {:.1e}, {:.1e} (relative L2)",
        errors.logits,
        errors.nll,
        errors.gradient,
        errors.train_loss,
        errors.norm,
        errors.weight,
        errors.weight_l2
    );
}

fn check_forward(golden: &Golden, model: &Model, who: &str, errors: &mut Errors) {
    let ([inputs, targets], batch) = golden.batch();
    let logits = model.infer(&inputs, batch).unwrap();
    errors.logits = max_abs_difference(&logits, &golden.expected.read_f32("logits").unwrap());
    assert!(
        errors.logits <= 1e-4,
        "{who}: logits are off by {:e}",
        errors.logits
    );

    let mut g = Graph::inference(model.device());
    let nll = model.loss(&mut g, &inputs, &targets, batch, 1.0).unwrap();
    errors.nll = max_abs_difference(&nll, &golden.expected.read_f32("nll").unwrap());
    assert!(
        errors.nll <= 1e-4,
        "{who}: losses of tokens are off by {:e}",
        errors.nll
    );
    let loss_error = (mean(&nll) - golden.about["loss"].as_f64().unwrap()).abs();
    assert!(
        loss_error <= 1e-5,
        "{who}: the loss is off by {loss_error:e}"
    );
}

fn check_gradients(golden: &Golden, model: &Model, who: &str, errors: &mut Errors) {
    let ([inputs, targets], batch) = golden.batch();
    let (_, grads) = gradients(model, &inputs, &targets, batch);
    for param in model.params() {
        let name = golden.stored(param.name());
        let want = golden.expected.read_f32(&format!("grad.{name}")).unwrap();
        let got = host(model.device(), grads.get(param).unwrap());
        if is_without_effect(&golden.config, param) {
            let largest = got.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            assert!(
                largest <= 1e-6,
                "{who}: {name} has the gradient {largest:e}"
            );
            continue;
        }
        let error = l2_error(&got, &want);
        assert!(
            error <= 1e-4,
            "{who}: the gradient of {name} is off by {error:e}"
        );
        errors.gradient = errors.gradient.max(error);
    }
}

fn check_greedy(golden: &Golden, model: &Model, who: &str) {
    const PROMPT: usize = 8;
    let greedy = golden.expected.read_u32("greedy").unwrap();
    let mut session = Session::new(model, greedy.len()).unwrap();
    let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
    session.feed(&greedy[..PROMPT]).unwrap();
    while session.room() > 0 {
        let next = sampler.choose(session.logits(), session.tokens());
        session.feed(&[next]).unwrap();
    }
    assert_eq!(session.tokens(), greedy, "{who}: greedy text");
}

fn check_training(
    golden: &Golden,
    model: &mut Model,
    who: &str,
    weight_bar: f64,
    errors: &mut Errors,
) {
    let ([inputs, targets], batch) = golden.batch();
    let mut optimizer = AdamW::new(AdamWConfig::default(), model).unwrap();
    let losses = golden.numbers(&["train", "losses"]);
    let norms = golden.numbers(&["train", "grad_norms_before_clip"]);
    for (step, lr) in golden.numbers(&["train", "lrs"]).into_iter().enumerate() {
        let (loss, applied) = train_step(model, &mut optimizer, [&inputs, &targets], batch, lr);
        assert!(applied.updated);
        let off = (loss - losses[step]).abs();
        let norm_off = (applied.grad_norm / norms[step] - 1.0).abs();
        assert!(
            off <= 2e-4,
            "{who}: the loss of step {step} is off by {off:e}"
        );
        assert!(
            norm_off <= 1e-3,
            "{who}: the gradient norm of step {step} is off by {norm_off:e}"
        );
        errors.train_loss = errors.train_loss.max(off);
        errors.norm = errors.norm.max(norm_off);
    }
    // The rounding of a gradient that is zero decides where AdamW takes an array that has no effect.
    let with_effect = |p: &&tokenformer_core::param::Param| !is_without_effect(&golden.config, p);
    for param in model.each_param().filter(with_effect) {
        let name = golden.stored(param.name());
        let want = golden.trained.read_f32(name).unwrap();
        let got = host(model.device(), param.value());
        let (error, l2) = (max_abs_difference(&got, &want), l2_error(&got, &want));
        assert!(
            error <= weight_bar && l2 <= 2e-4,
            "{who}: {name} after training: {error:e}, {l2:e} (L2)"
        );
        errors.weight = errors.weight.max(error);
        errors.weight_l2 = errors.weight_l2.max(l2);
    }
}

//! Training steps: forward, backward, AdamW.

use super::tokens;
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Device, Gradients, Graph, Model, ModelConfig, Recompute};
use tokenformer_train::Result;

/// Seconds of each step.
pub fn run(
    config: &ModelConfig,
    [batch, context]: [usize; 2],
    recompute: Recompute,
    steps: usize,
    device: &Arc<dyn Device>,
) -> Result<Vec<f64>> {
    let mut model = Model::fresh(device, config, 0)?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model)?;
    let mut gradients = Gradients::zeros(device, model.params())?;
    let inputs = tokens(batch * context, config.vocab);
    let targets = tokens(batch * context + 1, config.vocab)[1..].to_vec();
    let mut step = || -> Result<f64> {
        let started = Instant::now();
        gradients.reset();
        let mut g = Graph::training(device, &mut gradients).recomputing(recompute);
        model.loss(&mut g, &inputs, &targets, batch, 1.0 / inputs.len() as f32)?;
        g.backward()?;
        optimizer.step(&mut model, &gradients, 1e-4)?;
        Ok(started.elapsed().as_secs_f64())
    };
    step()?;
    (0..steps).map(|_| step()).collect()
}

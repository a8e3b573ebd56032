//! Taking in a prompt in one pass.

use super::tokens;
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::{Device, Graph, Model, ModelConfig, WeightFormat};
use tokenformer_train::Result;

/// Seconds of each pass over `batch` prompts of `context` tokens.
pub fn run(
    config: &ModelConfig,
    batch: usize,
    context: usize,
    weights: WeightFormat,
    steps: usize,
    device: &Arc<dyn Device>,
) -> Result<Vec<f64>> {
    let model = Model::fresh_for_inference(device, config, weights, 0)?;
    let inputs = tokens(batch * context, config.vocab);
    let mut cache = model.cache(batch, context)?;
    let last: Vec<u32> = (1..=batch).map(|b| (b * context - 1) as u32).collect();
    let mut step = || -> Result<f64> {
        let started = Instant::now();
        cache.truncate(0);
        let mut g = Graph::inference(device);
        let hidden = model.hidden(&mut g, &inputs, batch, Some(&mut cache))?;
        let hidden = g.select_rows(&hidden, &last)?;
        model.logits(&mut g, &hidden)?;
        Ok(started.elapsed().as_secs_f64())
    };
    step()?;
    (0..steps).map(|_| step()).collect()
}

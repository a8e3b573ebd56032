//! Writing one token after the other.

use super::tokens;
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::{Device, Graph, Model, ModelConfig, WeightFormat};
use tokenformer_train::Result;

/// Positions up to which decoding is timed.
pub const CONTEXT: usize = 128;
/// Prompt tokens before decoding.
const PROMPT: usize = 16;

/// Mean seconds per step of each pass from the prompt to `context` positions. A step is a token of each of
/// `batch` sequences, from the tokens to the logits on the host.
pub fn run(
    config: &ModelConfig,
    batch: usize,
    context: usize,
    weights: WeightFormat,
    steps: usize,
    device: &Arc<dyn Device>,
) -> Result<Vec<f64>> {
    let model = Model::fresh_for_inference(device, config, weights, 0)?;
    let mut cache = model.cache(batch, context)?;
    let mut logits = vec![0.0; batch * config.vocab];
    let inputs = tokens(batch * context, config.vocab);
    let (prompt, rest) = inputs.split_at(batch * PROMPT);
    let mut pass = || -> Result<f64> {
        cache.truncate(0);
        model.hidden(
            &mut Graph::inference(device),
            prompt,
            batch,
            Some(&mut cache),
        )?;
        let started = Instant::now();
        for tokens in rest.chunks_exact(batch) {
            let mut g = Graph::inference(device);
            let hidden = model.hidden(&mut g, tokens, batch, Some(&mut cache))?;
            let found = model.logits(&mut g, &hidden)?;
            found.read(&**device, &mut logits)?;
        }
        Ok(started.elapsed().as_secs_f64() / (context - PROMPT) as f64)
    };
    pass()?;
    (0..steps).map(|_| pass()).collect()
}

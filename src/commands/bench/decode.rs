//! Writing one token after the other.

use super::{Setup, tokens};
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::{Device, Graph, Model};
use tokenformer_train::Result;

/// Positions up to which decoding is timed.
pub const CONTEXT: usize = 128;
/// Prompt tokens before decoding.
const PROMPT: usize = 16;

/// Mean seconds per step of each pass from the prompt to the last position. A step is a token of each
/// sequence, from the tokens to the logits on the host.
pub fn run(setup: &Setup<'_>, device: &Arc<dyn Device>) -> Result<Vec<f64>> {
    let (config, batch, context) = (&setup.config, setup.batch, setup.context);
    let model = Model::fresh_for_inference(device, config, setup.weights()?, 0)?;
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
    (0..setup.args.steps).map(|_| pass()).collect()
}

//! Processing a prompt in one pass.

use super::{Setup, tokens};
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::{Device, Graph, Model};
use tokenformer_train::Result;

/// Seconds of each pass over the prompts.
pub fn run(setup: &Setup<'_>, device: &Arc<dyn Device>) -> Result<Vec<f64>> {
    let (config, batch, context) = (&setup.config, setup.batch, setup.context);
    let model = Model::fresh_for_inference(device, config, setup.weights()?, 0)?;
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
    (0..setup.args.steps).map(|_| step()).collect()
}

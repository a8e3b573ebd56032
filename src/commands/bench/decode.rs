//! Writing one token after the other.

use super::tokens;
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::generate::Session;
use tokenformer_core::{Device, Model, ModelConfig};
use tokenformer_train::Result;

/// Positions up to which decoding is timed.
pub const CONTEXT: usize = 128;
/// Prompt tokens before decoding.
const PROMPT: usize = 16;

/// Mean seconds per token of each pass from the prompt to `context` positions.
pub fn run(
    config: &ModelConfig,
    context: usize,
    steps: usize,
    device: &Arc<dyn Device>,
) -> Result<Vec<f64>> {
    let model = Model::fresh(device, config, 0)?;
    let inputs = tokens(context, config.vocab);
    let pass = || -> Result<f64> {
        let mut session = Session::new(&model, context)?;
        session.feed(&inputs[..PROMPT])?;
        let started = Instant::now();
        for token in &inputs[PROMPT..] {
            session.feed(&[*token])?;
        }
        Ok(started.elapsed().as_secs_f64() / (context - PROMPT) as f64)
    };
    pass()?;
    (0..steps).map(|_| pass()).collect()
}

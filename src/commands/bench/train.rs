//! Training steps: forward, backward, AdamW.

use super::{pixels, tokens};
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::config::Input;
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Device, Gradients, Graph, LossTargets, Model, ModelConfig, Recompute};
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
    let work = Work::new(config, batch, context);
    let mut step = || -> Result<f64> {
        let started = Instant::now();
        gradients.reset();
        let mut g = Graph::training(device, &mut gradients).recomputing(recompute);
        work.loss(&model, &mut g)?;
        g.backward()?;
        optimizer.step(&mut model, &gradients, 1e-4)?;
        Ok(started.elapsed().as_secs_f64())
    };
    step()?;
    (0..steps).map(|_| step()).collect()
}

/// What a step trains on.
enum Work {
    /// Sequences, and the tokens that follow each of theirs.
    Texts {
        inputs: Vec<u32>,
        targets: Vec<u32>,
        batch: usize,
    },
    /// Pictures, and their classes.
    Pictures { pixels: Vec<f32>, classes: Vec<u32> },
}

impl Work {
    fn new(config: &ModelConfig, batch: usize, context: usize) -> Self {
        match &config.input {
            Input::Tokens => Self::Texts {
                inputs: tokens(batch * context, config.vocab),
                targets: tokens(batch * context + 1, config.vocab)[1..].to_vec(),
                batch,
            },
            Input::Image(image) => Self::Pictures {
                pixels: pixels(batch * image.pixels()),
                classes: tokens(batch, config.vocab),
            },
        }
    }

    /// Adds the mean loss to the objective.
    fn loss<'m>(&self, model: &'m Model, g: &mut Graph<'m>) -> Result<()> {
        match self {
            Self::Texts {
                inputs,
                targets,
                batch,
            } => {
                model.loss(g, inputs, targets, *batch, 1.0 / inputs.len() as f32)?;
            }
            Self::Pictures { pixels, classes } => {
                let pooled = model.pooled(g, pixels, classes.len())?;
                let weight = 1.0 / classes.len() as f32;
                model.losses(g, &pooled, LossTargets::Classes(classes), weight)?;
            }
        }
        Ok(())
    }
}

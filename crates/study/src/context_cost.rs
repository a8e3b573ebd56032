//! What training on one token costs at different lengths of the context.
//!
//! This is the paper's second argument for parameter tokens: a grown TokenFormer keeps its width, so attention between tokens
//! costs the same as before, while in a plain Transformer of equal size it costs more in proportion to its width.

use crate::analysis::{GROWN, nearest_in_size};
use crate::plan::Plan;
use serde::Serialize;
use std::sync::Arc;
use tokenformer_core::{Device, Gradients, Graph, Model, ModelConfig};
use tokenformer_train::Result;

/// Lengths of the context, as multiples of the profile's.
const LENGTHS: [f64; 6] = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0];

/// What a model costs to train at several lengths of the context.
#[derive(Clone, Debug, Serialize)]
pub struct ContextCost {
    /// Name of the arm and its size.
    pub model: String,
    /// Whether it is the grown TokenFormer.
    pub grown: bool,
    /// Number of parameters.
    pub params: u64,
    /// The lengths, ascending.
    pub points: Vec<Point>,
}

/// Floating-point operations of training on one token at a length of the context.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Tokens of the context.
    pub context: usize,
    /// Attention between tokens, by the formula.
    pub token_token: f64,
    /// Everything else, by the formula: tokens with parameters.
    pub token_parameter: f64,
    /// All of them, counted one by one in a pass forward and back.
    pub counted: f64,
}

/// Counts the costs of the last size of the grown TokenFormer and of the plain Transformer from scratch that has nearly as
/// many parameters, as far as the plan has them.
///
/// # Errors
/// If the device fails.
pub fn context_costs(plan: &Plan, device: &Arc<dyn Device>) -> Result<Vec<ContextCost>> {
    let ends = || plan.endpoints.iter();
    let config = |node: usize| &plan.graph.node(node).config;
    let Some(grown) = ends().rfind(|end| end.arm == GROWN) else {
        return Ok(Vec::new());
    };
    let params = config(grown.node).params();
    let sizes = ends().map(|end| (end.arm, config(end.node).params()));
    let plain = nearest_in_size(sizes, params).and_then(|arm| ends().find(|end| end.arm == arm));
    let mut costs = Vec::new();
    for end in [Some(grown), plain].into_iter().flatten() {
        let config = config(end.node);
        let is_grown = end.arm == GROWN;
        let points: Result<Vec<Point>> = (LENGTHS.iter())
            .map(|share| (share * config.context as f64) as usize)
            .filter(|&context| context > 0)
            .map(|context| point(config, context, device))
            .collect();
        costs.push(ContextCost {
            model: match is_grown {
                true => format!("{} {}", end.arm, end.size),
                false => end.arm.to_string(),
            },
            grown: is_grown,
            params: config.params(),
            points: points?,
        });
    }
    Ok(costs)
}

fn point(config: &ModelConfig, context: usize, device: &Arc<dyn Device>) -> Result<Point> {
    let config = ModelConfig {
        context,
        ..config.clone()
    };
    let token_parameter = config.train_flops_per_token(0);
    let token_token = config.train_flops_per_token(context) - token_parameter;
    // What is counted does not depend on the numbers, so none are computed.
    let device = &device.dry_run().map_err(tokenformer_core::Error::from)?;
    let mut zeros = |_: &_, shape: &[usize]| Ok(vec![0.0; shape.iter().product()]);
    let model = Model::build(device, &config, &mut zeros)?;
    let text = vec![0; context];
    let mut gradients = Gradients::zeros(device, model.params())?;
    let mut graph = Graph::training(device, &mut gradients);
    model.loss(&mut graph, &text, &text, 1, 1.0)?;
    graph.backward()?;
    Ok(Point {
        context,
        token_token,
        token_parameter,
        counted: gradients.flops() as f64 / context as f64,
    })
}

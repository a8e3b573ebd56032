//! Converts a node of the study to a recipe of the training library.

use crate::graph::{Common, Node, Rate};
use std::path::Path;
use tokenformer_train::recipe::{Resolved, resolve_table};
use tokenformer_train::schedule::{DecayShape, Schedule, Shape};
use tokenformer_train::{Error, Recipe, Result};

/// Updates between two checkpoints, which is the most that a kill can lose.
const CHECKPOINT_EVERY: u64 = 200;

/// The recipe of a node, on the dataset in `data`.
///
/// # Errors
/// If a number of the study cannot be in a recipe.
pub fn of(node: &Node, common: &Common, data: &Path) -> Result<Resolved> {
    let mut recipe = Recipe {
        seed: node.seed,
        model: node.root.model.clone(),
        grow: node.growths.clone(),
        schedule: schedule(node, common),
        lr_base: node.root.base,
        ..Recipe::default()
    };
    recipe.data.dir = data.display().to_string();
    recipe.train.steps = node.to_step;
    recipe.train.batch = common.batch;
    (recipe.eval.every, recipe.eval.tokens) = common.eval;
    recipe.sample.tokens = 0;
    recipe.checkpoint.every = CHECKPOINT_EVERY;
    recipe.checkpoint.keep = 1;
    // Spikes are measured on the losses of single updates.
    recipe.log.every = 1;
    let table = toml::Table::try_from(&recipe).map_err(|e| Error::Recipe {
        place: node.label.clone(),
        problem: "not a recipe".into(),
        expected: "numbers that TOML has".into(),
        got: e.to_string(),
        help: "the profile's numbers are too large".into(),
    })?;
    resolve_table(table, &node.label, &[])
}

/// The schedule whose last part is the node's.
fn schedule(node: &Node, common: &Common) -> Schedule {
    let flat = |lr| Schedule {
        shape: Shape::Constant,
        lr,
        warmup_steps: common.warmup_steps,
        min_ratio: 0.0,
        ..Schedule::default()
    };
    let decaying = |lr, steps: u64| Schedule {
        shape: Shape::Wsd,
        decay_steps: steps,
        decay: DecayShape::Sqrt,
        ..flat(lr)
    };
    match node.rate {
        Rate::Flat(lr) => flat(lr),
        Rate::Decay(lr) => decaying(lr, node.steps()),
        Rate::Whole(lr, steps) => decaying(lr, steps),
        Rate::Own => flat(1e-3),
    }
}

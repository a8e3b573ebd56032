//! Flags of `train`.

use super::{ComputeArgs, values};
use clap::Args;
use std::path::PathBuf;
use tokenformer_train::schedule::DecayShape;

/// A recipe file and what is set over it.
#[derive(Debug, Clone, Args)]
pub struct RecipeArgs {
    /// Recipe file (TOML); recipes/ has commented examples.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a value of the recipe, for example --set train.steps=500. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  tokenformer train --config recipes/grow.toml --set data.dir=data/mine
  tokenformer train --config recipes/grow.toml --set train.steps=5000 --out runs/longer --precision auto
  tokenformer train --config runs/grow/config.toml --set data.dir=data/other --set train.steps=4000 \
    --resume runs/grow --new-data --out runs/grow-other
  tokenformer train --config recipes/grow.toml --set checkpoint.keep=15 --out runs/trunk
  tokenformer train --branch-from runs/trunk/checkpoints/step-00001000 --decay 200 --out runs/trunk-at-1000

train.steps counts from the first step of the model, also where a run goes on with another's. A run keeps its best checkpoint
and the checkpoint.keep newest, so one that is to have branches needs a larger number.
mpirun -n 4, srun -n 4 and the like before a command train on four processes with the bytes of one; see `launch`.
A folder in the recipe's data.dir is looked for from here, then beside the recipe. Ctrl-C saves the run and
ends it, a second one ends it at once; the same command goes on either way.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TrainArgs {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Run directory [default: runs/NAME-OF-THE-RECIPE].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where to start: `auto` continues the run in --out if there is one, `never` refuses to, a path
    /// starts from that checkpoint.
    #[arg(long, value_name = "auto|never|DIR", default_value = "auto")]
    pub resume: String,
    /// With --resume DIR: the recipe's data are other text than the checkpoint's, with the same tokenizer (not pictures). It is read
    /// from its beginning; weights, moments and steps continue, up to a larger train.steps. A growth at that step gives the model room for it.
    #[arg(long)]
    pub new_data: bool,
    /// Checkpoint or run to take a decay branch from, into --out: the same run, whose learning rate falls over the next
    /// --decay steps. Without --config, by the recipe of that run.
    #[arg(long, value_name = "DIR", requires_all = ["decay", "out"], conflicts_with = "resume")]
    pub branch_from: Option<PathBuf>,
    /// Steps of the branch.
    #[arg(long, value_name = "STEPS", requires = "branch_from", conflicts_with = "resume", value_parser = values::whole)]
    pub decay: Option<u64>,
    /// Shape of the branch's decay [default: as in the recipe's schedule].
    #[arg(long, value_name = "SHAPE", requires = "branch_from", conflicts_with = "resume", value_parser = values::decay_shape())]
    pub decay_shape: Option<DecayShape>,
    /// Lowest learning rate of the branch over the highest [default: as in the recipe's schedule].
    #[arg(
        long,
        value_name = "R",
        requires = "branch_from",
        conflicts_with = "resume"
    )]
    pub min_ratio: Option<f64>,
    /// Whether the processes that a launcher started (`mpirun -n 4 tokenformer train ...`) train together: `auto`, or `off` to
    /// train alone.
    #[arg(
        long,
        value_name = "auto|off",
        value_parser = values::ranks(),
        default_value = "auto",
        action = clap::ArgAction::Set
    )]
    pub ranks: bool,
    /// Precision of products, instead of the recipe's `train.precision`. `auto` keeps the precision of a resumed run, and takes
    /// the faster one for a new run.
    #[arg(long, value_name = "P", value_parser = values::training_precision())]
    pub precision: Option<values::TrainingPrecision>,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

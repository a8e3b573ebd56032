//! Flags of `plan`.

use super::train::RecipeArgs;
use super::{ComputeArgs, values};
use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(subcommand)]
    pub command: PlanCommand,
}

#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Say when and how much to grow under a budget, or that training from scratch is better.
    Growth(PlanGrowthArgs),
    /// Say which sites gain most from new parameter tokens, by the gradients of a trained model.
    Sites(PlanSitesArgs),
    /// Say how long an update takes on many GPUs or CPUs, and what limits it.
    Cluster(PlanClusterArgs),
}

const CLUSTER_EXAMPLES: &str = "\
Examples:
  tokenformer plan cluster --preset 150m --node h100 --link 400g
  tokenformer plan cluster --preset 1.5b --node a100 --link 10g --ranks 8,64,512 --reduce ordered --moments owner
  tokenformer plan cluster --preset tiny --node cpu --flop-rate 5e10 --ranks 1,2,4 --windows 32

Nothing is run: the numbers follow from rates that the output states. For a CPU, and for better numbers of a GPU, take the
FLOP/s that `bench train` measures.";

#[derive(Debug, Args)]
#[command(after_help = CLUSTER_EXAMPLES)]
pub struct PlanClusterArgs {
    /// Model.
    #[arg(long, value_name = "NAME", default_value = "150m")]
    pub preset: String,
    /// What a rank computes on.
    #[arg(long, value_name = "NODE", value_parser = ["h100", "h200", "a100", "cpu"], default_value = "h100")]
    pub node: String,
    /// Network between nodes.
    #[arg(long, value_name = "LINK", value_parser = ["nvlink", "400g", "10g"], default_value = "400g")]
    pub link: String,
    /// Numbers of ranks.
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        value_parser = values::count,
        default_value = "1,8,64,256,1024,4096,10000"
    )]
    pub ranks: Vec<usize>,
    /// Sequences of an update, on all ranks.
    #[arg(long, value_name = "N", value_parser = values::at_least_one, default_value = "1024")]
    pub windows: u64,
    /// Floating-point operations per second that training sustains on one rank.
    #[arg(long, value_name = "N", value_parser = values::above_zero)]
    pub flop_rate: Option<f64>,
    /// Bytes per second between ranks of a node.
    #[arg(long, value_name = "N", value_parser = values::above_zero)]
    pub inside_rate: Option<f64>,
    /// Memory of a rank in bytes.
    #[arg(long, value_name = "N", value_parser = values::above_zero)]
    pub memory: Option<f64>,
    /// Ranks of a node.
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub per_node: Option<usize>,
    /// How gradients are added up, as in the recipe's ranks.reduce.
    #[arg(long, value_name = "WAY", value_parser = ["ordered", "fast"], default_value = "fast")]
    pub reduce: String,
    /// Where moments are, as in the recipe's ranks.moments.
    #[arg(long, value_name = "WHERE", value_parser = ["every", "owner"], default_value = "every")]
    pub moments: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

const SITES_EXAMPLES: &str = "\
Examples:
  tokenformer plan sites runs/base --factor 4
  tokenformer plan sites runs/base/checkpoints/step-00001000 --factor 2 --batches 32

Every site gets new tokens whose values are 0, and the gradients of the next batches of the run say how far a first
update of them would lower the loss. The table and the [[grow]] below it divide the tokens of an even growth in proportion, with a
fifth of the even share for every site. It is a guess from one update: compare it with the even growth.";

#[derive(Debug, Args)]
#[command(after_help = SITES_EXAMPLES)]
pub struct PlanSitesArgs {
    /// Run, or a checkpoint of one.
    #[arg(value_name = "DIR")]
    pub model: PathBuf,
    /// Parameter tokens after the growth over those before.
    #[arg(long, value_name = "X", value_parser = values::above_one)]
    pub factor: f64,
    /// Micro-batches to read.
    #[arg(long, value_name = "N", value_parser = values::at_least_one, default_value = "8")]
    pub batches: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

const EXAMPLES: &str = "\
Examples:
  tokenformer plan growth runs/small runs/larger --config recipes/grow.toml --hours 8
  tokenformer plan growth runs/growth-laptop --config recipes/grow.toml --flops 1e15 --out planned.toml
  tokenformer plan growth runs/growth-laptop --check

A law of loss over size and text is fitted to the held-out losses of the runs, or to the results of `reproduce growth`, with
published exponents as a start. Runs of at least two sizes, one of them grown, make it trustworthy; intervals are wide
without them. Growth is recommended only if it beats the best training from scratch with a probability above 0.8.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("budget").required(true).args(["flops", "tokens", "hours", "check"]))]
pub struct PlanGrowthArgs {
    /// Folders of runs, or of `reproduce growth`, to learn from.
    #[arg(value_name = "DIR", required = true)]
    pub evidence: Vec<PathBuf>,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Budget in floating-point operations of training.
    #[arg(long, value_name = "N", value_parser = values::above_zero)]
    pub flops: Option<f64>,
    /// Budget in tokens of text.
    #[arg(long, value_name = "N", value_parser = values::above_zero)]
    pub tokens: Option<f64>,
    /// Budget in hours, at the speed of the fastest run among the evidence.
    #[arg(long, value_name = "N", value_parser = values::above_zero)]
    pub hours: Option<f64>,
    /// Floating-point operations per second, for --hours.
    #[arg(long, value_name = "N", requires = "hours", conflicts_with_all = ["flops", "tokens", "check"], value_parser = values::above_zero)]
    pub flop_rate: Option<f64>,
    /// Learnable numbers of the largest model.
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub max_params: Option<u64>,
    /// Recipe to write: that of --config with the recommended sizes, steps and growths.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub out: Option<PathBuf>,
    /// Replace the file of --out.
    #[arg(long)]
    pub force: bool,
    /// Print the law, its intervals and the evidence, too.
    #[arg(long)]
    pub explain: bool,
    /// Predict each training from the others instead, and print how many of the 80 % intervals hold its loss.
    #[arg(long)]
    pub check: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

//! Flags of `reproduce`.

use super::{ComputeArgs, values};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct ReproduceArgs {
    #[command(subcommand)]
    pub command: ReproduceCommand,
}

#[derive(Debug, Subcommand)]
pub enum ReproduceCommand {
    /// Measure whether a grown TokenFormer earns its cost, against plain Transformers grown and from scratch.
    Growth(GrowthArgs),
    /// Compare TokenFormer and plain ViT on pictures, with the paper's ablations and growth.
    Vision(VisionArgs),
}

const EXAMPLES: &str = "\
Examples:
  tokenformer reproduce growth --profile smoke
  tokenformer reproduce growth --profile laptop --corpus texts --out runs/growth --list
  tokenformer reproduce growth --profile laptop --corpus texts --arms base,t-seg,g-scr-2 --seeds 1

A study that was stopped or killed goes on with the same command. What has a result is never run again.
The same command, started again beside it, shares the work: each process takes runs that no other is at.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GrowthArgs {
    /// Sizes and budgets: smoke takes minutes, laptop about two days of one core, gpu wants an accelerator.
    #[arg(long, value_name = "smoke|laptop|gpu", default_value = "smoke")]
    pub profile: String,
    /// Folder of text, or a dataset made by `data prepare` [default for smoke: made-up text].
    #[arg(long, value_name = "DIR")]
    pub corpus: Option<PathBuf>,
    /// Text of another kind, to see what models forget of the first when they learn it [default for smoke: made-up text;
    /// otherwise this part is left out].
    #[arg(long, value_name = "DIR")]
    pub second: Option<PathBuf>,
    /// Folder of the study [default: runs/growth-PROFILE].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Folder with results of runs that were made elsewhere.
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// Seeds of every arm [default: the profile's].
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub seeds: Option<u64>,
    /// Arms to run [default: all].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub arms: Vec<String>,
    /// Print all runs with their cost and time, and whether they are done, and run none.
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

const VISION_EXAMPLES: &str = "\
Examples:
  tokenformer reproduce vision --profile smoke
  tokenformer reproduce vision --profile laptop --data data/fashion-mnist --list

A study that was stopped or killed goes on with the same command. What has a result is never run again.";

#[derive(Debug, Args)]
#[command(after_help = VISION_EXAMPLES)]
pub struct VisionArgs {
    /// Sizes and budgets: smoke takes minutes, laptop hours.
    #[arg(long, value_name = "smoke|laptop", default_value = "smoke")]
    pub profile: String,
    /// Dataset of pictures of one size, with a test split [default: fractals that the study makes].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of the study [default: runs/vision-PROFILE].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seeds of every arm [default: the profile's].
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub seeds: Option<u64>,
    /// Arms to run [default: all].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub arms: Vec<String>,
    /// Updates of a run from scratch [default: the profile's].
    #[arg(long, value_name = "N", value_parser = values::at_least_one)]
    pub steps: Option<u64>,
    /// Print all arms with their cost, and what is done, and run none.
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

//! Flags of `demo`.

use super::{ComputeArgs, values};
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  tokenformer demo
  tokenformer demo --images
  tokenformer demo --data my-texts --minutes 10 --out runs/mine

A demo that was stopped goes on when its folder is given with --out.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Learn to tell pictures apart, fractals that the program makes, instead of writing text.
    #[arg(long, conflicts_with = "data")]
    pub images: bool,
    /// Files or folders to train on instead of the sources of this program's crates.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Time for training in all; longer looks better.
    #[arg(
        long,
        value_name = "M",
        default_value_t = 3.0,
        conflicts_with = "steps"
    )]
    pub minutes: f64,
    /// Training steps in all, instead of a time.
    #[arg(long, value_name = "N", value_parser = values::whole)]
    pub steps: Option<u64>,
    /// Run directory [default: runs/demo or runs/demo-images, or the next free runs/demo-2, ...].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seed of weights, data order and samples.
    // A recipe is TOML, whose numbers are signed.
    #[arg(long, value_name = "N", default_value_t = 1234, value_parser = values::recipe_seed)]
    pub seed: u64,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

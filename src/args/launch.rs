//! Flags of `launch`.

use super::values;
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  tokenformer launch -n 2 -- train --config recipes/grow.toml --set data.dir=data/mine --set train.accumulate=2

The ranks divide the train.accumulate micro-batches of an update between them, and each takes its share of the cores. On
several machines, start them with the mpirun of your MPI, srun, or an MPIJob of Kubernetes: docs/ranks.md has examples.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LaunchArgs {
    /// Ranks to start.
    #[arg(short = 'n', long, value_name = "N", value_parser = values::count)]
    pub ranks: usize,
    /// The command line of each rank, without the program.
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub command: Vec<String>,
}

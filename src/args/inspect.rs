//! Flags of `inspect`, `config`, `doctor` and `completions`.

use super::{ComputeArgs, RecipeArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

const INSPECT_EXAMPLES: &str = "\
Examples:
  tokenformer inspect runs/grow
  tokenformer inspect --plan recipes/grow.toml --set train.batch=4";

#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub struct InspectArgs {
    /// Model, checkpoint, run or dataset directory.
    #[arg(required_unless_present = "plan")]
    pub dir: Option<PathBuf>,
    /// Tell the memory that training by this recipe would take, stage by stage, before it starts.
    #[arg(long, value_name = "RECIPE", conflicts_with = "dir")]
    pub plan: Option<PathBuf>,
    /// Set a value of the recipe, for example --set train.batch=4. May be repeated.
    #[arg(
        long = "set",
        value_name = "KEY=VALUE",
        requires = "plan",
        conflicts_with = "dir"
    )]
    pub sets: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  tokenformer config show --config recipes/grow.toml --set model.preset=small
  tokenformer config show > my-recipe.toml";
const PRESETS_EXAMPLES: &str = "\
Example:
  tokenformer config presets";

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the values of a recipe and where each came from. Keys that few recipes need are left out while they have their
    /// defaults; docs/recipe.md lists all.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(RecipeArgs),
    /// List the presets.
    #[command(after_help = PRESETS_EXAMPLES)]
    Presets,
}

const DOCTOR_EXAMPLES: &str = "\
Example:
  tokenformer doctor --json";

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

const COMPLETIONS_EXAMPLES: &str = "\
Example:
  tokenformer completions bash > ~/.local/share/bash-completion/completions/tokenformer";

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

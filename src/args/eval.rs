//! Flags of `eval`.

use super::{ComputeArgs, Split, values};
use clap::Args;
use std::path::PathBuf;
use tokenformer_core::WeightFormat;

const EXAMPLES: &str = "\
Examples:
  tokenformer eval --model runs/grow --data data/mine
  tokenformer eval --model runs/grow --data data/mine --stride 64 --precision bf16 --json
  tokenformer eval --model models/150m --tasks piqa,lambada_openai --limit 200";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// Model, checkpoint or run directory (a run's best checkpoint is taken).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Dataset folder made by `data prepare`.
    #[arg(long, value_name = "DIR", required_unless_present = "tasks")]
    pub data: Option<PathBuf>,
    /// Zero-shot tasks instead of a dataset: lambada_openai, hellaswag, piqa, arc_easy, arc_challenge,
    /// winogrande, or `all`.
    #[arg(long, value_name = "NAME,...", conflicts_with = "data")]
    pub tasks: Option<String>,
    /// Folder of the task files; `data fetch eval-tasks` makes it.
    #[arg(long, value_name = "DIR", default_value = "data/eval")]
    pub task_data: PathBuf,
    /// Take the first N questions of each task only.
    #[arg(long, value_name = "N", requires = "tasks", value_parser = values::count)]
    pub limit: Option<usize>,
    /// Write each question with its scores, as JSON Lines.
    #[arg(long, value_name = "FILE", requires = "tasks")]
    pub samples: Option<PathBuf>,
    /// Which part of the dataset.
    #[arg(long, value_name = "valid|train", default_value = "valid")]
    pub split: Split,
    /// Tokens of a window [default: the model's context].
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub context: Option<usize>,
    /// Slide windows by N tokens and score only what is new [default: windows side by side].
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub stride: Option<usize>,
    /// Score at most so many tokens; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = values::count)]
    pub tokens: usize,
    /// Windows per forward pass [default: as many as have 2048 tokens]. The loss does not depend on it.
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub batch: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// What weights are kept as; fewer bytes decode faster.
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32", value_parser = values::weight_format())]
    pub precision: WeightFormat,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

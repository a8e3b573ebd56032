//! Flags of `eval`.

use super::{ComputeArgs, Split, WeightsArg, values};
use clap::Args;
use std::path::PathBuf;
use tokenformer_core::WeightFormat;

const EXAMPLES: &str = "\
Examples:
  tokenformer eval --model runs/grow --data data/mine
  tokenformer eval --model runs/grow --data data/mine --stride 64 --precision bf16 --json
  tokenformer eval --model models/150m --tasks piqa,lambada_openai --limit 200
  tokenformer eval --model runs/digits --data data/digits --split test --weights ema --out digits-test --report

Of a model of images: top-1 and top-5, the expected calibration error, precision, recall and F1 of each class, and the
commonest confusions. --out writes summary.json (with the keys of timm's validate.py), predictions.csv, classes.csv and
confusions.csv; with --report also report.html and tokens.csv. The test split is for one measurement at the end: choose recipes and checkpoints by `valid`.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// Model, checkpoint or run directory (of a run, the checkpoint with the best held-out loss of
    /// these weights is taken).
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
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "data",
        default_value = "data/eval"
    )]
    pub task_data: PathBuf,
    // Beside --data, clap does not miss the --tasks that these flags require, because both exclude each other.
    /// Take the first N questions of each task only.
    #[arg(long, value_name = "N", requires = "tasks", conflicts_with = "data", value_parser = values::count_from_one)]
    pub limit: Option<usize>,
    /// Write each question with its scores, as JSON Lines.
    #[arg(long, value_name = "FILE", requires = "tasks", conflicts_with = "data")]
    pub samples: Option<PathBuf>,
    /// Which part of the dataset; `test` exists for pictures.
    #[arg(
        long,
        value_name = "valid|train|test",
        default_value = "valid",
        conflicts_with = "tasks"
    )]
    pub split: Split,
    /// Tokens of a window [default: the model's context].
    #[arg(long, value_name = "N", value_parser = values::count, conflicts_with = "tasks")]
    pub context: Option<usize>,
    /// Slide windows by N tokens and score only what is new [default: windows side by side].
    #[arg(long, value_name = "N", value_parser = values::count, conflicts_with = "tasks")]
    pub stride: Option<usize>,
    /// Score at most this many tokens; 0 for all.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = values::count,
        conflicts_with = "tasks"
    )]
    pub tokens: usize,
    /// Windows, or pictures, per forward pass [default: as many windows as have 2048 tokens, 64 pictures]. Results do not
    /// depend on it.
    #[arg(long, value_name = "N", value_parser = values::count, conflicts_with = "tasks")]
    pub batch: Option<usize>,
    /// Which weights of a checkpoint.
    #[arg(
        long,
        value_name = "WEIGHTS",
        default_value = "trained",
        conflicts_with = "tasks"
    )]
    pub weights: WeightsArg,
    /// Folder to write what was found of pictures into.
    #[arg(long, value_name = "DIR", conflicts_with = "tasks")]
    pub out: Option<PathBuf>,
    /// Also write report.html into --out: pictures with what was said of them, the confusion matrix, calibration, where
    /// attention looked, and what the parameter tokens did (also in tokens.csv).
    #[arg(long, requires = "out", conflicts_with = "tasks")]
    pub report: bool,
    /// Replace what an evaluation wrote to --out before.
    #[arg(long, requires = "out")]
    pub force: bool,
    /// Share of the pictures that may be unreadable; they are listed, and left out of the accuracies [default: 0.01].
    #[arg(long, value_name = "SHARE", conflicts_with = "tasks")]
    pub max_unreadable: Option<f64>,
    /// Size of the pictures that the model is shown, as N or HEIGHTxWIDTH, if it is another than that of its training:
    /// positions are resampled [default: the size of its training].
    #[arg(long, value_name = "N|HxW", value_parser = values::image_size, conflicts_with = "tasks")]
    pub image_size: Option<[usize; 2]>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// What weights are kept as; fewer bytes decode faster.
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32", value_parser = values::weight_format())]
    pub precision: WeightFormat,
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Whether the processes that a launcher started (`mpirun -n 4 tokenformer eval ...`) divide the work: `auto`, or `off` to
    /// work alone.
    #[arg(
        long,
        value_name = "auto|off",
        value_parser = values::ranks(),
        default_value = "auto",
        action = clap::ArgAction::Set
    )]
    pub ranks: bool,
}

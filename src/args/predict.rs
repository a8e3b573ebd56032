//! Flags of `predict`, and those it shares with `eval`.

use super::{ComputeArgs, values};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use tokenformer_core::WeightFormat;
use tokenformer_train::files;

const EXAMPLES: &str = "\
Examples:
  tokenformer predict photo.jpg --model runs/cifar10
  tokenformer predict photos more/*.png --model runs/cifar10 --top 1 --json

A picture is decoded, resized, cropped and normalised as the model's preprocess.json says. `eval` shows pictures as they were
decoded and reduced when their dataset was made, and warns where that is not what preprocess.json says; without such a warning
both give the same probabilities. Files that cannot be read are named and counted, and nothing is said of them.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PredictArgs {
    /// Pictures: JPEG, PNG or WebP files, or folders of them.
    #[arg(value_name = "FILE|FOLDER", required = true)]
    pub paths: Vec<PathBuf>,
    /// Model, checkpoint or run directory (of a run, the checkpoint with the best held-out loss of
    /// these weights is taken).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Classes to name for each picture, the likeliest first.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = values::count)]
    pub top: usize,
    /// Which weights of a checkpoint.
    #[arg(long, value_name = "WEIGHTS", default_value = "trained")]
    pub weights: WeightsArg,
    /// Size of the pictures that the model is shown, as N or HEIGHTxWIDTH, if it is another than that of its training:
    /// positions are resampled [default: the size of its training].
    #[arg(long, value_name = "N|HxW", value_parser = values::image_size)]
    pub image_size: Option<[usize; 2]>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// What weights are kept as.
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32", value_parser = values::weight_format())]
    pub precision: WeightFormat,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Which weights of a checkpoint are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightsArg {
    /// Those that training changes.
    Trained,
    /// Their moving average, of a run with `[ema]`.
    Ema,
}

impl WeightsArg {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trained => "trained",
            Self::Ema => "ema",
        }
    }
}

impl From<WeightsArg> for files::Weights {
    fn from(arg: WeightsArg) -> Self {
        match arg {
            WeightsArg::Trained => Self::Trained,
            WeightsArg::Ema => Self::Ema,
        }
    }
}

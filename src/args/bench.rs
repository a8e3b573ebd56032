//! Flags of `bench`.

use super::{ComputeArgs, values};
use clap::{Args, ValueEnum};
use tokenformer_core::{Precision, WeightFormat};

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BenchWhat {
    /// Training steps: forward, backward, AdamW.
    Train,
    /// Taking in a prompt in one pass.
    Prefill,
    /// Writing one token after the other.
    Decode,
    /// Classes of pictures in one pass.
    Predict,
    /// Each kernel of a training step alone.
    Kernels,
    /// Training steps with the feed-forward parameter tokens once, twice, four times.
    Growth,
    /// What ranks exchange: sums and broadcasts, to be started with mpirun or launch.
    Sums,
}

/// A precision of training, or what weights are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchPrecision {
    F32,
    Bf16,
    /// Not to train.
    Int8,
    /// To train only: the faster of f32 and bf16 on this processor, which is measured.
    Auto,
}

impl BenchPrecision {
    /// The precision of training, if it is one.
    pub fn training(self) -> Option<Precision> {
        match self {
            Self::F32 => Some(Precision::F32),
            Self::Bf16 => Some(Precision::Bf16),
            Self::Int8 => None,
            Self::Auto => Some(tokenformer_cpu::recommended_precision().precision),
        }
    }

    /// What weights are kept as, if it says so.
    pub fn weights(self) -> Option<WeightFormat> {
        match self {
            Self::F32 => Some(WeightFormat::F32),
            Self::Bf16 => Some(WeightFormat::Bf16),
            Self::Int8 => Some(WeightFormat::Int8),
            Self::Auto => None,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  tokenformer bench train --preset small --recompute blocks
  tokenformer bench decode --preset 150m --precision int8
  tokenformer bench predict --preset vit-b16 --batch 8
  mpirun -n 2 tokenformer bench sums";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// What to measure.
    pub what: BenchWhat,
    /// Model; `config presets` lists them.
    #[arg(long, value_name = "NAME", default_value = "tiny")]
    pub preset: String,
    /// What the backward pass recomputes instead of keeping it, to take less memory.
    #[arg(long, value_name = "none|scores|blocks", default_value = "none")]
    pub recompute: tokenformer_core::Recompute,
    /// Timed steps, after one that is not.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = values::count)]
    pub steps: usize,
    /// Sequences or pictures at a time [default: as many as such a model is trained on; 1 to decode or predict].
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub batch: Option<usize>,
    /// Precision of products in training; else what weights are kept as.
    #[arg(long, value_name = "f32|bf16|int8|auto", default_value = "f32")]
    pub precision: BenchPrecision,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

//! Flags of `generate` and `logits`.

use super::{ComputeArgs, values};
use clap::Args;
use std::path::PathBuf;
use tokenformer_core::WeightFormat;

const GENERATE_EXAMPLES: &str = "\
Examples:
  tokenformer generate --model runs/grow --prompt \"Once\"
  tokenformer generate --model runs/grow --prompt - --temperature 0 --tokens 50 --stop \"The end\"

The text goes to standard output, what is said about it to standard error.";

#[derive(Debug, Args)]
#[command(after_help = GENERATE_EXAMPLES)]
pub struct GenerateArgs {
    /// Model, checkpoint or run directory (a run's latest checkpoint is taken).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text to continue; `-` reads it from standard input.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prompt: String,
    /// New tokens, at most.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = values::count)]
    pub tokens: usize,
    /// 0 takes the likeliest token; higher is more varied.
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    pub temperature: f32,
    /// Keep the K likeliest tokens; 0 is off.
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = values::count)]
    pub top_k: usize,
    /// Keep the likeliest tokens that together reach this probability; 1 is off.
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    pub top_p: f32,
    /// Drop tokens less likely than this share of the likeliest; 0 is off.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub min_p: f32,
    /// Make tokens that occurred before less likely; 1 is off.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// Seed of the random numbers.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = values::whole)]
    pub seed: u64,
    /// End when this text appears; it is not printed. May be repeated.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Compute with the first N stages of a grown model alone: 1 is the model before its first growth. It must have norms per
    /// segment, and no later stage may have added blocks or width.
    #[arg(long, value_name = "N")]
    pub stage: Option<usize>,
    /// What weights are kept as; fewer bytes decode faster.
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32", value_parser = values::weight_format())]
    pub precision: WeightFormat,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

const LOGITS_EXAMPLES: &str = "\
Example, with a file tokens.json that holds [[1, 2, 3], [4, 5, 6]]:
  tokenformer logits --model runs/grow --tokens tokens.json --out logits.safetensors";

#[derive(Debug, Args)]
#[command(after_help = LOGITS_EXAMPLES)]
pub struct LogitsArgs {
    /// Model, checkpoint or run directory (a run's latest checkpoint is taken).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Tokens [B, T]: JSON lists of numbers, or a safetensors file with an integer array `tokens`.
    #[arg(long, value_name = "FILE.json|FILE.safetensors")]
    pub tokens: PathBuf,
    /// Safetensors file to write: `logits` [B, T, V] and `nll` [B, T-1], the loss of each next token.
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
    /// What weights are kept as; fewer bytes decode faster.
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32", value_parser = values::weight_format())]
    pub precision: WeightFormat,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

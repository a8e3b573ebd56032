//! Flags of `convert`, `export` and `verify`.

use super::{ComputeArgs, values};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use tokenformer_convert::WeightType;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StoredArg {
    F32,
}

const CONVERT_EXAMPLES: &str = "\
Examples:
  tokenformer convert --from Haiyang-W/TokenFormer-150M --to models/150m
  tokenformer convert --from pytorch_model.bin --config config.yml --tokenizer gpt2 --to models/mine
  tokenformer convert --from timm vit_tiny.safetensors --to models/vit-tiny";

#[derive(Debug, Args)]
#[command(after_help = CONVERT_EXAMPLES)]
pub struct ConvertArgs {
    /// A .bin, .pt or .safetensors file (a training checkpoint too, with its weights under a key or a
    /// prefix), a Hugging Face folder, a DeepSpeed training folder, or the name of a repository on the
    /// Hugging Face Hub, such as Haiyang-W/TokenFormer-150M. The word timm before it asks for a vision
    /// Transformer of timm.
    #[arg(long, value_name = "[timm] FILE|DIR|OWNER/NAME", num_args = 1..=2)]
    pub from: Vec<PathBuf>,
    /// Configuration files with the published keys; a later one wins [default: what lies with the
    /// weights].
    #[arg(long, value_name = "FILE.yml|config.json", num_args = 1..)]
    pub config: Vec<PathBuf>,
    /// Tokenizer of the model: a tokenizer.json, `gpt2` or `bytes` [default: tokenizer.json next to the
    /// weights].
    #[arg(long, value_name = "FILE.json|gpt2|bytes")]
    pub tokenizer: Option<String>,
    /// Model directory to write.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Replace an existing model.
    #[arg(long)]
    pub force: bool,
    /// Type of the stored weights.
    #[arg(long, value_name = "f32", default_value = "f32")]
    pub dtype: StoredArg,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

const EXPORT_EXAMPLES: &str = "\
Examples:
  tokenformer export --model runs/reference_growth --to exported
  tokenformer export --model models/150m --to pytorch_model.bin --dtype bf16
  tokenformer export --model models/vit-tiny --to timm vit_tiny.safetensors

The published layout of TokenFormers has one norm over all parameter tokens of a site, and tau is the root of their number. A
model that has grown with a norm per segment (recipes/grow.toml, the demo) or with a pinned tau is refused, since it computes
something else; one that has not grown, or grew with tau = \"sqrt-n\" (recipes/reference_growth.toml), is written.";

#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub struct ExportArgs {
    /// Model, checkpoint or run directory (a run's latest checkpoint is taken).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// What to write: a file for PyTorch or safetensors, with config.json next to it, or a folder as on the
    /// Hugging Face Hub. A plain image model has the names of timm; the word timm before the path asks for them.
    #[arg(long, value_name = "[timm] FILE.safetensors|FILE.bin|DIR", num_args = 1..=2)]
    pub to: Vec<PathBuf>,
    /// Replace an existing exported folder or file.
    #[arg(long)]
    pub force: bool,
    /// Type of the weights.
    #[arg(long, value_name = "f32|f16|bf16", default_value = "f32", value_parser = values::weight_type())]
    pub dtype: WeightType,
    /// In a folder, split weights of more than this many bytes into several files.
    #[arg(long, value_name = "N", default_value_t = 5_000_000_000, value_parser = values::at_least_one)]
    pub shard_bytes: u64,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  tokenformer verify models/150m
  tokenformer verify runs/grow";

#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// Model directory, checkpoint, exported folder, or a run, of which every checkpoint is checked.
    pub dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// The path of a flag, and whether the word `timm` stands before it.
///
/// # Errors
/// If another word does.
pub fn with_layout<'a>(
    flag: &str,
    values: &'a [PathBuf],
) -> tokenformer_train::Result<(bool, &'a Path)> {
    match values {
        [path] => Ok((false, path)),
        [layout, path] if layout.as_os_str() == "timm" => Ok((true, path)),
        _ => {
            let got = values
                .first()
                .map_or(String::new(), |word| word.display().to_string());
            let help = "quote a path that has spaces";
            Err(crate::usage(
                flag,
                "a path, or the word timm and a path",
                got,
                help,
            ))
        }
    }
}

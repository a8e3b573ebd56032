//! Flags of `grow`.

use super::{ComputeArgs, values};
use clap::{ArgGroup, Args};
use std::path::PathBuf;
use tokenformer_core::config::NormSpan;
use tokenformer_core::growth::{Amount, At, Fill, Method, Moments, NewBlocks, Rate, TauRule};

const EXAMPLES: &str = "\
Examples:
  tokenformer grow --from runs/small --to grown --ffn +1024 --qkv +128 --proj +128
  tokenformer grow --from runs/small --to deeper --layers +2 --freeze-old
  tokenformer grow --from runs/small --to longer --method stack --layers +4
  tokenformer grow --from runs/gpt --to wide --method clone --width =256

Without a method the grown model computes exactly what the old one did, and learns on from there. docs/growth.md
lists the methods, what each keeps, and which settings it reads.";

/// The flags that say by how much a model grows.
const AMOUNTS: [&str; 9] = [
    "qkv", "query", "key", "value", "proj", "ffn", "sites", "layers", "width",
];

/// A growth of no amount is asked for as such, with `--ffn +0`: without any amount, one was forgotten.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("amounts").args(AMOUNTS).required(true).multiple(true))]
pub struct GrowArgs {
    /// Checkpoint, run or model directory to grow.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Directory to write.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Replace an existing model or checkpoint.
    #[arg(long)]
    pub force: bool,
    /// The way to grow [default: tokens as the norm of their site, blocks that add nothing].
    #[arg(long, value_name = "METHOD")]
    pub method: Option<Method>,
    /// Tokens of query, key and value each: +N more, or =N in all.
    #[arg(long, value_name = "+N|=N", default_value = "+0")]
    pub qkv: Amount,
    /// Tokens of the query projection, instead of --qkv.
    #[arg(long, value_name = "+N|=N")]
    pub query: Option<Amount>,
    /// Tokens of the key projection, instead of --qkv.
    #[arg(long, value_name = "+N|=N")]
    pub key: Option<Amount>,
    /// Tokens of the value projection, instead of --qkv.
    #[arg(long, value_name = "+N|=N")]
    pub value: Option<Amount>,
    /// Tokens of the output projection.
    #[arg(long, value_name = "+N|=N", default_value = "+0")]
    pub proj: Amount,
    /// Tokens of the feed-forward network, or hidden units of the MLPs of a plain Transformer.
    #[arg(long, value_name = "+N|=N", default_value = "+0")]
    pub ffn: Amount,
    /// Tokens of one layer, such as blocks.0.ffn=+64, instead of the above. May be repeated.
    #[arg(long = "site", value_name = "NAME=+N", value_parser = values::site)]
    pub sites: Vec<(String, Amount)>,
    /// Blocks to add: +N.
    #[arg(long, value_name = "+N", default_value = "+0")]
    pub layers: Amount,
    /// What new blocks start from, where the method does not say it.
    #[arg(long, value_name = "START", default_value = "zero", value_parser = values::new_blocks())]
    pub blocks: NewBlocks,
    /// Position of new blocks that are not copies [default: the end; spread evenly by the methods identity-blocks and fresh-blocks].
    #[arg(long, value_name = "start|even|middle|end|after:N")]
    pub at: Option<At>,
    /// Width of a plain Transformer, with a method that widens.
    #[arg(long, value_name = "+N|=N", default_value = "+0")]
    pub width: Amount,
    /// Noise of the methods clone [default: 0.316 of the weights] and shrink-pad [default: 1, as fresh weights].
    #[arg(long, value_name = "X")]
    pub noise: Option<f64>,
    /// What the method shrink-pad leaves of the weights [default: 0.4].
    #[arg(long, value_name = "X")]
    pub shrink: Option<f64>,
    /// Start of new keys [default: what keeps the function: zero under joint, random under segment].
    #[arg(long, value_name = "START", value_parser = values::fill())]
    pub keys: Option<Fill>,
    /// Start of new values [default: random under joint, zero under segment].
    #[arg(long, value_name = "START", value_parser = values::fill())]
    pub values: Option<Fill>,
    /// What the norm of a grown site spans [default: as it was].
    #[arg(long, value_name = "joint|segment", value_parser = values::norm_span())]
    pub norm: Option<NormSpan>,
    /// What happens to tau under a joint norm: `pinned`, `sqrt-n` (as the released code does), `anneal:STEPS`, or
    /// `tracked` (it follows the sizes of old and new scores).
    #[arg(
        long,
        value_name = "pinned|sqrt-n|anneal:STEPS|tracked",
        default_value = "pinned"
    )]
    pub tau: TauRule,
    /// Updates of their own over which new arrays warm up [default: 100].
    #[arg(long, value_name = "UPDATES", value_parser = values::whole)]
    pub warmup: Option<u64>,
    /// Learning rate of new arrays that start from zero, and of widened matrices.
    #[arg(long, value_name = "RATE", default_value = "slots", value_parser = values::rate())]
    pub rate: Rate,
    /// The optimizer's moments of what stays.
    #[arg(long, value_name = "kept|reset", default_value = "kept", value_parser = values::moments())]
    pub moments: Moments,
    /// Factor of the learning rate of all existing parameters.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub old_lr: f32,
    /// Stop training all existing parameters.
    #[arg(long)]
    pub freeze_old: bool,
    /// Seed of the new tokens, for a model without training state.
    #[arg(long, value_name = "N", default_value_t = 1234, value_parser = values::whole)]
    pub seed: u64,
    /// Print the growth report as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

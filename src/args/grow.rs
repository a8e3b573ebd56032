//! Flags of `grow`.

use super::{ComputeArgs, values};
use clap::Args;
use std::path::PathBuf;
use tokenformer_core::config::NormSpan;
use tokenformer_core::growth::{Amount, Fill, TauRule};

const EXAMPLES: &str = "\
Examples:
  tokenformer grow --from runs/small --to grown --ffn +1024 --qkv +128 --proj +128
  tokenformer grow --from runs/small --to deeper --layers +2 --freeze-old

With the defaults the grown model computes exactly what the old one did, and learns on from there.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GrowArgs {
    /// Checkpoint, run or model directory to grow.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Directory to write.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Replace a model or checkpoint that is there.
    #[arg(long)]
    pub force: bool,
    /// Tokens of query, key and value each: +N more, or =N in all.
    #[arg(long, value_name = "+N|=N", default_value = "+0")]
    pub qkv: Amount,
    /// Tokens of the output projection.
    #[arg(long, value_name = "+N|=N", default_value = "+0")]
    pub proj: Amount,
    /// Tokens of the feed-forward network.
    #[arg(long, value_name = "+N|=N", default_value = "+0")]
    pub ffn: Amount,
    /// Blocks to append: +N.
    #[arg(long, value_name = "+N", default_value = "+0")]
    pub layers: Amount,
    /// Start of new keys [default: what keeps the function: zero under joint, random under segment].
    #[arg(long, value_name = "zero|random", value_parser = values::fill())]
    pub keys: Option<Fill>,
    /// Start of new values [default: random under joint, zero under segment].
    #[arg(long, value_name = "random|zero", value_parser = values::fill())]
    pub values: Option<Fill>,
    /// What the norm of a grown site spans [default: as it was].
    #[arg(long, value_name = "joint|segment", value_parser = values::norm_span())]
    pub norm: Option<NormSpan>,
    /// What happens to tau under a joint norm: `pinned`, `sqrt-n` (as the released code does), or
    /// `anneal:STEPS`.
    #[arg(
        long,
        value_name = "pinned|sqrt-n|anneal:STEPS",
        default_value = "pinned"
    )]
    pub tau: TauRule,
    /// Stop training everything that is there now.
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

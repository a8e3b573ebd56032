//! Flags, a file per verb. They read the same across verbs.

mod bench;
mod convert;
mod data;
mod demo;
mod eval;
mod generate;
mod grow;
mod images;
mod inspect;
mod launch;
mod plan;
mod predict;
mod reproduce;
mod serve;
mod train;
mod values;

pub use bench::{BenchArgs, BenchWhat};
pub use convert::{ConvertArgs, ExportArgs, StoredArg, VerifyArgs, with_layout};
pub use data::{
    DataArgs, DataCommand, ExportDataArgs, FetchArgs, FetchWhat, ImportArgs, PrepareArgs, Split,
};
pub use demo::DemoArgs;
pub use eval::EvalArgs;
pub use generate::{GenerateArgs, LogitsArgs};
pub use grow::GrowArgs;
pub use images::{ImageArgs, MakeArgs, MakeWhat};
pub use inspect::{CompletionsArgs, ConfigArgs, ConfigCommand, DoctorArgs, InspectArgs};
pub use launch::LaunchArgs;
pub use plan::{PlanArgs, PlanClusterArgs, PlanCommand, PlanGrowthArgs, PlanSitesArgs};
pub use predict::{PredictArgs, WeightsArg};
pub use reproduce::{GrowthArgs, ReproduceArgs, ReproduceCommand, VisionArgs};
pub use serve::ServeArgs;
pub use train::{RecipeArgs, TrainArgs};
pub use values::TrainingPrecision;

use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::any::TypeId;
use std::path::PathBuf;

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
    /// Reads the command line; ends the program where it asks for help or cannot be understood.
    pub fn read() -> Self {
        let matches = take_dashes(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// Lets values of flags begin with a dash, so that `--top-k -1` and `--stop -x` reach the checks of their
/// own. Paths are left out: there a dash is more likely the next flag, and the path can be written `./-x`.
fn take_dashes(command: clap::Command) -> clap::Command {
    let takes_dashes = |arg: &Arg| {
        arg.get_long().is_some()
            && arg.get_action().takes_values()
            && arg.get_value_parser().type_id() != TypeId::of::<PathBuf>()
    };
    command
        .mut_args(|arg| match takes_dashes(&arg) {
            true => arg.allow_hyphen_values(true),
            false => arg,
        })
        .mut_subcommands(take_dashes)
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a small model on text that is already here, grow it, train on, and leave a report.
    Demo(DemoArgs),
    /// Prepare and inspect datasets.
    Data(DataArgs),
    /// Train by a recipe, growing where it says so.
    Train(TrainArgs),
    /// Start several processes of a command on this machine, which train together.
    Launch(LaunchArgs),
    /// Append parameter tokens or blocks to a checkpoint, with its whole training state.
    Grow(GrowArgs),
    /// Make a model directory of a published checkpoint, or of a training folder of the released code.
    Convert(ConvertArgs),
    /// Write a model with the published names, as safetensors or for PyTorch.
    Export(ExportArgs),
    /// Check a model directory: its hashes, and that it still computes what it did.
    Verify(VerifyArgs),
    /// Measure a model on a dataset: its loss on text, its accuracy on pictures.
    Eval(EvalArgs),
    /// Tell the classes of pictures.
    Predict(PredictArgs),
    /// Continue a text.
    Generate(GenerateArgs),
    /// Serve models over the network with OpenAI's interface, and a page; or show a training run.
    Serve(ServeArgs),
    /// Write the logits and per-token losses of given tokens.
    Logits(LogitsArgs),
    /// Describe a model, checkpoint, run or dataset.
    Inspect(InspectArgs),
    /// Show the recipe that a run would use, or the presets.
    Config(ConfigArgs),
    /// Show what this machine has and what will be used of it.
    Doctor(DoctorArgs),
    /// Measure speed and memory, compared with the limits of the machine.
    Bench(BenchArgs),
    /// Plan a training before it starts: whether growth pays, when and how much.
    Plan(PlanArgs),
    /// Repeat the studies behind this project's claims.
    Reproduce(ReproduceArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
}

/// Where to compute.
#[derive(Debug, Clone, Args)]
pub struct ComputeArgs {
    /// Threads to use [default: one per core]. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub threads: Option<usize>,
    /// What computes: cpu, cuda, or cuda:1 for the second GPU; plans take cuda:80GiB [default: cpu].
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        take_dashes(Cli::command()).debug_assert();
    }

    /// The help of every verb that does something has an example that is a complete command line.
    #[test]
    fn every_verb_has_examples_that_parse() {
        fn visit(command: &clap::Command, path: &str, examples: &mut Vec<(String, String)>) {
            for verb in command.get_subcommands() {
                let path = format!("{path} {}", verb.get_name());
                if verb.has_subcommands() {
                    visit(verb, &path, examples);
                    continue;
                }
                let help = verb
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let lines: Vec<&str> = help
                    .lines()
                    .filter_map(|l| l.strip_prefix("  tokenformer "))
                    .collect();
                assert!(!lines.is_empty(), "{path} has no example");
                examples.extend(
                    lines
                        .iter()
                        .map(|line| (path.clone(), format!("tokenformer {line}"))),
                );
            }
        }
        let mut examples = Vec::new();
        visit(&Cli::command(), "tokenformer", &mut examples);
        for (path, example) in examples {
            assert!(example.starts_with(&path), "{example} is not of {path}");
            // The examples quote whole words only; what is behind a redirection belongs to the shell.
            let line = example
                .split(" > ")
                .next()
                .unwrap_or_default()
                .replace('\'', "\"");
            let words = line
                .split('"')
                .enumerate()
                .flat_map(|(i, part)| match i % 2 {
                    0 => part.split_whitespace().map(ToString::to_string).collect(),
                    _ => vec![part.to_string()],
                });
            let parsed = take_dashes(Cli::command()).try_get_matches_from(words);
            assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        }
    }

    fn refusal(line: &str) -> String {
        let words = line.split(' ');
        match take_dashes(Cli::command()).try_get_matches_from(words) {
            Ok(_) => "taken".into(),
            Err(error) => error.to_string().lines().next().unwrap_or_default().into(),
        }
    }

    #[test]
    fn values_that_begin_with_a_dash_reach_the_check_of_their_flag() {
        let taken = [
            "generate --model m --stop -x --stop --end--",
            "generate --model m --prompt --x",
            "generate --model m --temperature -1 --top-p -inf --min-p -0.5 --repetition-penalty -2e3",
            "train --set -x=1 --resume -run",
            "demo --minutes -3",
            "data prepare --input x --out y --valid -0.1 --text-key -text --tokenizer -x",
            "eval --model m --tasks -x",
            "bench train --preset -nano",
        ];
        for line in taken {
            assert_eq!(refusal(&format!("tokenformer {line}")), "taken", "{line}");
        }
        let refused = [
            ("generate --model m --tokens -1", "'-1' for '--tokens <N>'"),
            ("generate --model m --seed -5", "'-5' for '--seed <N>'"),
            ("train --threads -1", "'-1' for '--threads <N>'"),
            (
                "eval --model m --data d --stride -8",
                "'-8' for '--stride <N>'",
            ),
            (
                "eval --model m --data d --precision -x",
                "'-x' for '--precision",
            ),
            ("grow --from a --to b --ffn -8", "'-8' for '--ffn"),
            ("grow --from a --to b --layers -1", "'-1' for '--layers"),
            (
                "export --model m --to t --shard-bytes -1",
                "'-1' for '--shard-bytes",
            ),
            (
                "bench train --recompute -blocks",
                "'-blocks' for '--recompute",
            ),
        ];
        for (line, part) in refused {
            let said = refusal(&format!("tokenformer {line}"));
            assert!(
                said.contains("invalid value") && said.contains(part),
                "{line}: {said}"
            );
        }
        // Where a path is wanted, the next flag is not taken for it.
        let said = refusal("tokenformer grow --from a --to --force");
        assert!(
            said.contains("a value is required for '--to <DIR>'"),
            "{said}"
        );
    }
}

//! The `tokenformer` command line: thin verbs over the library crates.
#![allow(
    clippy::result_large_err,
    reason = "an error ends the program, so its size costs nothing"
)]

#[macro_use]
mod output;

mod args;
mod commands;
mod ui;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;
use tokenformer_train::{Error, Result};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("error: {}", with_help(&error));
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Demo(args) => commands::demo::run(&args),
        Command::Data(args) => commands::data::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Grow(args) => commands::grow::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Logits(args) => commands::logits::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Config(args) => commands::config::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Completions(args) => {
            commands::completions(args.shell);
            Ok(())
        }
    }
}

/// The message of an error; one without advice of its own gets the general one.
fn with_help(error: &Error) -> String {
    let mut text = error.to_string();
    if !text.contains("help: ") {
        text += match error {
            Error::Data(tokenformer_data::Error::Io { .. }) | Error::Report(_) => {
                "\n  help:     check the path, its permissions and its disk"
            }
            _ => "\n  help:     `--help` after a command explains its flags",
        };
    }
    text
}

/// A flag whose value cannot be used.
fn usage(flag: &str, expected: &str, got: impl ToString, help: &str) -> Error {
    Error::Recipe {
        place: flag.into(),
        problem: "not a possible value".into(),
        expected: expected.into(),
        got: got.to_string(),
        help: help.into(),
    }
}

//! The `tokenformer` command line: thin verbs over the library crates.
#[macro_use]
mod output;

mod args;
mod commands;
mod devices;
mod outputs;
mod shell;
mod signals;
mod ui;

use args::{Cli, Command};
use std::process::ExitCode;
use tokenformer_train::Error;

fn main() -> ExitCode {
    let ended = run(Cli::read()).and_then(|code| {
        tokenformer_ranks::mpi::finish()?;
        Ok(code)
    });
    match ended {
        Ok(code) => code,
        Err(failure) => {
            commands::ranks::fail(&failure);
            errln!("error: {}", failure.message);
            ExitCode::from(failure.code() as u8)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let code = |code: i32| ExitCode::from(u8::try_from(code).unwrap_or(1));
    match cli.command {
        Command::Demo(args) if args.images => commands::demo_images::run(&args)?,
        Command::Demo(args) => commands::demo::run(&args)?,
        Command::Data(args) => commands::data::run(&args)?,
        Command::Train(args) => return Ok(code(commands::train::run(&args)?)),
        Command::Launch(args) => return Ok(code(commands::launch::run(&args)?)),
        Command::Grow(args) => commands::grow::run(&args)?,
        Command::Convert(args) => commands::convert::run(&args)?,
        Command::Export(args) => commands::export::run(&args)?,
        Command::Verify(args) => commands::verify::run(&args)?,
        Command::Eval(args) => return Ok(code(commands::eval::run(&args)?)),
        Command::Predict(args) => commands::predict::run(&args)?,
        Command::Generate(args) => commands::generate::run(&args)?,
        Command::Serve(args) => commands::serve::run(&args)?,
        Command::Logits(args) => commands::logits::run(&args)?,
        Command::Inspect(args) => commands::inspect::run(&args)?,
        Command::Config(args) => commands::config::run(&args)?,
        Command::Doctor(args) => commands::doctor::run(&args)?,
        Command::Bench(args) => return Ok(code(commands::bench::run(&args)?)),
        Command::Plan(args) => commands::plan::run(&args)?,
        Command::Reproduce(args) => commands::reproduce::run(&args)?,
        Command::Completions(args) => commands::completions(args.shell),
    }
    Ok(ExitCode::SUCCESS)
}

/// The error of a verb.
struct Failure {
    message: String,
    /// Whether the user asked for something impossible.
    is_usage: bool,
}

impl Failure {
    fn code(&self) -> i32 {
        if self.is_usage { 2 } else { 1 }
    }
}

impl From<tokenformer_ranks::Error> for Failure {
    fn from(error: tokenformer_ranks::Error) -> Self {
        Self {
            message: help_added(error.to_string(), FLAGS),
            is_usage: error.is_usage(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            message: with_help(&error),
            is_usage: error.is_usage(),
        }
    }
}

impl From<tokenformer_convert::Error> for Failure {
    fn from(error: tokenformer_convert::Error) -> Self {
        use tokenformer_convert::Error as Convert;
        match error {
            Convert::Train(error) => error.into(),
            Convert::Data(error) => Error::from(error).into(),
            // Here settings come from files, not from flags.
            other => Self {
                message: help_added(other.to_string(), FLAGS),
                is_usage: false,
            },
        }
    }
}

impl From<tokenformer_images::Error> for Failure {
    fn from(error: tokenformer_images::Error) -> Self {
        Self {
            message: help_added(error.to_string(), FLAGS),
            is_usage: matches!(error, tokenformer_images::Error::Option { .. }),
        }
    }
}

impl From<tokenformer_serve::Error> for Failure {
    fn from(error: tokenformer_serve::Error) -> Self {
        Self {
            message: help_added(error.to_string(), FLAGS),
            is_usage: matches!(error, tokenformer_serve::Error::Setting { .. }),
        }
    }
}

impl From<tokenformer_tasks::Error> for Failure {
    fn from(error: tokenformer_tasks::Error) -> Self {
        Self {
            message: help_added(error.to_string(), FLAGS),
            is_usage: matches!(error, tokenformer_tasks::Error::UnknownTask { .. }),
        }
    }
}

const FLAGS: &str = "`--help` after a command explains its flags";

fn help_added(message: String, help: &str) -> String {
    match message.contains("help: ") {
        true => message,
        false => format!("{message}\n  help:     {help}"),
    }
}

/// The message of an error; one without advice gets the general advice.
fn with_help(error: &Error) -> String {
    let help = match error {
        Error::Data(tokenformer_data::Error::Io { .. }) | Error::Report(_) => {
            "check the path, its permissions and its disk"
        }
        _ => FLAGS,
    };
    help_added(error.to_string(), help)
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

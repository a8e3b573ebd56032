//! `verify`: checks that a model directory is unchanged.

use super::find::{convert_command, folders_to_verify};
use super::{device, print_json};
use crate::Failure;
use crate::args::VerifyArgs;
use tokenformer_convert::{Check, verify};
use tokenformer_store::Manifest;

/// Runs the verb.
pub fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let device = device(&args.compute)?;
    let folders = folders_to_verify(&args.dir)?;
    if !args.json && Manifest::read(&args.dir).is_ok_and(|manifest| manifest.kind == "export") {
        outln!(
            "a published checkpoint; to use it here: {}",
            convert_command(&args.dir)
        );
    }
    let mut checks = Vec::new();
    for dir in &folders {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let named = |check: Check| match dir == &args.dir {
            true => check,
            false => Check {
                name: format!("{name}/{}", check.name),
                ..check
            },
        };
        checks.extend(verify(dir, &device)?.into_iter().map(named));
    }
    match args.json {
        true => print_json(&checks),
        false => checks.iter().for_each(print),
    }
    match checks.iter().filter(|check| !check.passed).count() {
        0 => Ok(()),
        failed => Err(Failure {
            message: format!(
                "{}: {failed} of {} checks failed\n  help:     copy, convert or train the model again",
                args.dir.display(),
                checks.len()
            ),
            is_usage: false,
        }),
    }
}

fn print(check: &Check) {
    let verdict = if check.passed { "ok  " } else { "FAIL" };
    outln!("{verdict} {}: {}", check.name, check.found);
}

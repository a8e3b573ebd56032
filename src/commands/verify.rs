//! `verify`: whether a model directory is what it was.

use super::{device, print_json};
use crate::Failure;
use crate::args::VerifyArgs;
use tokenformer_convert::{Check, verify};

/// Runs the verb.
pub fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let checks = verify(&args.dir, &device(&args.compute)?)?;
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

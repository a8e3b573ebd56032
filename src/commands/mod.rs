//! The verbs.

pub mod bench;
pub mod config;
pub mod convert;
pub mod corpus;
pub mod data;
pub mod demo;
pub mod doctor;
pub mod eval;
pub mod export;
pub mod generate;
pub mod grow;
pub mod inspect;
pub mod logits;
pub mod plan;
pub mod tasks;
pub mod train;
pub mod verify;

use crate::args::{Cli, ComputeArgs, WeightsArg};
use crate::usage;
use clap::CommandFactory;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::{Device, Model, Precision};
use tokenformer_cpu::Cpu;
use tokenformer_store::{Resolved, Warning, Which, verify};
use tokenformer_train::{Result, files};

/// The device that the flags ask for, in f32.
pub fn device(args: &ComputeArgs) -> Result<Arc<dyn Device>> {
    device_in(args, Precision::F32)
}

/// The device that the flags ask for, in a precision.
pub fn device_in(args: &ComputeArgs, precision: Precision) -> Result<Arc<dyn Device>> {
    const MAX_THREADS: usize = 4096;
    match args.threads {
        Some(n) if n == 0 || n > MAX_THREADS => {
            let help = "leave it out to use every core";
            Err(usage("--threads", "between 1 and 4096", n, help))
        }
        threads => Ok(Cpu::with_precision(threads, precision)),
    }
}

/// A flag that Ctrl-C sets; a second Ctrl-C ends the program at once.
pub fn stop_flag() -> &'static AtomicBool {
    static STOP: AtomicBool = AtomicBool::new(false);
    // Without a handler Ctrl-C ends the program as usual; checkpoints stay good either way.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        errln!("stopping after this step (once more to stop at once)");
    });
    &STOP
}

/// Finds the model that a path means, verifies it, and says what was skipped.
pub fn find_model(path: &Path, which: Which) -> Result<Resolved> {
    let mut warn = |warning: Warning| errln!("warning: {warning}");
    let found = tokenformer_store::resolve(path, which, &mut warn)?;
    if found.manifest.is_none() && found.dir.join(tokenformer_store::MANIFEST_NAME).exists() {
        verify(&found.dir)?;
    }
    Ok(found)
}

/// Finds, verifies and loads a model for inference.
pub fn load_model(
    path: &Path,
    which: Which,
    device: &Arc<dyn Device>,
    precision: WeightsArg,
) -> Result<(Resolved, Model)> {
    let found = find_model(path, which)?;
    let model = files::load_for_inference(&found.dir, device, precision.into())?;
    Ok((found, model))
}

/// Prints the completions of a shell.
pub fn completions(shell: clap_complete::Shell) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tokenformer", &mut text);
    out!("{}", String::from_utf8_lossy(&text));
}

/// Prints a value as JSON.
pub fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => outln!("{text}"),
        Err(error) => errln!("warning: {error}"),
    }
}

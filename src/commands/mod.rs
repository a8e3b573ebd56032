//! The verbs.

pub mod bench;
pub mod config;
pub mod convert;
pub mod corpus;
pub mod data;
pub mod dataset;
pub mod demo;
pub mod demo_images;
pub mod doctor;
pub mod eval;
pub mod eval_images;
pub mod export;
pub mod find;
pub mod generate;
pub mod grow;
pub mod images;
pub mod inspect;
pub mod launch;
pub mod logits;
pub mod memory_plan;
pub mod picture_report;
pub mod plan;
mod plan_cluster;
mod plan_sites;
pub mod predict;
pub mod ranks;
mod recipe;
pub mod reproduce;
pub mod reproduce_vision;
pub mod serve;
pub mod tasks;
pub mod train;
pub mod verify;

pub use crate::signals::stop_flag;
pub use find::{ensure_text, find_model, load_model, load_weights, run_of};

use crate::args::{Cli, ComputeArgs};
use crate::{devices, usage};
use clap::CommandFactory;
use std::sync::Arc;
use tokenformer_core::{Device, Precision};
use tokenformer_train::Result;

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
        threads => devices::open(args.device.as_deref(), threads, precision),
    }
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

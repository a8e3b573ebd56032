//! The devices of this program: one line each.

use crate::usage;
use std::sync::Arc;
use tokenformer_core::{Device, Precision};
use tokenformer_cpu::Cpu;
use tokenformer_train::Result;

/// Makes a device that computes in a precision on the given number of threads, one per core if none are given.
type Open = fn(Option<usize>, Precision) -> Arc<dyn Device>;

/// Devices by name; the first one is the default.
const DEVICES: &[(&str, Open)] = &[("cpu", |threads, precision| {
    Cpu::with_precision(threads, precision)
})];

/// The device of a name.
pub fn open(
    name: Option<&str>,
    threads: Option<usize>,
    precision: Precision,
) -> Result<Arc<dyn Device>> {
    let names: Vec<&str> = DEVICES.iter().map(|(name, _)| *name).collect();
    let name = name.unwrap_or(names[0]);
    match DEVICES.iter().find(|(known, _)| *known == name) {
        Some((_, open)) => Ok(open(threads, precision)),
        None => Err(usage(
            "--device",
            &names.join(", "),
            name,
            "leave it out for the CPU",
        )),
    }
}

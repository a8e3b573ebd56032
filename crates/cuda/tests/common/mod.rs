//! Emulated GPUs for tests.
#![allow(dead_code)]

use std::sync::Arc;
use tokenformer_cuda::{Cuda, Emulated};
use tokenformer_device::{Device, Precision};
use tokenformer_testing::operations::Suite;

/// Orders of threads: ascending, descending, shuffled.
pub const ORDERS: [u32; 3] = [0, 1, 2];

/// A library of emulated kernels that tests use instead of the built ones: mutants, or kernels with sanitizers.
pub const LIBRARY: &str = "TOKENFORMER_EMULATED_KERNELS";

/// An emulated GPU, or `None` and a printed reason if there was no C++ compiler.
pub fn gpu(order: u32) -> Option<Emulated> {
    let gpu = match std::env::var_os(LIBRARY) {
        // SAFETY: the commands that set the variable build the library from the emulator's sources.
        Some(path) => unsafe { Emulated::from_library(&path, order) },
        None => Emulated::new(order),
    };
    match gpu {
        Ok(gpu) if std::env::var_os("ASAN_OPTIONS").is_some() => Some(gpu.without_guards()),
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var_os(LIBRARY).is_none() => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub fn device(order: u32, precision: Precision) -> Option<Arc<dyn Device>> {
    Some(Cuda::new(Arc::new(gpu(order)?), precision))
}

/// The device in every order of threads.
pub fn suite(precision: Precision) -> Option<Suite> {
    let devices: Option<Vec<_>> = ORDERS
        .map(|order| device(order, precision))
        .into_iter()
        .collect();
    Some(Suite {
        devices: devices?,
        least_bar: match precision {
            Precision::F32 => 0.0,
            Precision::Bf16 => 0.03,
        },
    })
}

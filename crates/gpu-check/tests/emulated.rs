//! The checks of correctness on emulated kernels: the same code that runs on a GPU.
#![cfg(feature = "emulator")]

use std::sync::Arc;
use tokenformer_cuda::{Emulated, Gpu};
use tokenformer_device::Precision;
use tokenformer_gpu_check::{
    Check, attention, copy_bandwidth, growth, losses, operations, out_of_memory, poison,
    product_rates, products,
};

fn gpu() -> Option<Arc<dyn Gpu>> {
    match Emulated::new(2) {
        Ok(gpu) => Some(Arc::new(gpu)),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

#[test]
fn kernels_pass() {
    let Some(gpu) = gpu() else { return };
    poison(&*gpu, 5 << 20).unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        operations(&gpu, precision, 1, 5).unwrap();
    }
    attention(&*gpu, &[1, 33], 5).unwrap();
    products(&*gpu, &[[24, 16, 40]], 5).unwrap();
    out_of_memory(&gpu).unwrap();
}

#[test]
fn growth_is_exact() {
    let Some(gpu) = gpu() else { return };
    for precision in Precision::ALL {
        growth(&gpu, precision, "nano", 5).unwrap();
    }
}

#[test]
fn training_follows_the_cpu() {
    let Some(gpu) = gpu() else { return };
    losses(&gpu, Precision::F32, "nano", 2, 5).unwrap();
}

#[test]
fn speed_is_measured_in_its_units() {
    let Some(gpu) = gpu() else { return };
    // Each measurement takes 2 ms by this clock.
    let timer = |work: &mut dyn FnMut() -> tokenformer_gpu_check::Result<()>| {
        work()?;
        Ok(2.0)
    };
    let (_, values) = copy_bandwidth(&*gpu, 1_000_000, &timer).unwrap();
    assert_eq!(values[0].1, 1.0);
    let (_, values) = product_rates(&*gpu, 16, [8, 24, 32], &timer).unwrap();
    assert_eq!(values.len(), 6);
    assert!((values[0].1 - 2.0 * 16.0 * 24.0 * 8.0 / 2e-3 / 1e12).abs() < 1e-12);
}

#[test]
fn what_fails_or_panics_did_not_pass() {
    let failed = Check::run("fails", || Err("why".into()));
    assert!(!failed.passed && failed.detail == "why");
    let panicked = Check::run("panics", || panic!("at number {}", 3));
    assert!(!panicked.passed && panicked.detail == "at number 3");
    assert!(Check::run("works", || Ok(("fine".into(), Vec::new()))).passed);
}

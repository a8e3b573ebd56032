//! `doctor`: what this machine has, and what the program will use.

use super::{device, print_json};
use crate::args::DoctorArgs;
use tokenformer_cpu::{recommended_precision, simd};
use tokenformer_report::table::human_bytes;
use tokenformer_train::{Result, memory};

#[derive(serde::Serialize)]
struct Output {
    version: &'static str,
    target: String,
    cores: usize,
    simd_detected: &'static str,
    simd_used: &'static str,
    precision_auto: &'static str,
    precision_auto_reason: &'static str,
    compute: String,
    memory_available_bytes: Option<u64>,
}

/// Runs the verb.
pub fn run(args: &DoctorArgs) -> Result<()> {
    let device = device(&args.compute)?;
    let (precision, reason) = recommended_precision();
    let output = Output {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        simd_detected: simd::detected().name(),
        simd_used: simd::level().name(),
        precision_auto: precision.name(),
        precision_auto_reason: reason,
        compute: device.describe(),
        memory_available_bytes: memory::available_bytes(),
    };
    if args.json {
        print_json(&output);
        return Ok(());
    }
    outln!("tokenformer {} for {}", output.version, output.target);
    outln!("cores          {}", output.cores);
    outln!(
        "vector units   {} (detected {})",
        output.simd_used,
        output.simd_detected
    );
    outln!("precision      f32 unless asked; the same bits for any number of threads");
    outln!(
        "--precision auto  {}: {}",
        output.precision_auto,
        output.precision_auto_reason
    );
    outln!("computes on    {}", output.compute);
    match output.memory_available_bytes {
        Some(bytes) => outln!("memory         {} available", human_bytes(bytes)),
        None => outln!("memory         unknown"),
    }
    if output.simd_used != output.simd_detected {
        outln!("note: TOKENFORMER_SIMD lowers the vector units in use");
    }
    Ok(())
}

//! `doctor`: what this machine has, and what the program will use.

use super::{device, print_json};
use crate::args::DoctorArgs;
use tokenformer_cpu::gemm::blocking;
use tokenformer_cpu::{cache, recommended_precision, simd};
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
    precision_auto_reason: String,
    cache_first_bytes: usize,
    cache_second_bytes: usize,
    blocking: Blocking,
    compute: String,
    memory_available_bytes: Option<u64>,
    /// What was found for `--device cuda`.
    cuda: Vec<String>,
}

/// How products are cut to fit the caches, which changes their speed and no result.
#[derive(serde::Serialize)]
struct Blocking {
    task_columns: usize,
    output_elements: usize,
}

/// Runs the verb.
pub fn run(args: &DoctorArgs) -> Result<()> {
    let device = device(&args.compute)?;
    let recommended = recommended_precision();
    let (caches, blocking) = (cache::caches(), blocking());
    let output = Output {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        simd_detected: simd::detected().name(),
        simd_used: simd::level().name(),
        precision_auto: recommended.precision.name(),
        precision_auto_reason: recommended.to_string(),
        cache_first_bytes: caches.first,
        cache_second_bytes: caches.second,
        blocking: Blocking {
            task_columns: blocking.task_cols,
            output_elements: blocking.wide,
        },
        compute: device.describe(),
        memory_available_bytes: memory::available_bytes(),
        cuda: tokenformer_cuda::driver::Found::look()
            .to_string()
            .lines()
            .map(String::from)
            .collect(),
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
    outln!(
        "caches         {} and {} for each core: products are cut into {} columns and {} outputs",
        human_bytes(output.cache_first_bytes as u64),
        human_bytes(output.cache_second_bytes as u64),
        output.blocking.task_columns,
        output.blocking.output_elements,
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
    for line in &output.cuda {
        outln!("for cuda       {line}");
    }
    if output.simd_used != output.simd_detected {
        outln!("note: TOKENFORMER_SIMD lowers the vector units in use");
    }
    Ok(())
}

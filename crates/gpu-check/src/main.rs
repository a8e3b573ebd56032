//! `gpu-check`: what to run first on a machine with a GPU. Checks every kernel against f64 and training against the CPU,
//! measures copies, products and training steps, and writes a JSON. Needs no network. Exits with 1 if something is
//! missing or wrong, with 2 for wrong arguments.

use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokenformer_cuda::Gpu;
use tokenformer_cuda::driver::{Driver, Found, Options};
use tokenformer_device::Precision;
use tokenformer_gpu_check::{
    Check, attention, copy_bandwidth, growth, losses, operations, out_of_memory, poison,
    product_rates, products, training_step,
};

const HELP: &str = "\
gpu-check: checks and measures a GPU for TokenFormer

  --gpu N        the number of the GPU [default: 0]
  --out FILE     where to write the results as JSON [default: gpu-check.json]
  --seed N       of the random numbers [default: the time]
  --quick        correctness only, with a tiny model: for compute-sanitizer
  --no-libraries products by own kernels instead of cuBLASLt
";

#[derive(Debug)]
struct Args {
    gpu: usize,
    out: PathBuf,
    seed: u64,
    quick: bool,
    libraries: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut parsed = Args {
        gpu: 0,
        out: "gpu-check.json".into(),
        seed: now.map_or(0, |now| now.as_secs()),
        quick: false,
        libraries: true,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| -> Result<u64, String> {
            let wrong = |_| format!("{arg}\n  expected: a whole number\n  got:      {text}");
            text.parse().map_err(wrong)
        };
        match arg.as_str() {
            "--gpu" => parsed.gpu = number(value()?)? as usize,
            "--seed" => parsed.seed = number(value()?)?,
            "--out" => parsed.out = value()?.into(),
            "--quick" => parsed.quick = true,
            "--no-libraries" => parsed.libraries = false,
            "--help" | "-h" => return Ok(None),
            other => {
                return Err(format!(
                    "unknown argument {other}\n  help:     gpu-check --help lists all"
                ));
            }
        }
    }
    Ok(Some(parsed))
}

/// Dense bfloat16 TFLOP/s by NVIDIA's data sheets, without sparsity.
fn peak_tflops(name: &str) -> Option<f64> {
    let known = [
        ("H200", 989.0),
        ("H100", 989.0),
        ("A100", 312.0),
        ("L40S", 362.0),
        ("L4", 121.0),
    ];
    known
        .iter()
        .find(|(part, _)| name.contains(part))
        .map(|(_, peak)| *peak)
}

#[derive(Serialize)]
struct Results {
    gpu: String,
    found: String,
    seed: u64,
    seconds: f64,
    passed: bool,
    checks: Vec<Check>,
}

/// Runs a check, and prints what it found.
fn run(
    checks: &mut Vec<Check>,
    name: &str,
    check: impl FnOnce() -> tokenformer_gpu_check::Result<tokenformer_gpu_check::Report>,
) {
    let started = Instant::now();
    let found = Check::run(name, check);
    let mark = if found.passed { "ok  " } else { "FAIL" };
    println!(
        "{mark} {name}: {} ({:.1} s)",
        found.detail,
        started.elapsed().as_secs_f64()
    );
    for (name, value) in &found.values {
        println!("       {name}: {value:.4}");
    }
    checks.push(found);
}

fn check(driver: Arc<Driver>, args: &Args) -> Vec<Check> {
    let mut checks = Vec::new();
    let all = &mut checks;
    let name = driver.describe();
    let gpu: Arc<dyn Gpu> = driver.clone();
    let seed = args.seed;
    run(all, "kernels compile and load", || {
        driver.load_all()?;
        Ok(("all".into(), Vec::new()))
    });
    run(all, "poisoned memory", || {
        poison(&*gpu, 1 << 28)?;
        Ok(("NaN in 256 MiB".into(), Vec::new()))
    });
    let scale = if args.quick { 1 } else { 7 };
    run(all, "operations in f32", || {
        operations(&gpu, Precision::F32, scale, seed)
    });
    run(all, "operations in bf16", || {
        operations(&gpu, Precision::Bf16, scale, seed)
    });
    let lengths: &[usize] = if args.quick {
        &[70]
    } else {
        &[1, 70, 129, 517]
    };
    run(all, "attention in bf16", || attention(&*gpu, lengths, seed));
    let sizes: &[[usize; 3]] = if args.quick {
        &[[72, 40, 64]]
    } else {
        &[[72, 40, 64], [520, 264, 776]]
    };
    run(all, "products in bf16", || products(&*gpu, sizes, seed));
    let preset = if args.quick { "nano" } else { "tiny" };
    let steps = if args.quick { 2 } else { 20 };
    run(all, "training in f32", || {
        losses(&gpu, Precision::F32, preset, steps, seed)
    });
    run(all, "training in bf16", || {
        losses(&gpu, Precision::Bf16, preset, steps, seed)
    });
    run(all, "growth in f32", || {
        growth(&gpu, Precision::F32, preset, seed)
    });
    run(all, "growth in bf16", || {
        growth(&gpu, Precision::Bf16, preset, seed)
    });
    run(all, "out of memory", || out_of_memory(&gpu));
    if args.quick {
        return checks;
    }
    let timer = |work: &mut dyn FnMut() -> tokenformer_gpu_check::Result<()>| -> tokenformer_gpu_check::Result<f64> {
        let mut outcome = Ok(());
        let ms = driver.time_ms(|| {
            outcome = work();
            Ok(())
        })?;
        outcome?;
        Ok(f64::from(ms))
    };
    run(all, "copy bandwidth", || {
        copy_bandwidth(&*gpu, 1 << 30, &timer)
    });
    for [width, tokens] in [[768, 768], [768, 3072]] {
        let name = format!("products of width {width} and {tokens} tokens");
        run(all, &name, || {
            product_rates(&*gpu, 8 * 2048, [width, tokens, 50304], &timer)
        });
    }
    run(all, "150m, 8x2048", || {
        training_step(&gpu, "150m", [8, 2048], 10, peak_tflops(&name))
    });
    checks
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let found = Found::look().to_string();
    println!("{found}");
    let options = Options {
        index: args.gpu,
        libraries: args.libraries,
        ..Options::default()
    };
    let driver = match Driver::with(options) {
        Ok(driver) => Arc::new(driver),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}\nseed {}", driver.describe(), args.seed);
    let checks = check(Arc::clone(&driver), &args);
    let results = Results {
        gpu: driver.describe(),
        found,
        seed: args.seed,
        seconds: started.elapsed().as_secs_f64(),
        passed: checks.iter().all(|check| check.passed),
        checks,
    };
    let written = serde_json::to_string_pretty(&results).map_err(std::io::Error::from);
    if let Err(error) = written.and_then(|text| std::fs::write(&args.out, text + "\n")) {
        eprintln!("error: {}: {error}", args.out.display());
        return ExitCode::FAILURE;
    }
    println!(
        "{} in {:.0} s; {}",
        if results.passed {
            "all passed"
        } else {
            "SOMETHING IS WRONG"
        },
        results.seconds,
        args.out.display()
    );
    ExitCode::from(u8::from(!results.passed))
}

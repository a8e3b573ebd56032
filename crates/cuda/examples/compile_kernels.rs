//! Compiles every kernel for the architectures of NVIDIA's GPUs since Ampere, without a GPU, and prints registers, shared
//! memory and spills as a table. With a disassembler it also counts the instructions that the tensor-core kernels must
//! have. Ends with 1 if a kernel spills registers, or lacks such an instruction.
//!
//! ```sh
//! bash bench/cuda/compile.sh    # installs NVRTC and the disassembler into a virtual environment, and runs this
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use tokenformer_cuda::driver::{Version, compile};
use tokenformer_cuda::{SOURCES, Source};

const ARCHITECTURES: [Version; 6] = [
    Version(8, 0),
    Version(8, 6),
    Version(8, 9),
    Version(9, 0),
    Version(10, 0),
    Version(12, 0),
];
/// Instructions of products on tensor cores, of reading their operands, and of asynchronous copies.
const INSTRUCTIONS: [&str; 3] = ["HMMA.16816.F32.BF16", "LDSM.16", "LDGSTS"];

/// What the compiler says of a kernel.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    registers: u32,
    shared: u32,
    stack: u32,
    spills: u32,
    /// As many as [`INSTRUCTIONS`].
    instructions: [usize; 3],
}

/// Whether a kernel computes on tensor cores.
fn is_hot(kernel: &str) -> bool {
    kernel.starts_with("flash_forward")
        || kernel.starts_with("flash_backward")
        || (kernel.starts_with("gemm_") && !kernel.starts_with("gemm_any"))
}

/// The number before a word of the log.
fn before(line: &str, word: &str) -> u32 {
    let number = |text: &str| text.trim().rsplit([' ', ',']).next()?.parse().ok();
    line.find(word)
        .and_then(|at| number(&line[..at]))
        .unwrap_or(0)
}

/// The usage of each kernel, from the log of ptxas.
fn parse(log: &str) -> BTreeMap<String, Usage> {
    let mut kernels = BTreeMap::new();
    let mut name = String::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            name = rest.split('\'').next().unwrap_or_default().into();
        }
        let usage: &mut Usage = kernels.entry(name.clone()).or_default();
        if line.contains("spill stores") {
            usage.stack = before(line, " bytes stack frame");
            usage.spills = before(line, " bytes spill stores") + before(line, " bytes spill loads");
        }
        if line.contains("Used ") {
            usage.registers = before(line, " registers");
            usage.shared = before(line, " bytes smem");
        }
    }
    kernels.remove("");
    kernels
}

/// Counts instructions of each kernel in the disassembly of a file.
fn count(
    disassembler: &PathBuf,
    file: &PathBuf,
    kernels: &mut BTreeMap<String, Usage>,
) -> Result<(), String> {
    let output = Command::new(disassembler).arg("-c").arg(file).output();
    let output = output.map_err(|error| format!("{}: {error}", disassembler.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut name = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some((_, rest)) = line.split_once(".section\t.text.") {
            name = rest.split(',').next().unwrap_or_default().into();
        }
        if let Some(usage) = kernels.get_mut(&name) {
            for (count, word) in usage.instructions.iter_mut().zip(INSTRUCTIONS) {
                *count += usize::from(line.contains(word));
            }
        }
    }
    Ok(())
}

/// What [`compile`] says of a file for an architecture.
fn examine(
    source: &Source,
    architecture: Version,
    disassembler: Option<&PathBuf>,
) -> Result<BTreeMap<String, Usage>, String> {
    let compiled = compile(source, architecture, &["--ptxas-options=-v"])
        .map_err(|error| error.to_string())?;
    let mut kernels = parse(&compiled.log);
    for name in source.kernels() {
        if !kernels.contains_key(name) {
            return Err(format!(
                "{}.cu has {name}, but it was not compiled",
                source.name
            ));
        }
    }
    if let Some(disassembler) = disassembler {
        let file = std::env::temp_dir().join(format!(
            "tokenformer-{}-{}.cubin",
            source.name,
            std::process::id()
        ));
        std::fs::write(&file, &compiled.code).map_err(|error| error.to_string())?;
        let counted = count(disassembler, &file, &mut kernels);
        let _ = std::fs::remove_file(&file);
        counted?;
    }
    Ok(kernels)
}

/// A number for each architecture, or one if all are the same.
fn joined(values: Vec<String>) -> String {
    match values.windows(2).all(|pair| pair[0] == pair[1]) {
        true => values[0].clone(),
        false => values.join("/"),
    }
}

fn run() -> Result<Vec<String>, String> {
    let disassembler = std::env::args_os().nth(1).map(PathBuf::from);
    let mut problems = Vec::new();
    let names: Vec<String> = ARCHITECTURES
        .iter()
        .map(|v| format!("{}.{}", v.0, v.1))
        .collect();
    println!("architectures: {}", names.join("/"));
    println!(
        "| kernel | registers | static shared memory | stack frame | spills | {} |",
        INSTRUCTIONS.join(", ")
    );
    println!("|---|---|---|---|---|---|");
    for source in SOURCES {
        let mut rows: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
        for architecture in ARCHITECTURES {
            for (kernel, usage) in examine(source, architecture, disassembler.as_ref())? {
                if usage.spills > 0 {
                    problems.push(format!(
                        "{kernel} spills {} bytes for {architecture}",
                        usage.spills
                    ));
                }
                if disassembler.is_some() && is_hot(&kernel) {
                    for (word, count) in INSTRUCTIONS.iter().zip(usage.instructions) {
                        if count == 0 {
                            problems.push(format!("{kernel} has no {word} for {architecture}"));
                        }
                    }
                }
                rows.entry(kernel).or_default().push(usage);
            }
        }
        for (kernel, usages) in rows {
            let of = |value: fn(&Usage) -> u32| {
                joined(
                    usages
                        .iter()
                        .map(|usage| value(usage).to_string())
                        .collect(),
                )
            };
            let instructions = match is_hot(&kernel) && disassembler.is_some() {
                true => joined(
                    usages
                        .iter()
                        .map(|usage| usage.instructions.map(|n| n.to_string()).join(", "))
                        .collect(),
                ),
                false => String::new(),
            };
            println!(
                "| {kernel} | {} | {} | {} | {} | {instructions} |",
                of(|u| u.registers),
                of(|u| u.shared),
                of(|u| u.stack),
                of(|u| u.spills)
            );
        }
    }
    Ok(problems)
}

fn main() -> ExitCode {
    match run() {
        Ok(problems) if problems.is_empty() => {
            println!("no kernel spills registers");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Breaks the kernels in many small ways, and shows that the tests notice each one:
//!
//! ```sh
//! cargo run -p tokenformer-cuda --features emulator --example mutants [FILE...] [--list]
//! ```
//!
//! A mutant is one change of one line: a barrier removed, a wait removed, `<=` for `<`, an index off by one, a fragment
//! read from another lane. The emulated kernels are built with it as a library, on which the tests of the file run. Ends
//! with exit code 1 if a mutant survives that is not in the list of changes that compute the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The tests of a file of kernels: a test program, and a filter of its tests.
const TESTS: &[(&str, &[(&str, &str)])] = &[
    ("prelude.cuh", &[("operations", ""), ("gemm", "")]),
    (
        "elementwise.cu",
        &[("operations", "gelu"), ("operations", "bf16")],
    ),
    (
        "rows.cu",
        &[
            ("operations", "rows"),
            ("operations", "norms"),
            ("operations", "rotations"),
            ("operations", "sums"),
        ],
    ),
    ("theta.cu", &[("operations", "theta")]),
    ("attention_rows.cu", &[("operations", "attention")]),
    ("loss.cu", &[("operations", "losses")]),
    ("optimizer.cu", &[("operations", "optimizer")]),
    ("flash_attention.cu", &[("flash_attention", "")]),
    ("gemm.cu", &[("gemm", "")]),
];

/// Changes after which the kernels compute the same: the file, a part of the changed line, the rule, and why.
const EQUIVALENT: &[(&str, &str, &str, &str)] = &[];

/// What is done to a line, by name: what is replaced, and by what.
const RULES: &[(&str, &[(&str, &str)])] = &[
    (
        "barrier removed",
        &[("__syncthreads();", ";"), ("__syncwarp();", ";")],
    ),
    (
        "wait removed",
        &[
            ("cp_wait<0>();", ";"),
            ("cp_wait<1>();", ";"),
            ("cp_wait<2>();", ";"),
        ],
    ),
    ("<= for <", &[(" < ", " <= ")]),
    (
        "off by one",
        &[
            (" + 1", " + 2"),
            (" - 1", ""),
            ("= threadIdx.x;", "= threadIdx.x + 1;"),
            ("blockIdx.x;", "blockIdx.x + 1;"),
        ],
    ),
    (
        "wrong lane or fragment",
        &[
            ("lane >> 2", "lane >> 3"),
            ("lane & 3", "lane & 1"),
            ("lane >> 4", "lane >> 3"),
            ("lane & 7", "lane & 3"),
            ("lane & 15", "lane & 7"),
            ("lane == 0", "lane == 1"),
            ("i * 32 +", "i * 31 +"),
        ],
    ),
    (
        "another operator",
        &[(" += ", " = "), (" * scale", " / scale"), (" - ", " + ")],
    ),
];

struct Mutant {
    file: &'static str,
    line: usize,
    rule: &'static str,
    from: String,
    text: String,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let only_list = args.iter().any(|arg| arg == "--list");
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let work = std::env::temp_dir().join(format!("tokenformer-mutants-{}", std::process::id()));
    let mut mutants = Vec::new();
    for (file, _) in TESTS {
        let path = root.join("kernels").join(file);
        if (wanted.is_empty() || wanted.iter().any(|name| name == file)) && path.exists() {
            mutants.extend(mutants_of(file, &read(&path)));
        }
    }
    println!("{} mutants", mutants.len());
    if only_list {
        mutants
            .iter()
            .for_each(|mutant| println!("{}", mutant.shown()));
        return ExitCode::SUCCESS;
    }
    let programs = test_programs(root);
    let mut counts: BTreeMap<(&str, &str), [usize; 3]> = BTreeMap::new();
    let mut survivors = 0;
    for mutant in &mutants {
        let count = counts.entry((mutant.file, mutant.rule)).or_default();
        count[0] += 1;
        let started = Instant::now();
        let outcome = try_mutant(root, &work, mutant, &programs);
        let seconds = started.elapsed().as_secs_f32();
        match (outcome, mutant.reason_to_survive()) {
            (Some(how), _) => {
                count[1] += 1;
                println!("caught   {} ({how}, {seconds:.1} s)", mutant.shown());
            }
            (None, Some(why)) => {
                count[2] += 1;
                println!("the same {} ({why})", mutant.shown());
            }
            (None, None) => {
                survivors += 1;
                println!("SURVIVED {}", mutant.shown());
            }
        }
    }
    let _ = std::fs::remove_dir_all(&work);
    println!("\n| kernels | change | mutants | caught | compute the same |\n|---|---|---|---|---|");
    for ((file, rule), [all, caught, same]) in &counts {
        println!("| `{file}` | {rule} | {all} | {caught} | {same} |");
    }
    println!("\n{survivors} survived");
    ExitCode::from(u8::from(survivors > 0))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All mutants of a text: every rule at every place that is code.
fn mutants_of(file: &'static str, text: &str) -> Vec<Mutant> {
    let lines: Vec<&str> = text.lines().collect();
    // What only a GPU understands is not emulated.
    let first = lines
        .iter()
        .position(|line| line.starts_with("#endif") && file == "prelude.cuh");
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate().skip(first.unwrap_or(0)) {
        let code = line.split("//").next().unwrap_or_default();
        let is_code = !code.trim_start().starts_with("#") && !code.starts_with("template");
        for (rule, changes) in RULES.iter().filter(|_| is_code) {
            for (from, to) in *changes {
                for (at, _) in code.match_indices(from) {
                    let mut changed = String::from(&code[..at]);
                    changed += to;
                    changed += &code[at + from.len()..];
                    let mut all: Vec<&str> = lines.clone();
                    all[number] = &changed;
                    found.push(Mutant {
                        file,
                        line: number + 1,
                        rule,
                        from: code.trim().into(),
                        text: all.join("\n") + "\n",
                    });
                }
            }
        }
    }
    found
}

impl Mutant {
    fn shown(&self) -> String {
        format!("{}:{}: {}: {}", self.file, self.line, self.rule, self.from)
    }

    fn reason_to_survive(&self) -> Option<&'static str> {
        let is_it = |(file, part, rule, _): &&(&str, &str, &str, &str)| {
            *file == self.file && *rule == self.rule && self.from.contains(part)
        };
        EQUIVALENT.iter().find(is_it).map(|(_, _, _, why)| *why)
    }
}

/// The test programs by name, which cargo builds first.
fn test_programs(root: &Path) -> BTreeMap<String, PathBuf> {
    let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args([
            "test",
            "--no-run",
            "-p",
            "tokenformer-cuda",
            "--features",
            "emulator",
        ])
        .args(["--message-format", "json"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "the tests build");
    let text = String::from_utf8_lossy(&built.stdout);
    let programs = text.lines().filter_map(|line| {
        let start = line.find("\"executable\":\"")? + "\"executable\":\"".len();
        let path = PathBuf::from(&line[start..start + line[start..].find('"')?]);
        let name = path.file_name()?.to_str()?.rsplit_once('-')?.0.to_string();
        Some((name, path))
    });
    programs.collect()
}

/// How the tests caught a mutant, or `None` if they passed.
fn try_mutant(
    root: &Path,
    work: &Path,
    mutant: &Mutant,
    programs: &BTreeMap<String, PathBuf>,
) -> Option<&'static str> {
    let kernels = work.join("kernels");
    std::fs::create_dir_all(&kernels).expect("a temporary folder");
    for entry in std::fs::read_dir(root.join("kernels"))
        .expect("kernels")
        .flatten()
    {
        std::fs::copy(entry.path(), kernels.join(entry.file_name())).expect("a copy");
    }
    std::fs::write(kernels.join(mutant.file), &mutant.text).expect("a mutant");
    let library = work.join("mutant.so");
    let built = Command::new("c++")
        .args([
            "-std=c++17",
            "-O1",
            "-w",
            "-shared",
            "-fPIC",
            "-fno-gnu-unique",
        ])
        .args(["-fvisibility=hidden", "-I"])
        .arg(root.join("emulator"))
        .arg("-I")
        .arg(&kernels)
        .arg(root.join("emulator/emulated.cpp"))
        .arg("-o")
        .arg(&library)
        .stderr(Stdio::null())
        .status()
        .expect("a C++ compiler");
    if !built.success() {
        return Some("does not compile");
    }
    let (_, tests) = TESTS.iter().find(|(file, _)| *file == mutant.file)?;
    for (program, filter) in *tests {
        let program = programs
            .get(*program)
            .unwrap_or_else(|| panic!("no test {program}"));
        if let Some(how) = failure(program, filter, &library) {
            return Some(how);
        }
    }
    None
}

/// How a test program fails on a library of kernels.
fn failure(program: &Path, filter: &str, library: &Path) -> Option<&'static str> {
    const LONGEST: Duration = Duration::from_secs(180);
    let mut running = Command::new(program)
        .arg(filter)
        .env("TOKENFORMER_EMULATED_KERNELS", library)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a test program");
    let started = Instant::now();
    loop {
        match running.try_wait().expect("a child") {
            Some(status) if status.success() => return None,
            Some(status) if status.code().is_none() => return Some("crashed"),
            Some(_) => return Some("test failed"),
            None if started.elapsed() > LONGEST => {
                let _ = running.kill();
                let _ = running.wait();
                return Some("did not end");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

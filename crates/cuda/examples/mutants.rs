//! Breaks the kernels in many small ways, and shows that the tests notice each one:
//!
//! ```sh
//! cargo run -p tokenformer-cuda --features emulator --example mutants -- [FILE...] [--most N] [--list]
//! ```
//!
//! A mutant is one change of one line: a barrier removed, a wait removed, `<=` for `<`, an index off by one, a fragment
//! read from another lane. The emulated kernels are built with it as a library, which traps at an index beyond a local
//! array, and on which the tests of the file run. What survives that is tried once more under AddressSanitizer, which
//! notices numbers that are read beyond the end and not used. Ends with exit code 1 if a mutant survives that is not in
//! the list of changes that compute the same. That list and the rules are half of the file; the rest is one pass over them.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The tests of a file of kernels: a test program, and a filter of its tests.
const TESTS: &[(&str, &[(&str, &str)])] = &[
    (
        "prelude.cuh",
        &[
            ("operations", "norms"),
            ("operations", "theta"),
            ("operations", "losses"),
            ("operations", "operations_on_rows"),
        ],
    ),
    (
        "elementwise.cu",
        &[
            ("operations", "gelu"),
            ("operations", "products_in_bf16"),
            ("operations", "operations_on_rows"),
        ],
    ),
    (
        "rows.cu",
        &[
            ("operations", "rows"),
            ("operations", "norms"),
            ("operations", "rotations"),
            ("operations", "sums"),
            ("operations", "operations_on_rows"),
        ],
    ),
    (
        "theta.cu",
        &[
            ("operations", "theta"),
            ("operations", "operations_on_rows"),
        ],
    ),
    ("attention_rows.cu", &[("operations", "attention")]),
    (
        "loss.cu",
        &[
            ("operations", "losses"),
            ("operations", "operations_on_rows"),
        ],
    ),
    (
        "optimizer.cu",
        &[
            ("operations", "optimizer"),
            ("operations", "operations_on_rows"),
        ],
    ),
    ("flash_attention.cu", &[("flash_attention", "")]),
    ("gemm.cu", &[("gemm", "")]),
];

/// Changes after which the kernels compute the same: the file, a part of the changed line and the three before it, the rule,
/// and why.
const EQUIVALENT: &[(&str, &str, &str, &str)] = &[
    (
        "prelude.cuh",
        "return a < b ? a : b;",
        "<= for <",
        "equal numbers are the same",
    ),
    (
        "prelude.cuh",
        "DEV float block_max(float x, float* part) {\nx = warp_max(x);\nu32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;\n__syncthreads();",
        "barrier removed",
        "in every kernel it is the first to use the places",
    ),
    (
        "rows.cu",
        "float sum = 0;\nif (column < width)",
        "<= for <",
        "the sum of the column beyond the edge is not written",
    ),
    (
        "theta.cu",
        "for (u32 i = threadIdx.x * 8; i < g.tokens; i += blockDim.x * 8) {",
        "<= for <",
        "eight numbers beyond the end are zeros, and are not written",
    ),
    (
        "gemm.cu",
        "steps = (k + STEP - 1) / STEP;",
        "off by one",
        "one more step, whose panels lie beyond the end and are zeros",
    ),
    (
        "gemm.cu",
        "steps = (k + STEP - 1) / STEP;",
        "another operator",
        "one more step, whose panels lie beyond the end and are zeros",
    ),
    (
        "gemm.cu",
        "if (step < steps) {",
        "<= for <",
        "the panels of one more step, zeros that nobody reads",
    ),
    (
        "attention_rows.cu",
        "x += p[j] * load(v, key_at(s, start + j) + c);\nsum_of[c] = x;\n}\n__syncwarp();",
        "barrier removed",
        "the shuffles of the next tile wait for all lanes; only the memory model asks for more",
    ),
    (
        "flash_attention.cu",
        "int blocks = (visible(a, last - 1) + BN - 1) / BN;",
        "off by one",
        "one more block of keys, all of which are masked",
    ),
    (
        "flash_attention.cu",
        "int blocks = (visible(a, last - 1) + BN - 1) / BN;",
        "another operator",
        "one more block of keys, all of which are masked",
    ),
    (
        "flash_attention.cu",
        "unseen = visible(a, first + row + 16 * MT - 1);",
        "another operator",
        "a warp computes one more block of keys, all of which are masked",
    ),
    (
        "flash_attention.cu",
        "__syncwarp();",
        "barrier removed",
        "all lanes have read their fragments at the last ldmatrix; only the memory model asks for more",
    ),
];

/// Changes of a line, by name: the replaced text, and its replacement.
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
    /// The line and the three before it.
    context: String,
    text: String,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let only_list = args.iter().any(|arg| arg == "--list");
    let most = args.iter().position(|arg| arg == "--most");
    let most = most.map_or(usize::MAX, |at| args[at + 1].parse().expect("a number"));
    let wanted: Vec<&String> = args.iter().filter(|arg| arg.contains('.')).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let work = std::env::temp_dir().join(format!("tokenformer-mutants-{}", std::process::id()));
    let (mut originals, mut mutants) = (Vec::new(), Vec::new());
    for (file, _) in TESTS {
        let path = root.join("kernels").join(file);
        if (wanted.is_empty() || wanted.iter().any(|name| name == file)) && path.exists() {
            let text = read(&path);
            originals.push(Mutant {
                file,
                line: 0,
                rule: "nothing",
                from: "as it is".into(),
                context: String::new(),
                text: text.clone(),
            });
            mutants.extend(spread(mutants_of(file, &text), most));
        }
    }
    println!("{} mutants", mutants.len());
    if only_list {
        mutants
            .iter()
            .for_each(|mutant| println!("{}", mutant.shown()));
        return ExitCode::SUCCESS;
    }
    let mut trial = Trial {
        root,
        work: &work,
        programs: test_programs(root),
        counts: BTreeMap::new(),
        survivors: 0,
    };
    for original in &originals {
        let built = trial.build(std::slice::from_ref(original), Checks::Bounds);
        assert!(built, "{} compiles", original.shown());
        let failure = trial.failure(original, 0, Checks::Bounds);
        assert_eq!(failure, None, "the tests pass on {}", original.shown());
    }
    for batch in mutants
        .chunk_by(|a, b| a.file == b.file)
        .flat_map(|file| file.chunks(BATCH))
    {
        trial.run(batch);
    }
    let (counts, survivors) = (trial.counts, trial.survivors);
    let _ = std::fs::remove_dir_all(&work);
    println!(
        "\n| kernels | change | mutants | caught | by AddressSanitizer | compute the same |\n|---|---|---|---|---|---|"
    );
    for ((file, rule), [all, caught, sanitized, same]) in &counts {
        println!("| `{file}` | {rule} | {all} | {caught} | {sanitized} | {same} |");
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
                        context: context(&lines, number),
                        text: all.join("\n") + "\n",
                    });
                }
            }
        }
    }
    found
}

fn context(lines: &[&str], number: usize) -> String {
    let shown = lines[number.saturating_sub(3)..=number].iter();
    shown.map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}

/// At most `most` mutants of each rule, from all over the file.
fn spread(mutants: Vec<Mutant>, most: usize) -> Vec<Mutant> {
    let mut all: BTreeMap<&str, Vec<Mutant>> = BTreeMap::new();
    for mutant in mutants {
        all.entry(mutant.rule).or_default().push(mutant);
    }
    let some = all.into_values().flat_map(|list| {
        let step = list.len().div_ceil(most).max(1);
        list.into_iter().step_by(step)
    });
    some.collect()
}

impl Mutant {
    fn shown(&self) -> String {
        format!("{}:{}: {}: {}", self.file, self.line, self.rule, self.from)
    }

    fn reason_to_survive(&self) -> Option<&'static str> {
        let is_it = |(file, part, rule, _): &&(&str, &str, &str, &str)| {
            *file == self.file && *rule == self.rule && self.context.contains(part)
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

/// What emulated kernels are built with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checks {
    /// A trap at an index beyond a local array.
    Bounds,
    /// AddressSanitizer, which takes many times as long.
    Addresses,
}

impl Checks {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Bounds => &["-fsanitize=bounds", "-fsanitize-undefined-trap-on-error"],
            Self::Addresses => &["-fsanitize=address"],
        }
    }
}

/// How a mutant is caught that reads or writes beyond the end without consequence.
const SANITIZED: &str = "AddressSanitizer";

/// Mutants that are built together.
const BATCH: usize = 12;

struct Trial<'a> {
    root: &'a Path,
    work: &'a Path,
    programs: BTreeMap<String, PathBuf>,
    /// Mutants, caught ones, those that only AddressSanitizer caught, and those that compute the same, by file and rule.
    counts: BTreeMap<(&'static str, &'static str), [usize; 4]>,
    survivors: usize,
}

impl Trial<'_> {
    /// Tries mutants of a file.
    fn run(&mut self, batch: &[Mutant]) {
        if self.build(batch, Checks::Bounds) {
            let mut left = Vec::new();
            for (number, mutant) in batch.iter().enumerate() {
                let started = Instant::now();
                let outcome = self.failure(mutant, number, Checks::Bounds);
                if outcome.is_none() && mutant.reason_to_survive().is_none() {
                    left.push(mutant);
                } else {
                    self.note(mutant, outcome, started.elapsed());
                }
            }
            for mutant in left {
                let started = Instant::now();
                let built = self.build(std::slice::from_ref(mutant), Checks::Addresses);
                assert!(built, "{} compiles with AddressSanitizer", mutant.shown());
                let outcome = self.failure(mutant, 0, Checks::Addresses);
                self.note(mutant, outcome.map(|_| SANITIZED), started.elapsed());
            }
        } else if let [mutant] = batch {
            self.note(mutant, Some("does not compile"), Duration::ZERO);
        } else {
            let (first, second) = batch.split_at(batch.len() / 2);
            self.run(first);
            self.run(second);
        }
    }

    fn note(&mut self, mutant: &Mutant, outcome: Option<&'static str>, took: Duration) {
        let count = self.counts.entry((mutant.file, mutant.rule)).or_default();
        count[0] += 1;
        match (outcome, mutant.reason_to_survive()) {
            (Some(how), _) => {
                count[if how == SANITIZED { 2 } else { 1 }] += 1;
                println!(
                    "caught   {} ({how}, {:.1} s)",
                    mutant.shown(),
                    took.as_secs_f32()
                );
            }
            (None, Some(why)) => {
                count[3] += 1;
                println!("the same {} ({why})", mutant.shown());
            }
            (None, None) => {
                self.survivors += 1;
                println!("SURVIVED {}", mutant.shown());
            }
        }
    }

    fn library(&self) -> PathBuf {
        self.work.join("mutants.so")
    }

    /// Builds a library of the kernels and their variants, each mutant in a namespace; false if it does not compile.
    fn build(&self, batch: &[Mutant], checks: Checks) -> bool {
        std::fs::create_dir_all(self.work).expect("a temporary folder");
        let mut all = String::new();
        for (number, mutant) in batch.iter().enumerate() {
            let name = format!("{number}-{}", mutant.file);
            std::fs::write(self.work.join(&name), &mutant.text).expect("a mutant");
            all += "#undef EMULATED_VARIANT\n";
            all += &format!("#define EMULATED_VARIANT {number}\nnamespace mutant_{number} {{\n");
            all += &format!("#include \"{name}\"\n");
            if mutant.file == "prelude.cuh" {
                let users = ["rows", "theta", "attention_rows", "loss", "optimizer"];
                for user in users {
                    all += &format!("namespace {user}_cu {{\n#include \"{user}.cu\"\n}}\n");
                }
            }
            all += "}\n";
        }
        std::fs::write(self.work.join("mutants.inc"), all).expect("a list of mutants");
        let built = Command::new("c++")
            .args([
                "-std=c++17",
                "-O1",
                "-w",
                "-shared",
                "-fPIC",
                "-fno-gnu-unique",
            ])
            .args(checks.flags())
            .args(left_out(batch[0].file))
            .args([
                "-DEMULATED_MUTANTS=\"mutants.inc\"",
                "-fvisibility=hidden",
                "-I",
            ])
            .arg(self.root.join("emulator"))
            .arg("-I")
            .arg(self.root.join("kernels"))
            .arg("-I")
            .arg(self.work)
            .arg(self.root.join("emulator/emulated.cpp"))
            .arg("-o")
            .arg(self.library())
            .stderr(Stdio::null())
            .status()
            .expect("a C++ compiler");
        built.success()
    }

    /// How the tests caught a mutant of the library, or `None` if they passed.
    fn failure(&self, mutant: &Mutant, number: usize, checks: Checks) -> Option<&'static str> {
        let (_, tests) = TESTS.iter().find(|(file, _)| *file == mutant.file)?;
        tests.iter().find_map(|(program, filter)| {
            let program = self.programs.get(*program);
            let program = program.unwrap_or_else(|| panic!("no tests of {}", mutant.file));
            failure(program, filter, &self.library(), number, checks)
        })
    }
}

/// Kernels that the tests of a file do not need.
fn left_out(file: &str) -> &'static [&'static str] {
    match file {
        "flash_attention.cu" => &["-DONLY_TENSOR_CORES", "-DWITHOUT_GEMM"],
        "gemm.cu" => &["-DONLY_TENSOR_CORES", "-DWITHOUT_FLASH_ATTENTION"],
        _ => &["-DWITHOUT_FLASH_ATTENTION", "-DWITHOUT_GEMM"],
    }
}

/// How a test program fails on a library of kernels. The limit is of processor time, which does not depend on what else
/// the machine does.
fn failure(
    program: &Path,
    filter: &str,
    library: &Path,
    variant: usize,
    checks: Checks,
) -> Option<&'static str> {
    /// The signal of a process that has used its processor time.
    const SIGXCPU: i32 = 24;
    let mut command = Command::new("sh");
    let longest = match checks {
        Checks::Bounds => "60",
        Checks::Addresses => {
            // It has to be loaded before the test program, which is built without it.
            let options = "detect_leaks=0,detect_stack_use_after_return=0";
            command.env("LD_PRELOAD", address_sanitizer());
            command.env("ASAN_OPTIONS", options);
            "1800"
        }
    };
    let status = command
        .args([
            "-c",
            "ulimit -S -t \"$1\"; shift; exec \"$@\"",
            "sh",
            longest,
        ])
        .arg(program)
        .arg(filter)
        .env("TOKENFORMER_EMULATED_KERNELS", library)
        .env("TOKENFORMER_EMULATED_VARIANT", variant.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("a test program");
    match (status.success(), status.signal()) {
        (true, _) => None,
        (false, Some(SIGXCPU)) => Some("did not end"),
        (false, Some(_)) => Some("crashed"),
        (false, None) => Some("test failed"),
    }
}

/// The library of AddressSanitizer that belongs to the C++ compiler.
fn address_sanitizer() -> String {
    let found = Command::new("c++")
        .arg("-print-file-name=libasan.so")
        .output()
        .expect("a C++ compiler");
    String::from_utf8_lossy(&found.stdout).trim().to_string()
}

//! What the tests of the command line share: a dataset made from generated text, a recipe that trains in
//! about a second, and ways to run, stop and compare runs.
#![allow(
    dead_code,
    reason = "each test binary uses its own part of this module"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program under test.
pub const BIN: &str = env!("CARGO_BIN_EXE_tokenformer");

/// Context of the tiny model.
pub const CONTEXT: usize = 32;

/// A small generator of random numbers (SplitMix64); equal seeds give equal numbers.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// About `bytes` of made-up sentences.
pub fn text(seed: u64, bytes: usize) -> String {
    const SYLLABLES: [&str; 16] = [
        "ka", "to", "mi", "ren", "sol", "va", "du", "pel", "ni", "gor", "é", "lum", "ta", "shi",
        "bra", "o",
    ];
    let mut random = Random(seed);
    // A vocabulary of a few words, so that there is something to learn.
    let words: Vec<String> = (0..60)
        .map(|_| {
            (0..=random.below(3))
                .map(|_| SYLLABLES[random.below(16) as usize])
                .collect()
        })
        .collect();
    let mut text = String::new();
    while text.len() < bytes {
        for _ in 0..4 + random.below(8) {
            let (a, b) = (random.below(60), random.below(60));
            text += &words[a.min(b) as usize];
            text.push(' ');
        }
        text.truncate(text.len() - 1);
        text += ".\n";
    }
    text
}

/// A temporary folder for a test, with a dataset in `data`.
pub struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// An empty folder.
    pub fn empty() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// A folder with a dataset of bytes.
    pub fn new() -> Self {
        let lab = Self::empty();
        lab.prepare("data", 1);
        lab
    }

    /// Prepares a dataset of bytes from text of a seed.
    pub fn prepare(&self, name: &str, seed: u64) {
        let source = self.path(&format!("{name}.txt"));
        fs::write(&source, text(seed, 30_000)).expect("room for a text");
        let out = self.path(name);
        succeed(lab_command(
            self,
            &[
                "data",
                "prepare",
                "--tokenizer",
                "bytes",
                "--input",
                text_of(&source),
                "--out",
                text_of(&out),
            ],
        ));
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and returns its path as text.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).expect("room for a file");
        text_of(&path).to_string()
    }

    /// The tiny recipe, with `more` at its end, as the file `name`.
    pub fn recipe(&self, name: &str, growths: &str) -> String {
        let data = self.path("data");
        self.file(name, format!("{}{growths}", tiny(text_of(&data))))
    }

    /// The tiny recipe of a plain Transformer, with `growths` at its end, as the file `name`.
    pub fn plain_recipe(&self, name: &str, growths: &str) -> String {
        let data = self.path("data");
        let recipe = recipe_of(text_of(&data), PLAIN);
        self.file(name, format!("{recipe}{growths}"))
    }

    /// The program, to be run in this folder.
    pub fn command(&self, args: &[&str]) -> Command {
        lab_command(self, args)
    }

    /// `train` with a recipe into a run directory.
    pub fn train(&self, recipe: &str, out: &str, more: &[&str]) -> Command {
        let mut args = vec!["train", "--config", recipe, "--out", out];
        args.extend(more);
        if !more.contains(&"--threads") {
            // Runs of several tests share the cores; by promise nothing else depends on it.
            args.extend(["--threads", "1"]);
        }
        lab_command(self, &args)
    }
}

fn lab_command(lab: &Lab, args: &[&str]) -> Command {
    let mut command = Command::new(BIN);
    command
        .args(args)
        .current_dir(lab.dir.path())
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null());
    hear_signals(&mut command);
    command
}

/// Lets the child hear the signals that tests send it. A shell ignores Ctrl-C for the background jobs of a script, the tests
/// inherit that, and the program would respect it.
pub fn hear_signals(command: &mut Command) {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let reset = || {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
                // SAFETY: `signal` may be called between fork and exec, and the default needs no handler.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            Ok(())
        };
        // SAFETY: the closure only calls `signal`, which is safe in a forked child, and allocates nothing.
        unsafe { command.pre_exec(reset) };
    }
    #[cfg(not(unix))]
    let _ = command;
}

/// A path as text; the paths of these tests are.
pub fn text_of(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// A growth in width and depth with its own schedule, at a step without a planned checkpoint.
pub const GROWTH: &str = r#"
[[grow]]
at_step = 13
qkv = "+8"
proj = "+8"
ffn = "+24"
layers = 1

[grow.schedule]
shape = "wsd"
lr = 4e-3
warmup_steps = 3
"#;

/// A TokenFormer for [`tiny`].
const SITES: &str = "preset = \"nano\"\nslots = { qkv = 16, proj = 16, ffn = 48 }";

/// A plain Transformer that has everything which a TokenFormer does not have.
const PLAIN: &str = "preset = \"gpt-nano\"\nmlp_hidden = 48\nbias = true\npositions = \"learned\"\n\
                     block_norm = \"affine\"\nhead = \"untied\"";

/// A recipe that trains 30 steps of a TokenFormer of a few thousand parameters; records and checkpoints fall on
/// different steps, so that sums are carried over a resume; around a growth every step is recorded.
pub fn tiny(data: &str) -> String {
    recipe_of(data, SITES)
}

/// Makes the folder `name` with the results of a study: either size decides the loss, and little text is enough, or
/// the other way round.
pub fn evidence(lab: &Lab, name: &str, size_matters: bool) {
    let mut ends = Vec::new();
    let (a, b) = if size_matters {
        (4.0, 0.01)
    } else {
        (0.001, 4.0)
    };
    for size in [1e4_f64, 3e4, 1e5, 3e5, 1e6] {
        for tokens in [1e3_f64, 4e3, 1.6e4, 6.4e4] {
            let loss = 1.0 + a * (size / 3e4).powf(-0.5) + b * (tokens / 4e3).powf(-0.5);
            ends.push(serde_json::json!({
                "arm": format!("{size}"), "size": format!("{tokens}"), "seed": 1, "tokenformer": true,
                "stages": [[size, tokens]], "loss": loss,
            }));
        }
    }
    fs::create_dir(lab.path(name)).expect("a new folder");
    let study = serde_json::json!({ "ends": ends }).to_string();
    fs::write(lab.path(name).join("study.json"), study).expect("room for a file");
}

/// The tiny recipe at a constant rate, with two growths that come when they pay.
pub fn planned(lab: &Lab, name: &str, evidence: &str) -> String {
    let data = lab.path("data");
    let constant = "lr = 5e-3\nshape = \"constant\"";
    let recipe = tiny(text_of(&data)).replace("lr = 5e-3", constant);
    lab.file(
        name,
        format!(
            r#"{recipe}
[planner]
evidence = ["{evidence}"]

[[planner.grow]]
qkv = "+16"
proj = "+16"
ffn = "+48"

[[planner.grow]]
ffn = "+16"
"#
        ),
    )
}

fn recipe_of(data: &str, model: &str) -> String {
    format!(
        r#"
seed = 7

[data]
dir = "{data}"

[model]
{model}
width = 32
layers = 2
heads = 2
context = {CONTEXT}

[train]
steps = 30
batch = 4
accumulate = 2

[schedule]
lr = 5e-3
warmup_steps = 5

[eval]
every = 6
tokens = 256

[sample]
every = 10
tokens = 12
prompt = "ka"

[checkpoint]
every = 4
keep = 2

[log]
every = 3
"#
    )
}

/// What a finished program left: exit code, standard output, standard error.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let ran = Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert!(
            !ran.out.contains("panicked at") && !ran.err.contains("panicked at"),
            "a panic: {ran:#?}"
        );
        ran
    }
}

/// Runs to the end.
pub fn run(mut command: Command) -> Ran {
    command.output().expect("the program starts").into()
}

/// Runs to the end, which must be a good one.
pub fn succeed(command: Command) -> Ran {
    let shown = format!("{command:?}");
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{shown}: {ran:#?}");
    ran
}

/// Runs to the end, which must be exit code `code` with a message that holds each of `parts` and says what
/// helps.
pub fn fail(command: Command, code: i32, parts: &[&str]) -> Ran {
    let shown = format!("{command:?}");
    let ran = run(command);
    assert_eq!(ran.code, Some(code), "{shown}: {ran:#?}");
    for part in parts {
        assert!(
            ran.err.contains(part),
            "{shown}: no {part:?} in\n{}",
            ran.err
        );
    }
    let has_help = ran.err.contains("help: ") || ran.err.contains("try '--help'");
    assert!(has_help, "{shown}: no help in\n{}", ran.err);
    ran
}

/// Lines of `metrics.jsonl` without remarks and without what a clock measured: they must be equal, byte for
/// byte, in equal runs.
pub fn loss_columns(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("a run has records");
    let lines = text.lines().filter(|l| !l.contains(r#""kind":"note""#));
    lines
        .map(
            |line| match (line.find(r#""step_ms""#), line.find(r#""skipped""#)) {
                (Some(from), Some(to)) => format!("{}{}", &line[..from], &line[to..]),
                _ => line.to_string(),
            },
        )
        .collect()
}

/// Every file below a folder, by its path in it.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("below the folder");
                found.insert(text_of(name).to_string(), fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// Everything of a run that must be equal in equal runs: checkpoints, pointers, records.
#[derive(PartialEq, Eq)]
pub struct Remains {
    checkpoints: BTreeMap<String, Vec<u8>>,
    pointers: [Vec<u8>; 3],
    records: Vec<String>,
}

impl Remains {
    /// Of a finished run.
    pub fn of(run: &Path) -> Self {
        let pointer = |name| fs::read(run.join(name)).unwrap_or_default();
        Self {
            checkpoints: files(&run.join("checkpoints")),
            pointers: ["latest", "best", "best-ema"].map(pointer),
            records: loss_columns(run),
        }
    }

    /// The same, without checkpoints that are not among those of `other`: an interruption saves one more,
    /// which may be kept.
    pub fn shared_with(mut self, other: &Self) -> Self {
        self.checkpoints
            .retain(|name, _| other.checkpoints.contains_key(name));
        self
    }

    /// Fails with the names of what differs.
    pub fn assert_equal(&self, other: &Self, what: &str) {
        let names = |r: &Self| r.checkpoints.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(other), "{what}: files of checkpoints");
        for (name, bytes) in &self.checkpoints {
            assert!(bytes == &other.checkpoints[name], "{what}: {name} differs");
        }
        assert_eq!(
            self.pointers, other.pointers,
            "{what}: latest, best, best-ema"
        );
        for (mine, theirs) in self.records.iter().zip(&other.records) {
            assert_eq!(mine, theirs, "{what}: records");
        }
        let counts = (self.records.len(), other.records.len());
        assert_eq!(counts.0, counts.1, "{what}: number of records");
    }
}

/// The newest checkpoint's folder, by name.
pub fn newest(run: &Path) -> PathBuf {
    let checkpoints = fs::read_dir(run.join("checkpoints")).expect("checkpoints");
    let dirs = checkpoints.map(|entry| entry.expect("an entry").path());
    let named = |p: &PathBuf| text_of(p).contains("/step-");
    dirs.filter(named).max().expect("a checkpoint")
}

/// Standard output as JSON.
pub fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("not JSON: {e}\n{}", ran.out))
}

/// Copies the model of `run` to the folder `to` without its hashes, one number of its embedding being `number`.
pub fn forge(lab: &Lab, to: &str, row: usize, number: f32) {
    let (from, to) = (newest(&lab.path("run")), lab.path(to));
    fs::create_dir(&to).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let weights = to.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let embedding = &tensors["embedding"];
    let width = embedding["shape"][1].as_u64().unwrap() as usize;
    let start = embedding["data_offsets"][0].as_u64().unwrap() as usize;
    let at = 8 + header + start + (row * width + 5) * 4;
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
}

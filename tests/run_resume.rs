//! A run that is killed or stopped at any moment and then resumed ends with the bytes of an uninterrupted one.
#![cfg(unix)]

mod common;

use common::{
    GROWTH, Lab, Ran, Random, Remains, evidence, fail, newest, planned, run, succeed, text_of,
};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Two growths with controls. The `tau` of the first still moves during the control of the second, whose old tokens
/// then stand still.
const GROWTHS: &str = r#"
[[grow]]
at_step = 13
control = 4
qkv = "+8"
proj = "+8"
ffn = "+24"
layers = 1
tau = "anneal:10"

[grow.schedule]
shape = "wsd"
lr = 4e-3
warmup_steps = 3

[[grow]]
at_step = 22
control = 6
ffn = "+16"
freeze_old = true
"#;

/// Growths of a plain Transformer: new blocks that add nothing, then copies, while all other arrays are frozen. The
/// moments of the optimizer are rounded.
const PLAIN_GROWTHS: &str = r#"
[[grow]]
at_step = 13
layers = 1

[grow.schedule]
shape = "wsd"
lr = 4e-3
warmup_steps = 3

[[grow]]
at_step = 22
layers = 2
blocks = "copy"
freeze_old = true

[optimizer]
moments = "bf16"
"#;

/// The moment at which a run is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So many microseconds after its start.
    After(u64),
    /// So many microseconds after a checkpoint is being written, the n-th time.
    Writing(u64, u64),
    /// So many microseconds after the records of the step before the growth, the first number, appear.
    Growing(u64, u64),
}

impl Moment {
    fn draw(random: &mut Random, grows_at: u64, run_us: u64) -> Self {
        match random.below(3) {
            0 => Self::After(random.below(run_us)),
            1 => Self::Writing(random.below(8), random.below(4_000)),
            _ => Self::Growing(grows_at, random.below(40_000)),
        }
    }

    /// Waits for the moment, or the end of the run.
    fn wait(self, child: &mut Child, out: &Path) {
        let mut ended = || child.try_wait().expect("a child").is_some();
        let micros = match self {
            Self::After(micros) => micros,
            Self::Writing(nth, micros) => {
                for _ in 0..=nth {
                    while is_writing(out) && !ended() {}
                    while !is_writing(out) && !ended() {}
                }
                micros
            }
            Self::Growing(step, micros) => {
                let mark = format!(r#""kind":"train","step":{step},"#);
                let before = |text: String| text.contains(&mark);
                while !fs::read_to_string(out.join("metrics.jsonl")).is_ok_and(before) && !ended() {
                    std::thread::sleep(Duration::from_micros(200));
                }
                micros
            }
        };
        let started = Instant::now();
        while started.elapsed() < Duration::from_micros(micros) && !ended() {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn is_writing(out: &Path) -> bool {
    let Ok(entries) = fs::read_dir(out.join("checkpoints")) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with(".tmp-step-")
    })
}

fn spawn(mut command: Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// Kills runs of a recipe that grows at a step at random moments, resumes each, and compares what it leaves; returns how
/// many were alive when they were killed.
fn kill_and_resume(lab: &Lab, recipe: &str, grows_at: u64, trials: u64, seed: u64) -> u64 {
    let started = Instant::now();
    succeed(lab.train(recipe, "whole", &[]));
    let run_us = started.elapsed().as_micros() as u64;
    let whole = Remains::of(&lab.path("whole"));

    let mut killed = 0;
    for trial in 0..trials {
        let trial_seed = seed.wrapping_add(trial);
        let mut random = Random(trial_seed);
        let out = format!("run-{trial}");
        let mut moments = Vec::new();
        for _ in 0..1 + random.below(3) {
            let moment = Moment::draw(&mut random, grows_at, run_us);
            moments.push(moment);
            let mut child = spawn(lab.train(recipe, &out, &[]));
            moment.wait(&mut child, &lab.path(&out));
            killed += u64::from(child.try_wait().expect("a child").is_none());
            child.kill().expect("a child");
            let ran: Ran = child.wait_with_output().expect("a child").into();
            assert!(
                matches!(ran.code, None | Some(0)),
                "seed {trial_seed}, {moments:?}: {ran:#?}"
            );
        }
        let what = format!("trial {trial}, seed {trial_seed}, killed at {moments:?}");
        eprintln!("{what}");
        let ran = run(lab.train(recipe, &out, &[]));
        assert_eq!(ran.code, Some(0), "{what}: {ran:#?}");
        Remains::of(&lab.path(&out)).assert_equal(&whole, &what);
        fs::remove_dir_all(lab.path(&out)).expect("the run is there");
    }
    killed
}

/// As [`kill_and_resume`], of a TokenFormer.
fn kill_sites(trials: u64, seed: u64) -> u64 {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTHS);
    kill_and_resume(&lab, &recipe, 13, trials, seed)
}

#[test]
fn killed_runs_grow_when_they_would_have() {
    let lab = Lab::new();
    evidence(&lab, "evidence", true);
    let recipe = planned(&lab, "recipe.toml", "evidence");
    assert!(kill_and_resume(&lab, &recipe, 18, 3, number("SEED", 42)) > 0);
    let records = fs::read_to_string(lab.path("whole").join("metrics.jsonl")).expect("records");
    assert_eq!(records.matches(r#""kind":"grow""#).count(), 2);
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

#[test]
fn killed_runs_end_with_the_same_bytes() {
    // Moments vary with the machine in any case; the seed makes their kinds the same.
    assert!(kill_sites(3, number("SEED", 40)) > 0);
}

#[test]
fn killed_runs_of_a_plain_transformer_end_with_the_same_bytes() {
    let lab = Lab::new();
    let recipe = lab.plain_recipe("recipe.toml", PLAIN_GROWTHS);
    assert!(kill_and_resume(&lab, &recipe, 13, 3, number("SEED", 41)) > 0);
}

/// `TRIALS=100 SEED=1 cargo test --test run_resume -- --ignored --nocapture`
#[test]
#[ignore = "takes a minute; TRIALS and SEED choose what it does"]
fn stress_killed_runs_end_with_the_same_bytes() {
    let trials = number("TRIALS", 25);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number("SEED", clock.map_or(0, |d| d.as_secs()));
    let killed = kill_sites(trials, seed);
    eprintln!("{trials} trials from seed {seed}, {killed} kills");
    assert!(killed >= trials / 2, "only {killed} kills hit a living run");
}

#[test]
fn a_run_killed_before_its_first_checkpoint_begins_again() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "whole", &[]));
    succeed(lab.train(&recipe, "run", &[]));
    // What is there right after the first steps.
    let records = lab.path("run").join("metrics.jsonl");
    let text = fs::read_to_string(&records).expect("records");
    let first: String = text.lines().take(2).map(|l| format!("{l}\n")).collect();
    fs::write(&records, first).expect("records");
    fs::remove_dir_all(lab.path("run").join("checkpoints")).expect("checkpoints");
    for pointer in ["latest", "best"] {
        fs::remove_file(lab.path("run").join(pointer)).expect("a pointer");
    }
    succeed(lab.train(&recipe, "run", &[]));
    Remains::of(&lab.path("run")).assert_equal(&Remains::of(&lab.path("whole")), "killed early");
}

#[test]
fn pointers_that_a_kill_left_behind_catch_up() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    succeed(lab.train(&recipe, "whole", &[]));
    let whole = Remains::of(&lab.path("whole"));
    // Killed between the last checkpoint and each pointer.
    for pointer in ["latest", "best"] {
        fs::remove_file(lab.path("whole").join(pointer)).expect("a pointer");
    }
    succeed(lab.train(&recipe, "whole", &[]));
    Remains::of(&lab.path("whole")).assert_equal(&whole, "pointers");
}

#[test]
fn ctrl_c_saves_says_how_to_go_on_and_changes_nothing() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTHS);
    succeed(lab.train(&recipe, "whole", &[]));
    let whole = Remains::of(&lab.path("whole"));
    for (name, step) in [("INT", 3), ("TERM", 13)] {
        // On a busy machine the run may end before the signal comes; then the test repeats it.
        let stopped = (0..20).find_map(|attempt| {
            let out = format!("run-{name}-{attempt}");
            let mut child = spawn(lab.train(&recipe, &out, &[]));
            let metrics = lab.path(&out).join("metrics.jsonl");
            let mark = format!(r#""kind":"train","step":{step},"#);
            while !fs::read_to_string(&metrics).is_ok_and(|text| text.contains(&mark)) {
                assert!(child.try_wait().expect("a child").is_none(), "{out} ended");
                std::thread::sleep(Duration::from_micros(300));
            }
            signal(&child, name);
            let ran: Ran = child.wait_with_output().expect("a child").into();
            assert_eq!(ran.code, Some(0), "{ran:#?}");
            let stopped = !ran.out.contains("done after 30 steps");
            stopped.then_some((out, ran))
        });
        let (out, ran) = stopped.expect("a run that is stopped before it ends");
        assert!(ran.out.contains("nothing is lost"), "{ran:#?}");
        let go_on = (ran.out.lines())
            .find_map(|line| line.trim().strip_prefix("tokenformer "))
            .unwrap_or_else(|| panic!("no command to go on: {ran:#?}"));
        let args: Vec<&str> = go_on.split(' ').collect();
        succeed(lab.command(&args));
        let what = format!("stopped by SIG{name}");
        let remains = Remains::of(&lab.path(&out)).shared_with(&whole);
        remains.assert_equal(&whole, &what);
    }
}

#[test]
fn two_runs_do_not_share_a_directory() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let mut first = spawn(lab.train(&recipe, "run", &["--set", "train.steps=100000"]));
    while !lab.path("run").join("metrics.jsonl").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    fail(
        lab.train(&recipe, "run", &[]),
        1,
        &["run: another process is using this run directory"],
    );
    first.kill().expect("a child");
    first.wait().expect("a child");
}

#[test]
fn a_branch_that_is_killed_goes_on_from_where_it_branched_off() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "base", &["--set", "train.steps=8"]));
    let from = newest(&lab.path("base"));
    let whole = ["--resume", text_of(&from)];
    succeed(lab.train(&recipe, "whole", &whole));

    let mut child = spawn(lab.train(&recipe, "branch", &whole));
    while !lab.path("branch").join("metrics.jsonl").exists() {
        std::thread::sleep(Duration::from_micros(100));
    }
    child.kill().expect("a child");
    child.wait().expect("a child");
    succeed(lab.train(&recipe, "branch", &[]));
    Remains::of(&lab.path("branch")).assert_equal(&Remains::of(&lab.path("whole")), "a branch");
}

#[test]
fn a_longer_recipe_trains_on() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    // A schedule and samples that do not depend on where the run ends.
    let train = |out: &str, steps: &str| {
        let steps = format!("train.steps={steps}");
        let fixed = [
            "--set",
            "schedule.shape=constant",
            "--set",
            "sample.tokens=0",
        ];
        succeed(lab.train(&recipe, out, &[&fixed[..], &["--set", &steps]].concat()));
    };
    train("whole", "24");
    train("run", "12");
    train("run", "24");
    let whole = Remains::of(&lab.path("whole"));
    Remains::of(&lab.path("run")).assert_equal(&whole, "12 steps, then 12 more");
}

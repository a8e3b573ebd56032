//! A run that is resumed with another recipe continues at the same position, and reports the differences.

mod common;

use common::{Lab, fail, json, newest, run, succeed, text_of};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokenformer_core::ModelConfig;
use tokenformer_core::device::{Device, Precision};
use tokenformer_cuda::{Cuda, Planned};
use tokenformer_train::memory::TrainingPlan;
use tokenformer_train::recipe::resolve;
use tokenformer_train::{Resume, Silent, Trainer, files, task};

/// Settings under which the weights stay as they are: the loss of a step tells which windows it read.
const STILL: [&str; 14] = [
    "--set",
    "schedule.lr=1e-30",
    "--set",
    "schedule.warmup_steps=0",
    "--set",
    "schedule.shape=constant",
    "--set",
    "optimizer.weight_decay=0",
    "--set",
    "log.every=1",
    "--set",
    "eval.every=0",
    "--set",
    "sample.tokens=0",
];

fn train_still(lab: &Lab, out: &str, [steps, batch, accumulate]: [u64; 3]) -> String {
    let recipe = lab.path("recipe.toml");
    let sets = [
        format!("train.steps={steps}"),
        format!("train.batch={batch}"),
        format!("train.accumulate={accumulate}"),
    ];
    let sets = sets.iter().flat_map(|set| ["--set", set.as_str()]);
    let more: Vec<&str> = STILL.into_iter().chain(sets).collect();
    succeed(lab.train(text_of(&recipe), out, &more)).err
}

/// Training losses by step.
fn losses(run: &Path) -> BTreeMap<u64, f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("records");
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    records
        .filter(|r: &Value| r["kind"] == "train")
        .map(|r| (r["step"].as_u64().unwrap(), r["loss"].as_f64().unwrap()))
        .collect()
}

#[test]
fn another_batch_or_accumulation_reads_on_where_the_run_stood() {
    let lab = Lab::new();
    lab.recipe("recipe.toml", "");
    // An epoch has about 840 windows, so that the runs come into the second one.
    train_still(&lab, "whole", [120, 8, 1]);
    let whole = losses(&lab.path("whole"));
    let per_window = |steps: std::ops::RangeInclusive<u64>| -> f64 {
        let count = steps.clone().count() as f64;
        steps.map(|step| whole[&step]).sum::<f64>() / count
    };
    let state = |run: &str| -> Value {
        let state = newest(&lab.path(run)).join("state.json");
        serde_json::from_slice(&fs::read(state).expect("a state")).expect("JSON")
    };
    assert_eq!(state("whole")["windows"], 960);

    // Half the windows per update: two updates read what one did.
    train_still(&lab, "half", [100, 8, 1]);
    let told = train_still(&lab, "half", [140, 4, 1]);
    assert!(
        told.contains("note: train.batch is 4 now, and was 8"),
        "{told}"
    );
    let half = losses(&lab.path("half"));
    for step in 101..=120 {
        let first = 101 + 2 * (step - 101);
        let mean = (half[&first] + half[&(first + 1)]) / 2.0;
        assert!((mean - whole[&step]).abs() < 1e-5, "step {step}: {mean}");
    }
    assert_eq!(state("half")["windows"], 960);

    // Twice as many, in larger micro-batches or in more of them.
    for (out, batch, accumulate, note) in [
        ("larger", 16, 1, "note: train.batch is 16 now, and was 8"),
        ("more", 8, 2, "note: train.accumulate is 2 now, and was 1"),
    ] {
        train_still(&lab, out, [100, 8, 1]);
        let told = train_still(&lab, out, [110, batch, accumulate]);
        assert!(told.contains(note), "{told}");
        let found = losses(&lab.path(out));
        for step in 101..=110 {
            let first = 101 + 2 * (step - 101);
            let expected = per_window(first..=first + 1);
            let got = found[&step];
            assert!((got - expected).abs() < 1e-5, "{out}, step {step}: {got}");
        }
        assert_eq!(state(out)["windows"], 960);
    }
}

#[test]
fn a_resume_says_what_is_other_than_before() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=6"]));
    let changed = [
        "train.steps=8",
        "train.precision=bf16",
        "schedule.lr=2e-3",
        "optimizer.clip=0.5",
        "eval.tokens=128",
    ];
    let more: Vec<&str> = changed.iter().flat_map(|set| ["--set", set]).collect();
    let told = succeed(lab.train(&recipe, "run", &more)).err;
    let lines = [
        "train.steps is 8 now, and was 6",
        "train.precision is \"bf16\" now, and was \"f32\"",
        "schedule.lr is 0.002 now, and was 0.005",
        "optimizer.clip is 0.5 now, and was 1.0",
        "eval.tokens is 128 now, and was 256",
    ];
    let records = fs::read_to_string(lab.path("run/metrics.jsonl")).expect("records");
    for line in lines {
        assert!(
            told.contains(&format!("note: {line}\n")),
            "no {line:?}: {told}"
        );
        let record = line.replace('"', "\\\"");
        assert!(records.contains(&record), "no {record:?}: {records}");
    }
    assert_eq!(
        told.matches(" now, and was ").count(),
        lines.len(),
        "{told}"
    );

    // Also of a run that branches off, whose recipe lies with the old one.
    let from = newest(&lab.path("run"));
    let branch = ["--resume", text_of(&from), "--set", "train.steps=9"];
    let told = succeed(lab.train(&recipe, "branch", &branch)).err;
    assert!(
        told.contains("note: train.steps is 9 now, and was 8"),
        "{told}"
    );
    // Nothing is said of what is the same.
    let told = succeed(lab.train("branch/config.toml", "branch", &[])).err;
    assert!(!told.contains(" now, and was "), "{told}");
}

/// The best of other tokens, or a checkpoint that lies elsewhere, is no rival of what is measured here.
#[test]
fn only_losses_on_the_same_tokens_are_compared() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let best = |out: &str| {
        let state = fs::read(newest(&lab.path(out)).join("state.json")).expect("a state");
        let state: Value = serde_json::from_slice(&state).expect("JSON");
        state["best"]["step"].as_u64()
    };
    // Weights that hardly move: which evaluation is the best depends on what it measures.
    let train = |out: &str, steps: &str, tokens: &str, more: &[&str]| {
        let (steps, tokens) = (
            format!("train.steps={steps}"),
            format!("eval.tokens={tokens}"),
        );
        let sets = [steps.as_str(), &tokens, "eval.every=0", "schedule.lr=1e-9"];
        let sets = sets.into_iter().flat_map(|set| ["--set", set]);
        let all: Vec<&str> = sets.chain(more.iter().copied()).collect();
        succeed(lab.train(&recipe, out, &all));
    };
    train("run", "2", "256", &[]);
    assert_eq!(best("run"), Some(2));
    // Other tokens: whatever their loss is, it is the best of them.
    for (steps, tokens) in [("4", "128"), ("6", "64"), ("8", "256")] {
        train("run", steps, tokens, &[]);
        assert_eq!(best("run"), steps.parse().ok());
    }
    // A run elsewhere begins with the checkpoint that it was given, and then knows only its own.
    let from = newest(&lab.path("run"));
    train("other", "10", "256", &["--resume", text_of(&from)]);
    assert!(lab.path("other/best").exists());
    let best = best("other").expect("a best");
    let here = format!("other/checkpoints/step-{best:08}");
    assert!(lab.path(&here).exists(), "{here}");
}

/// The prompt is refused before the first step, and a folder in the way of the pictures stops nothing.
#[test]
fn what_a_run_writes_beside_its_checkpoints_does_not_end_it() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let prompt = format!("sample.prompt={}", "ka ".repeat(40));
    let more = ["--set", "sample.tokens=4", "--set", &prompt];
    fail(
        lab.train(&recipe, "prompt", &more),
        2,
        &[
            "sample.prompt",
            "longer than the context",
            "sample.tokens = 0",
        ],
    );
    assert!(!lab.path("prompt/metrics.jsonl").exists());

    succeed(lab.train(&recipe, "run", &["--set", "train.steps=6"]));
    fs::remove_dir_all(lab.path("run/plots")).expect("the pictures");
    fs::write(lab.path("run/plots"), "a file").expect("a file");
    let ran = run(lab.train(&recipe, "run", &[]));
    // At the end there is no way around saying it.
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert_eq!(ran.err.matches("the report cannot be written").count(), 1);
    assert!(text_of(&newest(&lab.path("run"))).ends_with("step-00000030"));
}

#[test]
fn a_growth_that_is_refused_comes_after_a_checkpoint_and_can_be_tried_again() {
    let lab = Lab::new();
    let small = "[[grow]]\nat_step = 5\nffn = \"+8\"\n";
    // More than any machine has.
    let refused =
        "[[grow]]\nat_step = 7\nlayers = 16000\nffn = \"+16000000\"\nproj = \"+16000000\"\n";
    let problem = "the growth: not enough memory";
    let recipe = lab.recipe("run.toml", &format!("{small}{refused}"));
    // At first the growth before it is the next one, so that the run starts.
    fail(lab.train(&recipe, "run", &[]), 1, &[problem]);
    let at = newest(&lab.path("run"));
    assert!(at.ends_with("step-00000007"), "{}", at.display());
    // The same command comes to the same growth again.
    fail(lab.train(&recipe, "run", &[]), 1, &[problem]);
    // A smaller one is done from there.
    lab.recipe(
        "run.toml",
        &format!("{small}[[grow]]\nat_step = 7\nffn = \"+16\"\n"),
    );
    let ran = succeed(lab.train(&recipe, "run", &["--set", "train.steps=9"]));
    assert!(
        ran.err.contains("grown at step 7 by +16 ffn"),
        "{}",
        ran.err
    );
    let shown = lab.command(&["inspect", "run", "--json"]);
    assert_eq!(json(&succeed(shown))["state"]["stage"], 2);
}

/// What is faster was measured when the run began; another measurement does not change its precision.
#[test]
fn an_automatic_precision_stays_that_of_the_run() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    for precision in ["f32", "bf16"] {
        let steps = |steps| ["--set", steps, "--precision"];
        let begin = [&steps("train.steps=2")[..], &[precision]].concat();
        succeed(lab.train(&recipe, precision, &begin));
        let go_on = [&steps("train.steps=4")[..], &["auto"]].concat();
        let told = succeed(lab.train(&recipe, precision, &go_on)).err;
        let note = format!("--precision auto is {precision} here: the run has begun in it");
        assert!(told.contains(&note), "{told}");
        let left = fs::read_to_string(lab.path(precision).join("config.toml")).expect("a recipe");
        assert!(
            left.contains(&format!("precision = \"{precision}\"")),
            "{left}"
        );
        // Another run that starts from its checkpoint.
        let from = lab.path(precision);
        let from = text_of(&from);
        let other = format!("{precision}-other");
        let go_on = ["--resume", from, "--set", "train.steps=5"];
        let told = succeed(lab.train(
            &recipe,
            &other,
            &[&go_on[..], &["--precision", "auto"]].concat(),
        ));
        assert!(told.err.contains(&note), "{told:?}");
    }
}

/// A machine that has room for the model as it began, and not for what it has grown to.
#[test]
fn a_grown_run_is_resumed_only_where_it_has_room() {
    const SCRATCH: u64 = 32 << 20;
    let lab = Lab::new();
    let all = "[[grow]]\nat_step = 2\nffn = \"+4000\"\n";
    // What is frozen has no gradients and moments.
    let last = "[[grow]]\nat_step = 3\nffn = \"+8\"\nfreeze_old = true\n";
    for (name, growths) in [("all", all.to_string()), ("last", format!("{all}{last}"))] {
        let recipe = lab.recipe(&format!("{name}.toml"), &growths);
        let sets = ["train.steps=4", "train.batch=1"];
        let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        succeed(lab.train(&recipe, name, &more));
        let sets = sets.map(ToString::to_string);
        let resolved = resolve(Some(Path::new(&recipe)), &sets).expect("a recipe");
        let resumed = |bytes: u64| {
            let gpu = Planned::new("a GPU", (SCRATCH + bytes) as usize);
            let gpu: Arc<dyn Device> = Cuda::new(Arc::new(gpu), Precision::F32);
            let (mut silent, out) = (Silent, lab.path(name));
            let trainer = Trainer::new(&resolved, &out, &Resume::Auto, &gpu, &mut silent);
            trainer.err().map(|error| error.to_string())
        };
        let plan = |config: &ModelConfig| {
            let train = &resolved.recipe.train;
            let moments = resolved.recipe.optimizer.moments;
            TrainingPlan::new(
                config,
                train.batch,
                config.context,
                train.recompute,
                moments,
            )
            .total_bytes()
        };
        let task = task::open(&resolved.recipe).expect("a task");
        let grown = files::read_config(&newest(&lab.path(name))).expect("a model");
        let (fresh, grown) = (plan(task.config()), plan(&grown));
        assert!(fresh + (4 << 20) < grown, "{fresh} and {grown}");
        let told = resumed(fresh + (grown - fresh) * 2 / 3);
        match name {
            "all" => {
                let told = told.expect("too little memory");
                assert!(told.starts_with("this run: not enough memory"), "{told}");
            }
            _ => assert!(!told.is_some_and(|told| told.starts_with("this run"))),
        }
    }
}

#[test]
fn a_run_that_has_ended_keeps_the_recipe_that_trained_it() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &[]));
    let config = || fs::read_to_string(lab.path("run/config.toml")).expect("a recipe");
    let (trained, changed) = (config(), ["--set", "optimizer.clip=9.5"]);
    let told = succeed(lab.train(&recipe, "run", &changed)).err;
    assert!(told.contains("nothing left to train"), "{told}");
    assert_eq!(config(), trained);
    let report = fs::read_to_string(lab.path("run/report.html")).expect("a report");
    assert!(!report.contains("clip = 9.5"), "what trained no step");
    // With a step left it is the recipe of that step.
    let longer = [&changed[..], &["--set", "train.steps=31"]].concat();
    succeed(lab.train(&recipe, "run", &longer));
    assert!(config().contains("clip = 9.5"));
}

//! A run whose numbers are no longer finite stops with an error, and leaves a checkpoint from which it can be resumed.

mod common;

use common::{Lab, fail, files, json, newest, succeed, text_of};
use std::fs;
use std::path::Path;
use tokenformer_store::{DirWriter, SafetensorsFile};

/// A rate at which the first update makes the weights so large that every loss after it is not finite.
const OVERFLOW: [&str; 6] = [
    "--set",
    "schedule.lr=1e30",
    "--set",
    "schedule.warmup_steps=0",
    "--set",
    "schedule.shape=constant",
];

fn with<'a>(more: &[&'a str], sets: &[&'a str]) -> Vec<&'a str> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    more.iter().copied().chain(sets).collect()
}

fn checkpoints(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints")).expect("checkpoints");
    let mut names: Vec<String> = entries
        .map(|e| e.expect("an entry").file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn pointer(run: &Path, name: &str) -> String {
    fs::read_to_string(run.join(name))
        .expect("a pointer")
        .trim()
        .into()
}

#[test]
fn a_diverged_run_ends_with_an_error_and_a_checkpoint_to_go_on_from() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let run = lab.path("run");
    // With and without evaluations on the way; checkpoints are due in every step.
    for every in ["eval.every=6", "eval.every=0"] {
        let sets = [every, "checkpoint.every=1", "checkpoint.keep=1"];
        succeed(lab.train(
            &recipe,
            "run",
            &with(&[], &[&sets[..], &["train.steps=8"]].concat()),
        ));
        assert_eq!(checkpoints(&run).last().unwrap(), "step-00000008");

        let more = with(&OVERFLOW, &[&sets[..], &["train.max_skipped=3"]].concat());
        let problem = match every {
            "eval.every=0" => "diverged at step 12: 3 updates in a row were skipped",
            // Evaluated at step 12, before the third update in a row is skipped.
            _ => "diverged at step 12",
        };
        let ran = fail(
            lab.train(&recipe, "run", &more),
            1,
            &[problem, "schedule.lr", "run/checkpoints/step-00000008"],
        );
        assert_eq!(
            ran.err.matches("the update is skipped").count(),
            3,
            "{}",
            ran.err
        );
        let ended = fs::read_to_string(run.join("metrics.jsonl")).expect("records");
        assert!(
            ended.contains("ended: run: the run has diverged"),
            "{ended}"
        );

        // Step 9 was saved before its weights were known to be of no use.
        assert!(checkpoints(&run).contains(&"step-00000008".to_string()));
        assert_eq!(pointer(&run, "best"), "step-00000008");
        let good = "run/checkpoints/step-00000008";
        let args = ["eval", "--model", good, "--data", "data", "--json"];
        assert!(json(&succeed(lab.command(&args)))["loss"].is_f64());

        // What the message says can be done.
        let branch = ["--resume", good];
        succeed(lab.train(&recipe, "branch", &with(&branch, &["train.steps=10"])));
        for dir in ["run", "branch"] {
            fs::remove_dir_all(lab.path(dir)).expect("a run");
        }
    }
}

#[test]
fn a_run_that_diverged_between_checkpoints_goes_on_with_a_changed_recipe() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=8"]));
    // The default lets 20 updates be skipped; the evaluation at step 12 comes before.
    let ran = fail(
        lab.train(&recipe, "run", &OVERFLOW),
        1,
        &[
            "diverged at step 12: the held-out loss is not finite",
            "the same command with a changed recipe",
        ],
    );
    assert_eq!(
        ran.err.matches("the update is skipped").count(),
        3,
        "{}",
        ran.err
    );
    let run = lab.path("run");
    assert_eq!(checkpoints(&run), ["step-00000006", "step-00000008"]);
    assert_eq!(pointer(&run, "latest"), "step-00000008");
    let ran = succeed(lab.train(&recipe, "run", &["--set", "schedule.lr=1e-3"]));
    assert!(
        ran.err
            .contains("note: schedule.lr is 0.001 now, and was 1"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("skipped"), "{}", ran.err);
}

#[test]
fn the_default_number_of_skipped_updates_ends_a_run() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let sets = ["eval.every=0", "train.steps=100", "checkpoint.every=0"];
    let ran = fail(
        lab.train(&recipe, "run", &with(&OVERFLOW, &sets)),
        1,
        &[
            "diverged at step 21: 20 updates in a row were skipped",
            "begin anew",
        ],
    );
    assert_eq!(
        ran.err.matches("the update is skipped").count(),
        20,
        "{}",
        ran.err
    );
    let none = ["--set", "train.max_skipped=0"];
    fail(
        lab.train(&recipe, "other", &none),
        2,
        &["train.max_skipped", "at least 1"],
    );
}

/// The loss of the step itself is finite: it was computed before the update.
#[test]
fn weights_that_are_not_finite_are_not_saved() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let sets = [
        "optimizer.weight_decay=1e20",
        "train.steps=2",
        "eval.every=0",
        "checkpoint.every=1",
    ];
    let ran = fail(
        lab.train(&recipe, "run", &with(&OVERFLOW, &sets)),
        1,
        &["diverged at step 1: its weights are not finite"],
    );
    assert!(!ran.err.contains("skipped"), "{}", ran.err);
    assert_eq!(checkpoints(&lab.path("run")), Vec::<String>::new());
}

#[test]
fn a_run_does_not_go_on_from_weights_that_are_not_finite() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=8"]));
    let newest = newest(&lab.path("run"));
    let old = files(&newest);
    fs::remove_dir_all(&newest).expect("a checkpoint");
    let mut writer = DirWriter::begin(&newest, "checkpoint").expect("a folder");
    for (name, mut bytes) in old {
        if name == "manifest.json" {
            continue;
        }
        if name == "model.safetensors" {
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        writer.write_bytes(&name, &bytes).expect("room");
    }
    writer.commit().expect("a checkpoint");
    let file = SafetensorsFile::open(&newest.join("model.safetensors")).expect("weights");
    assert!(file.read_f32("final_norm.gain").is_ok());
    fail(
        lab.train(&recipe, "run", &[]),
        2,
        &[
            "step-00000008",
            "its weights are not finite",
            "NaN in ",
            "earlier checkpoint",
        ],
    );
    let from = lab.path("run/checkpoints/step-00000006");
    succeed(lab.train(&recipe, "on", &["--resume", text_of(&from)]));
}

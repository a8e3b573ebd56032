//! Folders that an earlier version of the program wrote are still read, trained on and grown.
//!
//! `tests/fixtures/v1` was written by version 0.1.0, whose `config.json` and `state.json` say `"version": 1`:
//! `run` is a run that was cut off after the checkpoint of step 10, grown at step 7, and `whole.jsonl` has the records
//! of the same run without a cut; `grown` is its checkpoint of step 5 after `grow --qkv +4 --ffn =40 --norm segment
//! --freeze-old`, and `grown.jsonl` has the records of a run without `[[grow]]` tables that went on from there.

mod common;

use common::{Lab, json, run, succeed};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A copy of the old folders, to be changed.
fn old_folders() -> Lab {
    let lab = Lab::empty();
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1"),
        &lab.path("."),
    );
    lab
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("room for a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), target).expect("room for a file");
            }
        }
    }
}

/// Kind, step, stage, loss and growth of every evaluation and growth. (Training losses are recorded closer around a planned
/// growth than they were.)
fn records(path: &Path) -> Vec<(String, Value, Value, Option<f64>, Value)> {
    let text = fs::read_to_string(path).expect("records");
    let values = text.lines().map(|line| serde_json::from_str(line).unwrap());
    values
        .filter(|r: &Value| r["kind"] == "eval" || r["kind"] == "grow")
        .map(|r| {
            let kind = r["kind"].as_str().expect("a kind").to_string();
            let growth = [&r["summary"], &r["max_logit_diff"], &r["params"]].map(Value::clone);
            let growth = Value::Array(growth.into());
            (
                kind,
                r["step"].clone(),
                r["stage"].clone(),
                r["loss"].as_f64(),
                growth,
            )
        })
        .collect()
}

/// Equal records, up to what the order of a sum can change in a loss.
fn assert_same(got: &Path, expected: &Path, from_step: u64) {
    let late = |path| {
        let records = records(path).into_iter();
        records
            .filter(|r| r.1.as_u64() > Some(from_step))
            .collect::<Vec<_>>()
    };
    let (got, expected) = (late(got), late(expected));
    assert!(!expected.is_empty());
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(
            (&got.0, &got.1, &got.2, &got.4),
            (&expected.0, &expected.1, &expected.2, &expected.4)
        );
        match (got.3, expected.3) {
            (Some(a), Some(b)) => assert!((a / b - 1.0).abs() < 1e-5, "{got:?}, {expected:?}"),
            (a, b) => assert_eq!(a, b),
        }
    }
}

#[test]
fn an_old_checkpoint_scores_as_it_did() {
    let lab = old_folders();
    for (model, loss) in [
        ("run/checkpoints/step-00000005", 5.142633377844901),
        ("run/checkpoints/step-00000010", 4.84911951627541),
        ("run", 4.84911951627541),
        ("grown", 5.142633377844901),
    ] {
        let args = [
            "eval", "--model", model, "--data", "data", "--tokens", "0", "--json",
        ];
        let got = json(&succeed(lab.command(&args)))["loss"].as_f64();
        let got = got.expect("a loss");
        assert!(
            (got / loss - 1.0).abs() < 1e-6,
            "{model}: {got}, was {loss}"
        );
    }
}

#[test]
fn an_old_run_goes_on_with_the_losses_it_would_have_had() {
    let lab = old_folders();
    succeed(lab.train("run/config.toml", "run", &[]));
    assert_same(&lab.path("run/metrics.jsonl"), &lab.path("whole.jsonl"), 0);
}

/// The old state counts batches; the position in the data does not depend on their size.
#[test]
fn an_old_run_goes_on_with_other_batches_where_it_stood() {
    let lab = old_folders();
    let other = ["--set", "train.batch=8", "--set", "train.accumulate=1"];
    let ran = succeed(lab.train("run/config.toml", "run", &other));
    for line in [
        "note: train.batch is 8 now, and was 4",
        "note: train.accumulate is 1 now, and was 2",
    ] {
        assert!(ran.err.contains(line), "no {line:?} in {}", ran.err);
    }
    assert_same(&lab.path("run/metrics.jsonl"), &lab.path("whole.jsonl"), 10);
}

/// Until the growth everything is unchanged; after it new tokens warm up and are clipped by a separate norm.
#[test]
fn an_old_checkpoint_from_before_a_growth_grows_and_trains_on() {
    let lab = old_folders();
    let from = ["--resume", "run/checkpoints/step-00000005"];
    succeed(lab.train("run/config.toml", "branch", &from));
    let late = |path: &Path| {
        let records = records(path).into_iter();
        records
            .filter(|r| r.1.as_u64() > Some(5))
            .collect::<Vec<_>>()
    };
    let got = late(&lab.path("branch/metrics.jsonl"));
    let old = late(&lab.path("whole.jsonl"));
    assert_eq!(got.len(), old.len());
    for (got, old) in got.iter().zip(&old) {
        assert_eq!(
            (&got.0, &got.1, &got.2, &got.4),
            (&old.0, &old.1, &old.2, &old.4)
        );
        let bar = if got.1.as_u64() <= Some(7) {
            1e-5
        } else {
            1e-2
        };
        if let (Some(a), Some(b)) = (got.3, old.3) {
            assert!((a / b - 1.0).abs() < bar, "{got:?}, {old:?}");
        }
    }
}

#[test]
fn an_old_frozen_growth_trains_on_as_it_would_have() {
    let lab = old_folders();
    let recipe = fs::read_to_string(lab.path("run/config.toml")).expect("a recipe");
    let (no_growth, _) = recipe.split_once("[[grow]]").expect("a growth");
    let recipe = lab.file("recipe.toml", no_growth);
    succeed(lab.train(&recipe, "on", &["--resume", "grown"]));
    assert_same(&lab.path("on/metrics.jsonl"), &lab.path("grown.jsonl"), 5);
}

#[test]
fn old_checkpoints_grow_and_keep_their_function() {
    let lab = old_folders();
    for from in ["run/checkpoints/step-00000005", "run", "grown"] {
        let args = [
            "grow", "--from", from, "--to", "more", "--ffn", "+8", "--layers", "+1", "--json",
        ];
        let report = json(&run(lab.command(&args)));
        assert_eq!(report["max_logit_diff"], 0.0, "{from}: {report}");
        fs::remove_dir_all(lab.path("more")).expect("a grown checkpoint");
    }
}

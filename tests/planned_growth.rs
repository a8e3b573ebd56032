//! Growths whose moments the planner finds while a run trains.

mod common;

use common::{Lab, evidence, fail, json, newest, planned, run, succeed, text_of};
use serde_json::Value;
use std::fs;

/// Steps of the growths of a run, and the remarks of its planner.
fn grown(lab: &Lab, name: &str) -> (Vec<u64>, Vec<String>) {
    let text = fs::read_to_string(lab.path(name).join("metrics.jsonl")).expect("records");
    let records = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let (mut steps, mut remarks) = (Vec::new(), Vec::new());
    for record in records {
        let step = record["step"].as_u64().expect("a step");
        let remark = record["text"]
            .as_str()
            .filter(|text| text.contains("[planner]"));
        remarks.extend(remark.map(ToString::to_string));
        if record["kind"] == "grow" {
            assert_eq!(record["max_logit_diff"], 0.0);
            steps.push(step);
        }
    }
    (steps, remarks)
}

#[test]
fn growths_come_when_they_pay_and_only_then() {
    let lab = Lab::new();
    evidence(&lab, "size-matters", true);
    let recipe = planned(&lab, "grows.toml", "size-matters");
    let told = succeed(lab.train(&recipe, "grows", &[])).err;
    // Three losses after the warm-up are the least; then there is a growth at each evaluation, until none is left.
    let (steps, remarks) = grown(&lab, "grows");
    assert_eq!(steps, [18, 24], "{told}");
    let unknown = remarks
        .iter()
        .filter(|text| text.ends_with("cannot be judged so far"));
    assert_eq!((remarks.len(), unknown.count()), (4, 2), "{remarks:?}");
    assert!(
        told.contains("pays now with a probability of 100 %"),
        "{told}"
    );
    let state = fs::read(newest(&lab.path("grows")).join("state.json")).expect("a state");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    let events: Vec<&Value> = state["growths"]
        .as_array()
        .expect("growths")
        .iter()
        .collect();
    assert!(
        events.iter().all(|past| past["event"]["planned"] == true),
        "{events:?}"
    );
    // From the growth on every update is recorded; before it, when it was not known, as elsewhere.
    let text = fs::read_to_string(lab.path("grows").join("metrics.jsonl")).expect("records");
    let recorded: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|record| record["kind"] == "train")
        .map(|record| record["step"].as_u64().expect("a step"))
        .collect();
    let expected: Vec<u64> = (3..=18).step_by(3).chain(19..=30).collect();
    assert_eq!(recorded, expected);
    // The recipe stays what was asked for.
    let kept = fs::read_to_string(lab.path("grows").join("config.toml")).expect("a recipe");
    assert!(
        kept.contains("[[planner.grow]]") && !kept.contains("[[grow]]"),
        "{kept}"
    );

    evidence(&lab, "text-matters", false);
    let recipe = planned(&lab, "waits.toml", "text-matters");
    succeed(lab.train(&recipe, "waits", &[]));
    let (steps, remarks) = grown(&lab, "waits");
    assert_eq!(steps, [0; 0]);
    assert_eq!(remarks.len(), 4, "{remarks:?}");
    for remark in &remarks[2..] {
        let share = remark
            .rsplit(' ')
            .nth(1)
            .and_then(|share| share.parse::<f64>().ok());
        assert!(share.is_some_and(|share| share < 20.0), "{remark}");
    }
}

#[test]
fn what_comes_to_the_evidence_later_does_not_move_a_growth() {
    let lab = Lab::new();
    evidence(&lab, "evidence", false);
    let recipe = planned(&lab, "recipe.toml", "evidence");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=20"]));
    fs::remove_dir_all(lab.path("evidence")).expect("the evidence");
    evidence(&lab, "evidence", true);
    succeed(lab.train(&recipe, "run", &[]));
    assert_eq!(grown(&lab, "run").0, [0; 0]);
    // A new run reads it as it is now.
    succeed(lab.train(&recipe, "other", &[]));
    assert_eq!(grown(&lab, "other").0, [18, 24]);
}

#[test]
fn a_branch_keeps_what_has_come_and_a_run_from_elsewhere_is_refused() {
    let lab = Lab::new();
    evidence(&lab, "evidence", true);
    let recipe = planned(&lab, "recipe.toml", "evidence");
    let first = ["--set", "train.steps=22", "--set", "checkpoint.keep=20"];
    succeed(lab.train(&recipe, "run", &first));
    assert_eq!(grown(&lab, "run").0, [18]);
    let args = [
        "train",
        "--branch-from",
        "run",
        "--decay",
        "6",
        "--out",
        "branch",
        "--threads",
        "1",
    ];
    succeed(lab.command(&args));
    assert_eq!(grown(&lab, "branch").0, [0; 0]);
    let kept = fs::read_to_string(lab.path("branch").join("config.toml")).expect("a recipe");
    assert_eq!(kept.matches("[[planner.grow]]").count(), 1);
    // Nothing of the planner is left where none of its growths has come, so that the recipe can be used elsewhere.
    let args = [
        "train",
        "--branch-from",
        "run/checkpoints/step-00000018",
        "--decay",
        "2",
        "--out",
        "early",
        "--threads",
        "1",
    ];
    succeed(lab.command(&args));
    fs::copy(lab.path("early/config.toml"), lab.path("early.toml")).expect("a recipe");
    succeed(lab.command(&["config", "show", "--config", "early.toml"]));

    let elsewhere = ["--resume", "run"];
    let parts = [
        "planner.grow",
        "records of the run's beginning are not here",
    ];
    fail(lab.train(&recipe, "elsewhere", &elsewhere), 2, &parts);
}

#[test]
fn a_plan_of_memory_has_all_growths() {
    let lab = Lab::new();
    evidence(&lab, "size-matters", true);
    let recipe = planned(&lab, "recipe.toml", "size-matters");
    let plan = json(&run(lab.command(&["inspect", "--plan", &recipe, "--json"])));
    let stages = plan["modes"][0]["stages"].as_array().expect("stages");
    let params: Vec<u64> = stages
        .iter()
        .map(|s| s["params"].as_u64().expect("a number"))
        .collect();
    assert!(
        params.len() == 3 && params[0] < params[1] && params[1] < params[2],
        "{params:?}"
    );
}

#[test]
fn what_a_planner_cannot_work_with_is_refused() {
    let lab = Lab::new();
    evidence(&lab, "size-matters", true);
    let recipe = planned(&lab, "recipe.toml", "size-matters");
    for (code, set, parts) in [
        (
            2,
            "schedule.shape=cosine",
            ["schedule.shape", "\"wsd\" or \"constant\""],
        ),
        (
            2,
            "eval.every=4",
            ["eval.every", "a multiple of log.every = 3"],
        ),
        (
            2,
            "planner.confidence=1.0",
            ["planner.confidence", "between 0 and 1"],
        ),
        (
            1,
            "planner.evidence=[\"nowhere\"]",
            ["nowhere", "has neither study.json nor metrics.jsonl"],
        ),
        (
            2,
            "planner.confidense=0.5",
            ["planner.confidense", "did you mean planner.confidence?"],
        ),
    ] {
        fail(lab.train(&recipe, "refused", &["--set", set]), code, &parts);
    }
    for (growth, parts) in [
        ("", ["planner.grow", "growths that add something"]),
        ("ffn = \"=64\"", ["planner.grow", "write amounts as \"+N\""]),
        (
            "ffn = \"+16\"\nfreeze_old = true",
            ["planner.grow", "all of the model learns"],
        ),
        (
            "ffn = \"+16\"\n[[grow]]\nat_step = 9\nlayers = 1",
            ["planner.grow", "all growths, or none"],
        ),
        (
            "ffn = \"+16\"\nmethod = \"random\"",
            ["planner.grow", "changes what the model computes"],
        ),
    ] {
        let text = fs::read_to_string(&recipe).expect("a recipe");
        let begin = text.find("[[planner.grow]]").expect("a growth");
        let text = format!("{}[[planner.grow]]\n{growth}\n", &text[..begin]);
        let wrong = lab.file("wrong.toml", text);
        fail(lab.train(&wrong, "refused", &[]), 2, &parts);
    }
    let plain = ["--set", "model.preset=gpt-nano"];
    fail(
        lab.train(&recipe, "refused", &plain),
        2,
        &["planner.grow", "a plain Transformer"],
    );
    let wrong = lab.file(
        "wrong.toml",
        fs::read_to_string(&recipe)
            .expect("a recipe")
            .replace("ffn = \"+16\"", "fnn = \"+16\""),
    );
    fail(
        lab.train(&wrong, "refused", &[]),
        2,
        &["planner.grow.fnn", "did you mean planner.grow.ffn?"],
    );

    // What has come cannot be changed afterwards.
    succeed(lab.train(&recipe, "run", &[]));
    let other = lab.file(
        "other.toml",
        fs::read_to_string(&recipe)
            .expect("a recipe")
            .replace("ffn = \"+16\"", "ffn = \"+32\""),
    );
    let longer = ["--set", "train.steps=40"];
    fail(
        lab.train(&other, "run", &longer),
        2,
        &["[planner] that came have changed"],
    );
    succeed(lab.train(&recipe, "run", &longer));
    let path = lab.path("run");
    assert!(text_of(&newest(&path)).ends_with("40"));
}

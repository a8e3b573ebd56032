//! Equal seeds give equal bytes: for any number of threads, and with a growth that adds nothing.

mod common;

use common::{GROWTH, Lab, Remains, json, loss_columns, newest, succeed, text_of};

#[test]
fn threads_change_no_byte_of_checkpoints_and_losses() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    let remains = ["1", "2"].map(|threads| {
        succeed(lab.train(&recipe, &format!("run-{threads}"), &["--threads", threads]));
        Remains::of(&lab.path(&format!("run-{threads}")))
    });
    remains[0].assert_equal(&remains[1], "1 and 2 threads");

    let records = loss_columns(&lab.path("run-1"));
    let count = |kind: &str| records.iter().filter(|r| r.contains(kind)).count();
    // Every step, so near to the growth.
    assert_eq!(count(r#""kind":"train""#), 30);
    // Steps 0, 6, 12, 13 before and after the growth, 18, 24, 30.
    assert_eq!(count(r#""kind":"eval""#), 8);
    assert_eq!(count(r#""kind":"grow""#), 1);
    assert_eq!(count(r#""max_logit_diff":0.0"#), 1);
}

#[test]
fn threads_change_no_byte_of_a_plain_transformer() {
    let lab = Lab::new();
    let growth = "\n[[grow]]\nat_step = 13\nlayers = 1\n";
    let recipe = lab.plain_recipe("recipe.toml", growth);
    let remains = ["1", "2"].map(|threads| {
        succeed(lab.train(&recipe, &format!("run-{threads}"), &["--threads", threads]));
        Remains::of(&lab.path(&format!("run-{threads}")))
    });
    remains[0].assert_equal(&remains[1], "1 and 2 threads");
    let records = loss_columns(&lab.path("run-1"));
    let kept = records
        .iter()
        .filter(|r| r.contains(r#""max_logit_diff":0.0"#));
    assert_eq!(kept.count(), 1);
}

#[test]
fn seeds_change_the_losses() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "a", &["--set", "train.steps=3"]));
    succeed(lab.train(&recipe, "b", &["--set", "train.steps=3", "--set", "seed=8"]));
    assert_ne!(loss_columns(&lab.path("a")), loss_columns(&lab.path("b")));
}

#[test]
fn the_loss_falls() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    succeed(lab.train(&recipe, "run", &[]));
    let evals: Vec<f64> = loss_columns(&lab.path("run"))
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|record| record["kind"] == "eval")
        .map(|record| record["loss"].as_f64().expect("a number"))
        .collect();
    assert!(
        evals.last() < Some(&(evals[0] - 1.0)),
        "held-out losses: {evals:?}"
    );
}

#[test]
fn growing_by_nothing_changes_no_byte() {
    let lab = Lab::new();
    let plain = lab.recipe("plain.toml", "");
    // Neither step is one of an evaluation or a checkpoint; the second requests what exists.
    let nothing = lab.recipe(
        "nothing.toml",
        "[[grow]]\nat_step = 7\nffn = \"+0\"\n[[grow]]\nat_step = 13\nqkv = \"=16\"\nfreeze_old = true\n",
    );
    // Every step around a planned growth is recorded, also when the growth adds nothing.
    let every_step = ["--set", "log.every=1"];
    succeed(lab.train(&plain, "plain", &every_step));
    let ran = succeed(lab.train(&nothing, "nothing", &every_step));
    assert!(
        ran.err.contains("the growth at step 7 adds nothing"),
        "{}",
        ran.err
    );
    Remains::of(&lab.path("plain"))
        .assert_equal(&Remains::of(&lab.path("nothing")), "growth by nothing");

    // Such growths do not stand in the way of a longer run.
    let longer = ["--set", "log.every=1", "--set", "train.steps=32"];
    succeed(lab.train(&nothing, "nothing", &longer));
}

#[test]
fn evaluation_of_a_checkpoint_is_that_of_the_run() {
    let lab = Lab::new();
    let recipe = lab.recipe(
        "recipe.toml",
        "[[grow]]\nat_step = 13\nffn = \"+24\"\ntau = \"anneal:30\"\n",
    );
    succeed(lab.train(&recipe, "run", &[]));
    let last = newest(&lab.path("run"));
    let evaluation = json(&succeed(lab.command(&[
        "eval",
        "--model",
        text_of(&last),
        "--data",
        "data",
        "--tokens",
        "256",
        "--batch",
        "4",
        "--json",
    ])));
    let records = loss_columns(&lab.path("run"));
    let in_run = records
        .iter()
        .rfind(|r| r.contains(r#""kind":"eval""#))
        .expect("one");
    let in_run: serde_json::Value = serde_json::from_str(in_run).expect("JSON");
    assert_eq!(in_run["step"], 30);
    assert_eq!(evaluation["loss"], in_run["loss"]);
    assert_eq!(evaluation["bits_per_byte"], in_run["bits_per_byte"]);
}

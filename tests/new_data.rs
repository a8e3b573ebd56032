//! A trained model goes on with other data, with and without a growth.

mod common;

use common::{GROWTH, Lab, fail, newest, succeed};
use serde_json::Value;
use std::fs;

fn state(lab: &Lab, run: &str) -> Value {
    let state = newest(&lab.path(run)).join("state.json");
    serde_json::from_slice(&fs::read(state).expect("a state")).expect("JSON")
}

/// A lab with a second text, a run of 13 steps on the first one, and the recipe of a growth at that step.
fn lab() -> (Lab, String) {
    let lab = Lab::new();
    lab.prepare("other", 2);
    let without = lab.recipe("without.toml", "");
    succeed(lab.train(&without, "base", &["--set", "train.steps=13"]));
    let recipe = lab.recipe("recipe.toml", GROWTH);
    (lab, recipe)
}

const OTHER: [&str; 5] = ["--resume", "base", "--new-data", "--set", "data.dir=other"];

#[test]
fn other_data_are_read_from_their_beginning_and_a_stop_changes_nothing() {
    let (lab, recipe) = lab();
    let told = succeed(lab.train(&recipe, "whole", &OTHER)).err;
    assert!(told.contains("the training data are others now"), "{told}");
    let [base, whole] = ["base", "whole"].map(|run| state(&lab, run));
    assert_eq!((&base["step"], &whole["step"]), (&13.into(), &30.into()));
    assert_ne!(base["data_hash"], whole["data_hash"]);
    assert_eq!(whole["earlier_data"][0]["until_step"], 13);
    assert_eq!(whole["earlier_data"][0]["data_hash"], base["data_hash"]);
    assert_eq!(whole["earlier_data"][0]["windows"], base["windows"]);
    let windows = |state: &Value| state["windows"].as_u64().unwrap();
    assert_eq!(windows(&whole) * 13, windows(&base) * 17);
    assert_eq!(whole["growths"].as_array().unwrap().len(), 1);
    assert!(base.get("earlier_data").is_none());

    // The run in the new folder is an ordinary one, which goes on from its own checkpoints; so does the command that began it.
    let last = newest(&lab.path("whole"));
    let ended = common::files(&last);
    for command in [&["--set", "data.dir=other"][..], &OTHER] {
        fs::remove_dir_all(&last).expect("the last checkpoint");
        let told = succeed(lab.train(&recipe, "whole", command)).err;
        assert!(told.contains("going on from whole"), "{told}");
        assert!(ended == common::files(&last), "the bytes differ");
    }
    // A run that began elsewhere is another one.
    succeed(lab.train(
        &recipe,
        "again",
        &["--resume", "whole", "--set", "data.dir=other"],
    ));
    fail(
        lab.train(&recipe, "again", &OTHER),
        2,
        &["there is a run here", "--resume base"],
    );
}

#[test]
fn data_of_another_tokenizer_and_a_missing_run_are_refused() {
    let (lab, recipe) = lab();
    let source = lab.path("other.txt");
    let args = [
        "data",
        "prepare",
        "--tokenizer",
        "bpe:300",
        "--input",
        common::text_of(&source),
        "--out",
        "merged",
    ];
    succeed(lab.command(&args));
    let merged = ["--resume", "base", "--new-data", "--set", "data.dir=merged"];
    fail(
        lab.train(&recipe, "x", &merged),
        2,
        &["tokenizer.json", "data prepare --tokenizer"],
    );
    let without = ["--new-data", "--set", "data.dir=other"];
    fail(
        lab.train(&recipe, "x", &without),
        2,
        &["--new-data", "--resume DIR"],
    );
    let refused = ["--resume", "base", "--set", "data.dir=other"];
    fail(
        lab.train(&recipe, "y", &refused),
        2,
        &["other training data", "--new-data"],
    );
    // The run that was named is as it was.
    assert_eq!(state(&lab, "base")["step"], 13);
}

#[test]
fn a_run_that_has_all_its_steps_says_so() {
    let (lab, _) = lab();
    let without = lab.path("without.toml");
    let without = common::text_of(&without);
    let steps = ["--set", "train.steps=13"];
    let told = succeed(lab.train(without, "base", &steps)).err;
    assert!(
        told.contains("train.steps = 13 are done already: there is nothing left to train"),
        "{told}"
    );
    fail(
        lab.train(without, "x", &[&OTHER[..], &steps].concat()),
        2,
        &[
            "train.steps: no step is left for the new data",
            "more than the 13 steps",
            "train.steps counts from the model's first step",
        ],
    );
    let told = succeed(lab.train(
        without,
        "x",
        &[&OTHER[..], &["--set", "train.steps=14"]].concat(),
    ));
    assert!(!told.err.contains("nothing left"), "{}", told.err);
    // Without other data it says that these are the old ones.
    let same = ["--resume", "base", "--new-data", "--set", "train.steps=15"];
    let told = succeed(lab.train(without, "same", &same)).err;
    assert!(told.contains("trained on before"), "{told}");
    // Also where the new data are learned in the folder of the run: the same command again finds everything done.
    let own = ["--resume", "base", "--new-data", "--set", "data.dir=other"];
    let own = [&own[..], &["--set", "train.steps=16"]].concat();
    succeed(lab.train(without, "base", &own));
    let told = succeed(lab.train(without, "base", &own)).err;
    assert!(told.contains("there is nothing left to train"), "{told}");
}

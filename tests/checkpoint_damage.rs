//! A damaged checkpoint is refused by name; the good one before it is used, with a warning.

mod common;

use common::{Lab, Remains, fail, newest, succeed, text_of};
use std::fs;
use std::path::{Path, PathBuf};

type Damage = (&'static str, fn(&Path));

/// Ways to damage a file.
const DAMAGES: [Damage; 4] = [
    ("one bit flipped in the middle", |file| {
        let mut bytes = fs::read(file).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).expect("a file");
    }),
    // By two bytes: the last one of a JSON file is a line end, which means nothing.
    ("cut short", |file| {
        let bytes = fs::read(file).expect("a file");
        fs::write(file, &bytes[..bytes.len() - 2]).expect("a file");
    }),
    ("emptied", |file| fs::write(file, b"").expect("a file")),
    ("gone", |file| fs::remove_file(file).expect("a file")),
];

const FILES: [&str; 6] = [
    "config.json",
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "tokenizer.json",
];

/// A finished run of 8 steps with checkpoints at 6 and 8; the newest.
fn short_run(lab: &Lab, recipe: &str, out: &str) -> PathBuf {
    succeed(lab.train(recipe, out, &["--set", "train.steps=8"]));
    newest(&lab.path(out))
}

fn copy(from: &Path, to: &Path) {
    for (name, bytes) in common::files(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
}

#[test]
fn every_damage_to_every_file_is_refused_by_name() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let good = short_run(&lab, &recipe, "run");
    let broken = lab.path("run-2/checkpoints/step-00000008");
    for file in FILES {
        for (what, damage) in DAMAGES {
            copy(&good, &broken);
            damage(&broken.join(file));
            let parts = ["step-00000008", file];
            eprintln!("{file} {what}");
            let inspect = lab.command(&["inspect", text_of(&broken)]);
            let refused = fail(inspect, 1, &parts);
            assert!(refused.out.is_empty(), "{file} {what}: {}", refused.out);
            fs::remove_dir_all(&broken).expect("the copy");
        }
    }
}

#[test]
fn each_verb_refuses_a_damaged_checkpoint() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let broken = short_run(&lab, &recipe, "run");
    DAMAGES[0].1(&broken.join("model.safetensors"));
    let dir = text_of(&broken);
    let tokens = lab.file("tokens.json", "[1, 2, 3]");
    let verbs: [&[&str]; 6] = [
        &["inspect", dir],
        &["eval", "--model", dir, "--data", "data"],
        &["generate", "--model", dir],
        &[
            "logits",
            "--model",
            dir,
            "--tokens",
            &tokens,
            "--out",
            "x.safetensors",
        ],
        &["grow", "--from", dir, "--to", "grown", "--ffn", "+8"],
        &[
            "train", "--config", &recipe, "--resume", dir, "--out", "new",
        ],
    ];
    for verb in verbs {
        let parts = ["step-00000008", "model.safetensors", "damaged"];
        fail(lab.command(verb), 1, &parts);
    }
    assert!(!lab.path("x.safetensors").exists());
    assert!(!lab.path("grown").exists());
}

#[test]
fn a_run_goes_on_from_the_last_good_checkpoint() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "whole", &[]));
    let whole = Remains::of(&lab.path("whole"));
    for (what, damage) in DAMAGES {
        for file in ["model.safetensors", "state.json", "manifest.json"] {
            let out = format!("run {what} {file}");
            copy(&lab.path("whole"), &lab.path(&out));
            damage(&newest(&lab.path(&out)).join(file));
            let ran = succeed(lab.train(&recipe, &out, &[]));
            for part in [
                "warning: ",
                "step-00000030",
                file,
                "going on from",
                "at step 28",
            ] {
                assert!(ran.err.contains(part), "no {part:?}: {}", ran.err);
            }
            Remains::of(&lab.path(&out)).assert_equal(&whole, &out);
            fs::remove_dir_all(lab.path(&out)).expect("the run");
        }
    }
}

#[test]
fn a_half_written_checkpoint_is_no_checkpoint() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "whole", &[]));
    let whole = Remains::of(&lab.path("whole"));
    copy(&lab.path("whole"), &lab.path("run"));
    let last = newest(&lab.path("run"));
    let half = last.with_file_name(".tmp-step-00000030");
    fs::rename(&last, &half).expect("a rename");
    fs::remove_file(half.join("manifest.json")).expect("a manifest");
    fail(
        lab.command(&["inspect", text_of(&half)]),
        1,
        &[".tmp-step-00000030", "not written to its end"],
    );
    let ran = succeed(lab.train(&recipe, "run", &[]));
    assert!(ran.err.contains("at step 28"), "{}", ran.err);
    Remains::of(&lab.path("run")).assert_equal(&whole, "half-written");
}

#[test]
fn readers_take_the_last_good_checkpoint_with_a_warning() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let broken = short_run(&lab, &recipe, "run");
    DAMAGES[1].1(&broken.join("model.safetensors"));
    let ran = succeed(lab.command(&["inspect", "run"]));
    assert!(ran.out.contains("step-00000006"), "{ran:#?}");
    assert!(ran.err.contains("warning: "), "{ran:#?}");
    assert!(ran.err.contains("step-00000008"), "{ran:#?}");
}

#[test]
fn a_run_with_only_broken_checkpoints_is_not_begun_anew() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    short_run(&lab, &recipe, "run");
    let checkpoints = fs::read_dir(lab.path("run/checkpoints")).expect("checkpoints");
    for checkpoint in checkpoints {
        DAMAGES[0].1(&checkpoint.expect("one").path().join("model.safetensors"));
    }
    let before = common::files(&lab.path("run/checkpoints"));
    fail(
        lab.train(&recipe, "run", &[]),
        1,
        &["run/checkpoints: none of the", "can be used"],
    );
    assert!(common::files(&lab.path("run/checkpoints")) == before);
}

#[test]
fn a_damaged_dataset_is_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    for file in [
        "train.tokens",
        "valid.tokens",
        "tokenizer.json",
        "dataset.json",
    ] {
        for (what, damage) in DAMAGES {
            lab.prepare("broken", 2);
            damage(&lab.path("broken").join(file));
            eprintln!("{file} {what}");
            let train = lab.train(&recipe, "run", &["--set", "data.dir=broken"]);
            let named = if (file, what) == ("dataset.json", "gone") {
                "broken"
            } else {
                file
            };
            fail(train, 1, &[named]);
            assert!(
                !lab.path("run").exists(),
                "nothing is made before the data is good"
            );
            fs::remove_dir_all(lab.path("broken")).expect("the copy");
        }
    }
}

//! Nothing that is there is written over unasked, and what is read never.

mod common;

use common::{Lab, fail, files, newest, succeed, text_of};
use std::fs;

/// A lab with a run of two steps.
fn trained() -> Lab {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    lab
}

#[test]
fn folders_are_replaced_with_force_only() {
    let lab = trained();
    let verbs: [(&str, &[&str]); 3] = [
        ("checkpoint", &["grow", "--from", "run", "--ffn", "+8"]),
        ("export", &["export", "--model", "run"]),
        ("model", &["convert", "--from", "published"]),
    ];
    succeed(lab.command(&["export", "--model", "run", "--to", "published"]));
    for (kind, verb) in verbs {
        let write = |to: &str, force: bool| {
            let force: &[&str] = if force { &["--force"] } else { &[] };
            lab.command(&[verb, &["--to", to], force].concat())
        };
        let to = format!("a-{kind}");
        succeed(write(&to, false));
        let before = files(&lab.path(&to));
        let got = format!("{to}, which holds a {kind}");
        let parts = [
            "--to",
            "expected: a new or an empty folder",
            &got,
            "--force",
        ];
        fail(write(&to, false), 2, &parts);
        assert!(files(&lab.path(&to)) == before, "{kind}");
        succeed(write(&to, true));

        // What this program did not write as a whole is not replaced at all.
        let home = format!("home-{kind}");
        fs::create_dir(lab.path(&home)).expect("a folder");
        succeed(write(&home, false));
        lab.file(&format!("{home}/letter.txt"), "dear");
        fail(write(&home, true), 1, &["letter.txt"]);
        fs::remove_file(lab.path(&home).join("manifest.json")).expect("a manifest");
        fail(write(&home, true), 2, &["--to", "nothing else"]);
        assert_eq!(
            fs::read(lab.path(&home).join("letter.txt")).expect("kept"),
            b"dear"
        );
        fail(write("recipe.toml", true), 2, &["which is no folder"]);
        assert!(lab.path("recipe.toml").is_file());
    }
}

#[test]
fn what_is_read_is_not_written() {
    let lab = trained();
    let checkpoint = newest(&lab.path("run"));
    let checkpoint = text_of(&checkpoint);
    succeed(lab.command(&["export", "--model", "run", "--to", "published"]));
    let refused: [&[&str]; 5] = [
        &[
            "grow", "--from", checkpoint, "--to", checkpoint, "--ffn", "+8", "--force",
        ],
        &[
            "grow", "--from", "run", "--to", "./run", "--ffn", "+8", "--force",
        ],
        &[
            "convert",
            "--from",
            "published",
            "--to",
            "published",
            "--force",
        ],
        &[
            "export", "--model", checkpoint, "--to", checkpoint, "--force",
        ],
        &["export", "--model", "run", "--to", "run", "--force"],
    ];
    for args in refused {
        fail(lab.command(args), 2, &["--to", "which is read"]);
    }
    let before = files(&lab.path("run"));
    // A folder that contains an input, and a folder inside an input.
    let inside: [&[&str]; 3] = [
        &["export", "--model", "run", "--to", checkpoint, "--force"],
        &[
            "grow", "--from", "run", "--to", checkpoint, "--ffn", "+8", "--force",
        ],
        &[
            "convert",
            "--from",
            "published/model.safetensors",
            "--to",
            "published",
            "--force",
        ],
    ];
    for args in inside {
        fail(lab.command(args), 2, &["--to", "which is read"]);
    }
    assert!(files(&lab.path("run")) == before, "the run is as it was");
    succeed(lab.command(&["convert", "--from", "published", "--to", "model"]));
    // What another command wrote is not replaced: it may be the only copy.
    for (kind, args) in [
        ("model", ["export", "--model", "run", "--to", "model"]),
        (
            "checkpoint",
            ["export", "--model", "model", "--to", checkpoint],
        ),
        (
            "checkpoint",
            ["convert", "--from", "published", "--to", checkpoint],
        ),
        ("export", ["grow", "--from", "run", "--to", "published"]),
    ] {
        let got = format!("{}, which holds a {kind}", args[4]);
        let parts = [
            "--to",
            &got,
            "--force replaces only what this command writes",
        ];
        let more: &[&str] = if args[0] == "grow" {
            &["--ffn", "+8", "--force"]
        } else {
            &["--force"]
        };
        fail(lab.command(&[&args[..], more].concat()), 2, &parts);
    }
    // Files added to, or in place of, those of a model, a dataset, a run.
    let inside = format!("{checkpoint}/pytorch_model.bin");
    let samples = |path: &str| {
        let args = [
            "eval",
            "--model",
            "run",
            "--tasks",
            "piqa",
            "--task-data",
            "tasks",
        ];
        lab.command(&[&args[..], &["--samples", path]].concat())
    };
    fail(
        lab.command(&["export", "--model", "run", "--to", &inside, "--force"]),
        2,
        &["--to", "a file of its own", "a model or checkpoint"],
    );
    fail(
        samples(&format!("{checkpoint}/x.jsonl")),
        2,
        &["--samples", "a model or checkpoint"],
    );
    fail(samples("data/x.jsonl"), 2, &["--samples", "a dataset"]);
    fail(
        samples("run/metrics.jsonl"),
        2,
        &["--samples", "a run, which has a file of this name"],
    );
    fs::create_dir(lab.path("tasks")).expect("a folder");
    lab.file("tasks/piqa.jsonl", "{}");
    fail(
        samples("tasks/piqa.jsonl"),
        2,
        &["--samples", "a file in tasks, which is read"],
    );
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(lab.path("tasks/piqa.jsonl"), lab.path("link.jsonl"))
            .expect("a link");
        fail(samples("link.jsonl"), 2, &["--samples", "which is read"]);
    }
    assert_eq!(fs::read(lab.path("tasks/piqa.jsonl")).expect("kept"), b"{}");
    // A device or a link would become a plain file.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/dev/null", lab.path("null")).expect("a link");
        for path in ["/dev/null", "null", "tasks"] {
            fail(samples(path), 2, &["--samples", path]);
        }
        assert!(lab.path("null").is_symlink());
    }
    assert!(files(&lab.path("run")) == before, "the run is as it was");
}

#[test]
fn exported_files_are_replaced_with_force_only() {
    let lab = trained();
    fs::create_dir(lab.path("out")).expect("a folder");
    lab.file("out/model.safetensors", "mine");
    let export = |force: &[&str]| {
        let args = ["export", "--model", "run", "--to", "out/model.safetensors"];
        lab.command(&[&args, force].concat())
    };
    let there = ["--to", "out/model.safetensors, which is there", "--force"];
    fail(export(&[]), 2, &there);
    assert_eq!(
        fs::read(lab.path("out/model.safetensors")).expect("kept"),
        b"mine"
    );
    succeed(export(&["--force"]));
    fail(export(&[]), 2, &there);
    // The configuration of another model in the same folder is not lost either way.
    lab.file("out/config.json", "{}");
    fail(export(&["--force"]), 1, &["out/config.json"]);
    assert_eq!(fs::read(lab.path("out/config.json")).expect("kept"), b"{}");

    let tokens = |force: &[&str]| {
        let args = ["data", "export", "--data", "data", "--out", "words"];
        lab.command(&[&args, force].concat())
    };
    lab.file("words.idx", "mine");
    fail(tokens(&[]), 2, &["--out", "words.idx, which is there"]);
    assert_eq!(fs::read(lab.path("words.idx")).expect("kept"), b"mine");
    succeed(tokens(&["--force"]));
    fail(tokens(&[]), 2, &["--out", "words.bin, which is there"]);
    // The path of either file means both.
    for (file, name) in [("words.bin", "words.bin"), ("words.idx", "words.bin")] {
        let args = ["data", "export", "--data", "data", "--out", file];
        let there = format!("{name}, which is there");
        fail(lab.command(&args), 2, &["--out", &there]);
        let told = succeed(lab.command(&[&args[..], &["--force"]].concat()));
        assert!(
            told.out.contains("written to words.bin and words.idx"),
            "{told:?}"
        );
        assert!(!lab.path(&format!("{file}.bin")).exists());
    }
}

#[test]
fn a_run_does_not_begin_among_the_files_of_others() {
    let lab = trained();
    let recipe = fs::read_to_string(lab.path("recipe.toml")).expect("a recipe");
    fs::create_dir(lab.path("project")).expect("a folder");
    lab.file("project/config.toml", format!("# my recipe\n{recipe}"));
    let before = files(&lab.path("project"));
    let config = "project/config.toml";
    fail(
        lab.train(config, "project", &[]),
        2,
        &["--out", "project, which holds \"config.toml\" and no run"],
    );
    assert!(files(&lab.path("project")) == before);
    fail(
        lab.train(config, "data", &[]),
        2,
        &["--out", "dataset.json"],
    );
    let checkpoint = newest(&lab.path("run"));
    fail(
        lab.train(config, text_of(&checkpoint), &[]),
        2,
        &["--out", "manifest.json"],
    );
    let demo = [
        "demo", "--steps", "2", "--data", "data.txt", "--out", "project",
    ];
    fail(lab.command(&demo), 2, &["--out", "config.toml"]);
    // A demo would write its own dataset where this one is.
    let before = files(&lab.path("data"));
    for pictures in [&[][..], &["--images"]] {
        let demo = ["demo", "--steps", "2", "--out", "."];
        let demo = [&demo[..], pictures].concat();
        fail(lab.command(&demo), 2, &["--out", "\"data\" and no run"]);
    }
    assert!(files(&lab.path("data")) == before);
    // A log that was begun for the run does no harm, and a run continues in its place.
    fs::create_dir(lab.path("logged")).expect("a folder");
    lab.file("logged/log.txt", "");
    for steps in ["train.steps=2", "train.steps=3"] {
        succeed(lab.train(config, "logged", &["--set", steps]));
    }
}

//! What the program says to do next can be done as it stands; where it cannot go on it says what to do instead.
#![cfg(unix)]

mod common;

use common::{Lab, Ran, fail, newest, succeed, text_of};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What follows `start` on its line.
fn after<'a>(text: &'a str, start: &str) -> &'a str {
    let found = text
        .split_once(start)
        .unwrap_or_else(|| panic!("no {start:?} in {text}"));
    found.1.lines().next().unwrap_or_default()
}

/// Types a command, followed by `more`, into a shell.
fn typed(lab: &Lab, command: &str, more: &str) -> Ran {
    let bin = Path::new(common::BIN).parent().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("bash");
    shell
        .env("PATH", format!("{}:{path}", text_of(bin)))
        .args(["-c", &format!("{command} {more}")])
        .current_dir(lab.path("."))
        .stdin(Stdio::null());
    succeed(shell)
}

const TINY: &str = "--threads 1 --set train.steps=1 --set model.preset=nano --set model.width=32 \
    --set model.layers=1 --set model.heads=2 --set model.context=32 --set sample.tokens=0";

#[test]
fn a_prepared_dataset_is_trained_on_by_the_command_that_is_printed() {
    let lab = Lab::empty();
    lab.file("text", common::text(1, 8_000));
    let names = [
        "plain",
        "2024",
        "1e5",
        "true",
        "1979-05-27",
        "my data",
        "it's",
        "'quoted'",
        "-dash",
        "a=b#c",
        "[x]",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let out = format!("--out={name}");
        let said = succeed(lab.command(&[
            "data",
            "prepare",
            "--input",
            "text",
            "--tokenizer",
            "bytes",
            &out,
        ]))
        .out;
        let command = after(&said, "train on it with: ");
        typed(&lab, command, &format!("{TINY} --out run-{number}"));
    }
}

#[test]
fn an_interrupted_run_goes_on_by_the_command_that_is_printed() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    // By a flag whose value begins with a dash, as `--out=VALUE`.
    let out = "--out=-my runs/2024";
    let mut train = lab.command(&["train", "--config", &recipe, out, "--threads", "1"]);
    let records = lab.path("-my runs/2024/metrics.jsonl");
    let mut child = train
        .args(["--set", "train.steps=100000", "--set", "eval.every=0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    while !fs::read_to_string(&records).is_ok_and(|text| text.contains(r#""kind":"train""#)) {
        assert!(child.try_wait().expect("a child").is_none(), "it runs");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let sent = Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
    let ran: Ran = child.wait_with_output().expect("a child").into();
    let command = after(&ran.out, "Go on with:\n  ");
    let again = typed(&lab, command, "--set train.steps=1");
    assert!(again.err.contains("going on from"), "{again:#?}");
}

#[test]
fn a_grown_checkpoint_is_trained_on_by_the_command_that_is_printed() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "my run", &["--set", "train.steps=4"]));
    for (from, to) in [
        ("my run", "2024"),
        ("my run", "auto"),
        ("my run/checkpoints/step-00000004", "a b"),
    ] {
        let said = succeed(lab.command(&["grow", "--from", from, "--to", to, "--ffn", "+8"])).out;
        let trained = typed(&lab, after(&said, "train on with: "), "--threads 1");
        assert!(trained.out.contains("done after 8 steps"), "{trained:#?}");
        let run = lab.path(&format!("{to}-run"));
        assert!(text_of(&newest(&run)).ends_with("step-00000008"));
    }
    // Where the recipe is not known there is no command to print.
    let said = succeed(lab.command(&["grow", "--from", "a b", "--to", "c", "--ffn", "+8"])).out;
    assert!(
        said.contains("--resume c and the recipe of its run"),
        "{said}"
    );
}

#[test]
fn published_checkpoints_are_refused_by_the_command_that_converts_them() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    succeed(lab.command(&["export", "--model", "run", "--to", "ex ported"]));
    let tokens = lab.file("tokens.json", "[[1, 2, 3]]");
    fs::create_dir(lab.path("downloaded")).expect("a folder");
    succeed(lab.command(&[
        "export",
        "--model",
        "run",
        "--to",
        "downloaded/pytorch_model.bin",
    ]));
    fs::copy(
        lab.path("ex ported/tokenizer.json"),
        lab.path("downloaded/tokenizer.json"),
    )
    .expect("a copy");
    fs::create_dir(lab.path("other name")).expect("a folder");
    let file = "other name/m.safetensors";
    succeed(lab.command(&["export", "--model", "run", "--to", file]));
    fs::copy(
        lab.path("ex ported/tokenizer.json"),
        lab.path("other name/tokenizer.json"),
    )
    .expect("a copy");
    fs::create_dir(lab.path("yaml")).expect("a folder");
    for name in ["model.safetensors", "pytorch_model.bin"] {
        lab.file(&format!("yaml/{name}"), "weights");
    }
    lab.file("yaml/150M.yml", "{}");
    fs::create_dir_all(lab.path("trained/global_step100")).expect("a folder");
    fs::create_dir_all(lab.path("universal/zero/a.weight")).expect("a folder");
    lab.file("universal/zero/a.weight/fp32.pt", "weights");
    for folder in ["blobs", "snapshots/abc"] {
        fs::create_dir_all(lab.path("models--a--b").join(folder)).expect("a folder");
    }

    let cases = [
        (
            "ex ported",
            "a published checkpoint (model.safetensors and config.json)",
            "'ex ported'",
        ),
        (
            "downloaded",
            "a published checkpoint (pytorch_model.bin and config.json)",
            "downloaded",
        ),
        (
            "downloaded/pytorch_model.bin",
            "a file of weights",
            "downloaded/pytorch_model.bin",
        ),
        (
            "other name",
            "a published checkpoint (m.safetensors and config.json)",
            "'other name/m.safetensors'",
        ),
        (
            "yaml",
            "a published checkpoint (model.safetensors and 150M.yml)",
            "yaml",
        ),
        (
            "trained",
            "a training folder of the released code",
            "trained",
        ),
        (
            "universal",
            "a training folder of the released code",
            "universal",
        ),
        (
            "models--a--b",
            "a repository in the cache of Hugging Face",
            "models--a--b",
        ),
        (
            "Haiyang-W/TokenFormer-150M",
            "no such folder",
            "Haiyang-W/TokenFormer-150M",
        ),
    ];
    for (place, got, quoted) in cases {
        let verbs: [&[&str]; 7] = [
            &["generate", "--model", place],
            &["inspect", place],
            &["eval", "--model", place, "--data", "data"],
            &[
                "logits",
                "--model",
                place,
                "--tokens",
                &tokens,
                "--out",
                "x.safetensors",
            ],
            &["grow", "--from", place, "--to", "grown", "--ffn", "+8"],
            &["export", "--model", place, "--to", "again"],
            &["verify", place],
        ];
        for verb in verbs {
            let command = format!("tokenformer convert --from {quoted} --to ");
            if verb[0] == "verify" && place == "ex ported" {
                let said = succeed(lab.command(verb)).out;
                assert!(said.contains(&command), "{said}");
                continue;
            }
            fail(
                lab.command(verb),
                1,
                &[place, &format!("got:      {got}\n"), &command],
            );
        }
    }
    for (place, to) in [
        ("ex ported", "ex ported-converted"),
        ("downloaded", "downloaded-converted"),
        ("other name", "other name-converted"),
    ] {
        let refused = fail(lab.command(&["generate", "--model", place]), 1, &[]);
        let made = typed(&lab, after(&refused.err, "help:     "), "");
        assert!(lab.path(to).join("manifest.json").exists());
        typed(&lab, after(&made.out, "try it with: "), "--tokens 3");
        // The next suggestion is a name that is free.
        let refused = fail(lab.command(&["generate", "--model", place]), 1, &[]);
        assert!(refused.err.contains("-converted-2"), "{}", refused.err);
    }
}

#[test]
fn a_run_is_verified_checkpoint_by_checkpoint() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=8"]));
    let said = succeed(lab.command(&["verify", "run"])).out;
    for part in [
        "ok   step-00000006/manifest.json: checkpoint",
        "ok   step-00000008/model.safetensors: ",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("FAIL"), "{said}");
    let damaged = lab.path("run/checkpoints/step-00000006/state.json");
    let mut bytes = fs::read(&damaged).expect("a file");
    bytes[10] ^= 1;
    fs::write(&damaged, bytes).expect("a file");
    let ran = fail(lab.command(&["verify", "run"]), 1, &["run: 1 of "]);
    assert!(
        ran.out.contains("FAIL step-00000006/state.json"),
        "{}",
        ran.out
    );
    // A checkpoint by itself is as before.
    let said = succeed(lab.command(&["verify", "run/checkpoints/step-00000008"])).out;
    assert!(said.contains("ok   manifest.json: checkpoint"), "{said}");
}

#[test]
fn data_is_found_beside_the_recipe_or_the_message_says_how_to_make_it() {
    let lab = Lab::new();
    let text = common::tiny("data");
    fs::create_dir_all(lab.path("project/elsewhere")).expect("folders");
    let recipe = lab.file("project/recipe.toml", &text);
    let short = ["--set", "train.steps=1"];

    // From the working directory first.
    succeed(lab.train(&recipe, "here", &short));
    fs::rename(lab.path("data"), lab.path("project/data")).expect("a move");
    succeed(lab.train(&recipe, "beside", &short));
    succeed(lab.command(&["inspect", "--plan", &recipe]));
    let config = fs::read_to_string(lab.path("beside/config.toml")).expect("a recipe");
    assert!(config.contains("project/data\""), "{config}");

    // A folder on the command line is one of the working directory.
    let set = ["--set", "data.dir=data"];
    let make = "with: tokenformer data prepare --input FILES-OR-FOLDERS --out data";
    let here = lab.path(".").canonicalize().expect("a folder");
    let got = format!("no such folder in {}\n", text_of(&here));
    fail(
        lab.train(&recipe, "new", &set),
        1,
        &["data: no dataset for data.dir", &got, make],
    );
    let missing = lab.file(
        "project/missing.toml",
        text.replace("\"data\"", "\"my words\""),
    );
    let places = format!(
        "no such folder in {}, nor beside the recipe in {}\n",
        text_of(&here),
        text_of(&lab.path("project"))
    );
    let make = "data prepare --input FILES-OR-FOLDERS --out 'my words'";
    fail(
        lab.train(&missing, "new", &[]),
        1,
        &["my words", &places, make],
    );
    fail(
        lab.command(&["inspect", "--plan", &missing]),
        1,
        &["my words", &places, make],
    );

    // A folder of texts is what the command takes.
    fs::create_dir(lab.path("texts")).expect("a folder");
    fs::rename(lab.path("data.txt"), lab.path("texts/data.txt")).expect("a move");
    let refused = fail(
        lab.train(&recipe, "new", &["--set", "data.dir=texts"]),
        1,
        &["a folder without dataset.json"],
    );
    typed(
        &lab,
        after(&refused.err, "make a dataset of it with: "),
        "--tokenizer bytes",
    );
    succeed(lab.train(
        &recipe,
        "new",
        &["--set", "data.dir=texts-tokens", "--set", "train.steps=1"],
    ));
    let eval = fail(
        lab.command(&["eval", "--model", "new", "--data", "nowhere"]),
        1,
        &["no dataset for --data"],
    );
    assert!(eval.err.contains("--out nowhere"), "{}", eval.err);
}

#[test]
fn damaged_records_do_not_keep_a_run_from_going_on() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=12"]));
    let path = lab.path("run/metrics.jsonl");
    let text = fs::read_to_string(&path).expect("records");
    let lines: Vec<&str> = text.lines().collect();
    let bad = "{\"kind\":\"train\",\"st\0\0\0";
    let damaged = [&lines[..2], &[bad], &lines[3..]].concat().join("\n") + "\n";
    fs::write(&path, damaged).expect("a file");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=15"]));
    let aside = fs::read_to_string(lab.path("run/metrics.jsonl.damaged")).expect("what was bad");
    assert_eq!(aside, format!("{bad}\n"));
    let after = fs::read_to_string(&path).expect("records");
    assert!(after.starts_with(&format!("{}\n{}\n{}\n", lines[0], lines[1], lines[3])));
    assert!(after.contains(r#""kind":"train","step":15"#), "{after}");
}

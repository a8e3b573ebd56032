//! What `eval`, `logits` and `generate` promise about their numbers and files.

mod common;

use common::{Lab, fail, forge, json, newest, run, succeed, text_of};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A lab with a trained model in `run`.
fn trained() -> Lab {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "sample.tokens=0"]));
    lab
}

fn with_task(lab: &Lab) {
    fs::create_dir(lab.path("tasks")).unwrap();
    lab.file(
        "tasks/piqa.jsonl",
        "{\"goal\":\"g\",\"sol1\":\"ka\",\"sol2\":\"to\",\"label\":0}\n".repeat(3),
    );
}

/// `command` with its cache in the lab.
fn cached(lab: &Lab, mut command: Command) -> Command {
    command.env("XDG_CACHE_HOME", lab.path("cache"));
    command
}

#[test]
fn bits_per_byte_are_over_the_bytes_of_the_scored_tokens() {
    let lab = trained();
    let tokens = tokenformer_data::Dataset::open(&lab.path("data")).unwrap();
    let mut valid = vec![0; tokens.valid.len()];
    tokens.valid.read(0, &mut valid).unwrap();
    for (more, count) in [
        (&["--tokens", "40"][..], 40),
        (&["--tokens", "300", "--stride", "8"], 300),
        (&[], valid.len() - 1),
    ] {
        let mut args = vec![
            "eval",
            "--model",
            "run",
            "--data",
            "data",
            "--json",
            "--threads",
            "1",
        ];
        args.extend(more);
        let ran = json(&succeed(lab.command(&args)));
        // Every token is a byte but the ends of documents.
        let bytes = valid[1..=count].iter().filter(|&&t| t < 256).count();
        assert_eq!(ran["tokens"], count);
        assert_eq!(ran["bytes"], bytes as f64);
        assert_eq!(ran["bytes_are_estimated"], false);
        let bits = ran["loss"].as_f64().unwrap() * count as f64 / std::f64::consts::LN_2;
        let found = ran["bits_per_byte"].as_f64().unwrap();
        assert!((found * bytes as f64 / bits - 1.0).abs() < 1e-12, "{ran}");
    }
}

#[test]
fn a_model_that_computes_no_numbers_is_an_error_everywhere() {
    let lab = trained();
    with_task(&lab);
    lab.file("tokens.json", "[[1, 2, 3], [4, 5, 6]]");
    // The token 200 is not in the texts: only the head meets it, and one of the infinite ones makes each of its logits
    // the least, which no sum of exponentials shows.
    for (name, number) in [
        ("nan", f32::NAN),
        ("plus", f32::INFINITY),
        ("minus", f32::NEG_INFINITY),
    ] {
        forge(&lab, name, 200, number);
        for precision in ["f32", "bf16", "int8"] {
            let ends = |args: &[&str], parts: &[&str]| {
                let mut all = args.to_vec();
                all.extend(["--model", name, "--precision", precision, "--threads", "1"]);
                fail(cached(&lab, lab.command(&all)), 1, parts)
            };
            ends(
                &["generate", "--prompt", "ka"],
                &["the logit of token", "not finite"],
            );
            let greedy = ["generate", "--prompt", "ka", "--temperature", "0"];
            ends(&greedy, &["the logit of token", "not finite"]);
            let logits = [
                "logits",
                "--tokens",
                "tokens.json",
                "--out",
                "l.safetensors",
            ];
            ends(
                &logits,
                &["the logit of token", "row 0, position 0", "not finite"],
            );
            assert!(!lab.path("l.safetensors").exists());
            ends(&["eval", "--data", "data"], &["the loss", "not finite"]);
            ends(
                &["eval", "--data", "data", "--stride", "9"],
                &["the loss", "not finite"],
            );
            let tasks = ["eval", "--tasks", "piqa", "--task-data", "tasks"];
            ends(&tasks, &["piqa.jsonl:1", "not finite"]);
        }
    }
}

#[test]
fn an_encoder_is_not_measured_on_what_it_sees() {
    let lab = trained();
    with_task(&lab);
    forge(&lab, "encoder", 200, 0.0);
    let path = lab.path("encoder/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["causal"] = false.into();
    fs::write(&path, config.to_string()).unwrap();
    for args in [
        &["eval", "--data", "data"][..],
        &["eval", "--data", "data", "--stride", "9"],
        &["eval", "--tasks", "piqa", "--task-data", "tasks"],
        &["generate", "--prompt", "ka"],
    ] {
        let command = lab.command(&[args, &["--model", "encoder", "--threads", "1"]].concat());
        let ran = fail(cached(&lab, command), 1, &["not causal", "encoder"]);
        assert_eq!(ran.out, "", "{args:?}");
    }
}

#[test]
fn missing_tasks_and_tokenizers_are_told_how_to_get() {
    let lab = trained();
    let tasks = ["eval", "--model", "run", "--tasks", "piqa"];
    let fetch = "`tokenformer data fetch eval-tasks";
    fail(
        lab.command(&tasks),
        1,
        &["data/eval", "no such folder", fetch],
    );
    with_task(&lab);
    forge(&lab, "silent", 200, 0.0);
    fs::remove_file(lab.path("silent/tokenizer.json")).unwrap();
    let parts = [
        "silent/tokenizer.json",
        "no tokenizer",
        "tokenformer convert --from",
        "--tokenizer",
    ];
    fail(lab.command(&["generate", "--model", "silent"]), 1, &parts);
    let tasks = [
        "eval",
        "--model",
        "silent",
        "--tasks",
        "piqa",
        "--task-data",
        "tasks",
    ];
    fail(lab.command(&tasks), 1, &parts);
}

#[test]
fn what_is_read_is_not_written_over() {
    let lab = trained();
    with_task(&lab);
    let tokens = lab.file("tokens.json", "[[1, 2, 3]]");
    let inputs = |path: &Path| fs::read(path).unwrap();
    let weights = newest(&lab.path("run")).join("model.safetensors");
    let mut outs = vec![tokens.clone(), "run/../tokens.json".into()];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("tokens.json", lab.path("soft.safetensors")).unwrap();
        outs.push("soft.safetensors".into());
    }
    fs::hard_link(&tokens, lab.path("hard.safetensors")).unwrap();
    outs.extend(["hard.safetensors".into(), text_of(&weights).into()]);
    let before = (inputs(Path::new(&tokens)), inputs(&weights));
    for out in outs {
        let args = [
            "logits",
            "--model",
            "run",
            "--tokens",
            "tokens.json",
            "--out",
            &out,
        ];
        let place = match out == text_of(&weights) {
            true => "in a model or checkpoint, whose files are all listed",
            false => "which is read",
        };
        fail(lab.command(&args), 2, &["--out", place]);
    }
    for out in ["tasks/piqa.jsonl", text_of(&weights)] {
        let args = [
            "eval",
            "--model",
            "run",
            "--tasks",
            "piqa",
            "--task-data",
            "tasks",
            "--samples",
            out,
        ];
        let parts = ["--samples", "not a possible value"];
        fail(cached(&lab, lab.command(&args)), 2, &parts);
    }
    assert_eq!((inputs(Path::new(&tokens)), inputs(&weights)), before);
}

#[test]
fn tokens_that_cannot_be_read_are_explained() {
    let lab = trained();
    for (content, parts) in [
        (
            "[1, \"a\"]",
            [
                "invalid type: string \"a\", expected a token number",
                "column 7",
            ],
        ),
        (
            "[[1, 2], 3]",
            ["numbers and lists beside each other", "line 1"],
        ),
        ("[[1, 2], [3]]", ["rows of lengths [2, 1]", "expected"]),
    ] {
        lab.file("bad.json", content);
        let args = [
            "logits",
            "--model",
            "run",
            "--tokens",
            "bad.json",
            "--out",
            "l.safetensors",
        ];
        let ran = run(lab.command(&args));
        assert_ne!(ran.code, Some(0));
        for part in parts {
            assert!(
                ran.err.contains(part),
                "{content}: no {part:?} in {}",
                ran.err
            );
        }
        assert!(!ran.err.contains("untagged"), "{}", ran.err);
    }
    let weights = newest(&lab.path("run")).join("model.safetensors");
    let args = [
        "logits",
        "--model",
        "run",
        "--tokens",
        text_of(&weights),
        "--out",
        "l.safetensors",
    ];
    fail(lab.command(&args), 2, &["no array `tokens` but", "help: "]);
}

#[test]
fn flags_take_negative_numbers_and_texts_that_begin_with_a_dash() {
    let lab = trained();
    let generate = |more: &[&str]| {
        let mut args = vec!["generate", "--model", "run", "--prompt", "ka"];
        args.extend(more);
        lab.command(&args)
    };
    for (flag, parts) in [
        (
            "--top-k",
            ["'-1' for '--top-k <K>'", "a whole number from 0"],
        ),
        (
            "--tokens",
            ["'-1' for '--tokens <N>'", "a whole number from 0"],
        ),
        ("--seed", ["'-1' for '--seed <N>'", "a whole number from 0"]),
        (
            "--threads",
            ["'-1' for '--threads <N>'", "a whole number from 0"],
        ),
    ] {
        let ran = run(generate(&[flag, "-1"]));
        assert_eq!(ran.code, Some(2));
        for part in parts {
            assert!(ran.err.contains(part), "no {part:?} in {}", ran.err);
        }
    }
    for (flag, name, expected) in [
        ("--temperature", "temperature", "0 or more"),
        ("--top-p", "top_p", "above 0, at most 1"),
        ("--min-p", "min_p", "from 0 to below 1"),
        (
            "--repetition-penalty",
            "repetition_penalty",
            "from 0.01 to 100",
        ),
    ] {
        fail(generate(&[flag, "-0.5"]), 2, &[name, expected, "-0.5"]);
    }
    for stop in ["-x", "-", "--", "-1", "--tokens"] {
        succeed(generate(&["--tokens", "3", "--stop", stop]));
    }
    let context = [
        "eval",
        "--model",
        "run",
        "--data",
        "data",
        "--context",
        "-1",
    ];
    let ran = run(lab.command(&context));
    assert!(ran.err.contains("a whole number from 0"), "{}", ran.err);
}

#[test]
fn task_results_name_their_file_and_a_bad_cache_is_no_obstacle() {
    let lab = trained();
    with_task(&lab);
    let args = |more: &[&'static str]| {
        let mut args = vec![
            "eval",
            "--model",
            "run",
            "--tasks",
            "piqa",
            "--task-data",
            "tasks",
        ];
        args.extend(["--threads", "1"]);
        args.extend(more);
        lab.command(&args)
    };
    let ran = succeed(cached(&lab, args(&["--precision", "int8"])));
    let path = Path::new("tasks").join("piqa.jsonl");
    assert!(
        ran.out.contains(&format!("piqa: {}", path.display())),
        "{}",
        ran.out
    );
    assert!(!ran.err.contains("note"), "{}", ran.err);
    let results = json(&succeed(cached(&lab, args(&["--json"]))));
    assert_eq!(results["tasks"][0]["file"], path.display().to_string());
    assert_eq!(
        (&results["precision"], &results["taken_over"]),
        (&"f32".into(), &0.into())
    );
    // Nothing is left of what has finished.
    let left = fs::read_dir(lab.path("cache/tokenformer")).unwrap().count();
    assert_eq!(left, 0);

    // A file where the folder should be; also a relative path, which does not count, and no home.
    lab.file("blocked", "a file");
    let mut command = args(&[]);
    command.env("XDG_CACHE_HOME", lab.path("blocked"));
    let ran = succeed(command);
    assert!(
        ran.err.contains("note: finished questions are not kept"),
        "{}",
        ran.err
    );
    let mut command = args(&[]);
    command
        .env("XDG_CACHE_HOME", "relative")
        .env("HOME", lab.path("home"));
    succeed(command);
    assert!(!lab.path("relative").exists());
    assert!(lab.path("home/.cache/tokenformer").is_dir());
}

/// Ends a program as a cluster does, in the middle of an evaluation.
#[cfg(unix)]
#[test]
fn a_terminated_evaluation_ends_with_an_error_and_goes_on_in_the_next_call() {
    use std::process::Stdio;

    let lab = trained();
    fs::create_dir(lab.path("tasks")).unwrap();
    let row = |i: usize| {
        let goal = "ka to mi ren sol va ".repeat(20);
        let row = serde_json::json!({"goal": format!("{goal}{i}"), "sol1": "ka", "sol2": "to", "label": 0});
        format!("{row}\n")
    };
    lab.file("tasks/piqa.jsonl", (0..20_000).map(row).collect::<String>());
    let tasks = |json: &'static str| {
        let args = [
            "eval",
            "--model",
            "run",
            "--tasks",
            "piqa",
            "--task-data",
            "tasks",
            "--threads",
            "1",
        ];
        let mut command = cached(&lab, lab.command(&args));
        command.arg(json);
        command
    };
    let cache = lab.path("cache/tokenformer");
    let mut command = tasks("--json");
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the program starts");
    let has_answers = || {
        let files = fs::read_dir(&cache).into_iter().flatten().flatten();
        files.map(|f| f.metadata().unwrap().len()).sum::<u64>() > 1000
    };
    while !has_answers() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = Command::new("kill").arg(child.id().to_string()).status();
    assert!(killed.expect("a system with kill").success());
    let ran = common::Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    for part in [
        "stopped before its end",
        "20000 questions",
        "the same command goes on there",
    ] {
        assert!(ran.err.contains(part), "no {part:?} in {}", ran.err);
    }

    let results = json(&succeed(tasks("--json")));
    assert!(results["taken_over"].as_u64().unwrap() > 0, "{results}");
    assert_eq!(results["tasks"][0]["questions"], 20_000);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0);
}

//! Every verb on a run, a checkpoint and a plain model folder; growth as a command compared with growth in a recipe.

mod common;

use common::{
    CONTEXT, GROWTH, Lab, fail, files, json, loss_columns, newest, run, succeed, text_of,
};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// What `GROWTH` does, as flags; the schedule of the stage is the recipe's.
const GROWTH_FLAGS: [&str; 8] = [
    "--qkv", "+8", "--proj", "+8", "--ffn", "+24", "--layers", "+1",
];

/// A model folder without training state and manifest, as another program would make it.
fn plain_model(lab: &Lab, checkpoint: &Path) -> String {
    let dir = lab.path("plain");
    fs::create_dir(&dir).expect("a folder");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(checkpoint.join(name), dir.join(name)).expect("a copy");
    }
    "plain".into()
}

/// A trained run, and the names of its folder, its newest checkpoint and a plain copy of the model.
fn trained(lab: &Lab) -> [String; 3] {
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &[]));
    let checkpoint = newest(&lab.path("run"));
    let plain = plain_model(lab, &checkpoint);
    ["run".into(), text_of(&checkpoint).into(), plain]
}

#[test]
fn every_verb_reads_runs_checkpoints_and_model_folders_alike() {
    let lab = Lab::new();
    let places = trained(&lab);
    let tokens = lab.file("tokens.json", "[[1, 2, 3, 4], [250, 5, 6, 7]]");
    let all = |args: &[&str]| {
        let mut outputs = places.iter().map(|place| {
            let args: Vec<&str> = args
                .iter()
                .map(|a| if *a == "PLACE" { place.as_str() } else { a })
                .collect();
            succeed(lab.command(&args))
        });
        let [run, checkpoint, model] =
            std::array::from_fn(|_| outputs.next().expect("three places"));
        [run, checkpoint, model]
    };
    let equal = |values: [serde_json::Value; 3], key: &str| {
        assert!(!values[0][key].is_null(), "{key}: {}", values[0]);
        assert_eq!(
            values[0][key], values[1][key],
            "{key} of run and checkpoint"
        );
        assert_eq!(values[0][key], values[2][key], "{key} of run and model");
    };

    let eval = all(&["eval", "--model", "PLACE", "--data", "data", "--json"]);
    equal(eval.map(|ran| json(&ran)), "loss");
    let inspect = all(&["inspect", "PLACE", "--json"]).map(|ran| json(&ran));
    assert_eq!(inspect[0]["state"]["step"], 30);
    assert_eq!(inspect[1]["verified"], true);
    assert_eq!(inspect[2]["verified"], false);
    equal(inspect, "config");
    let [a, b, c] = all(&[
        "generate", "--model", "PLACE", "--prompt", "ka", "--seed", "3",
    ]);
    assert!(a.out.starts_with("ka") && a.out.len() > 12, "{a:#?}");
    assert_eq!((&a.out, &a.out), (&b.out, &c.out));

    let logits = places.each_ref().map(|place| {
        let args = [
            "logits",
            "--model",
            place,
            "--tokens",
            &tokens,
            "--out",
            "x.safetensors",
        ];
        succeed(lab.command(&args));
        fs::read(lab.path("x.safetensors")).expect("logits")
    });
    assert!(logits[0] == logits[1] && logits[0] == logits[2]);
    // 8 bytes, a header, then 2·4·257 logits and 2·3 losses.
    let header = u64::from_le_bytes(logits[0][..8].try_into().expect("8 bytes")) as usize;
    assert_eq!(logits[0].len(), 8 + header + 4 * (2 * 4 * 257 + 2 * 3));

    for (i, place) in places.iter().enumerate() {
        let to = format!("grown-{i}");
        let mut args = vec!["grow", "--from", place, "--to", &to, "--json"];
        args.extend(GROWTH_FLAGS);
        let report = json(&succeed(lab.command(&args)));
        assert_eq!(report["max_logit_diff"], 0.0);
        assert_eq!(
            (&report["layers_before"], &report["layers_after"]),
            (&2.into(), &3.into())
        );
    }
    // From run and checkpoint come the same checkpoints; the plain model has no training state.
    assert!(files(&lab.path("grown-0")) == files(&lab.path("grown-1")));
    assert!(lab.path("grown-0/optimizer.safetensors").exists());
    assert!(!lab.path("grown-2/state.json").exists());
    let eval = |place: &str| {
        let args = [
            "eval", "--model", place, "--data", "data", "--stride", "8", "--tokens", "500",
            "--json",
        ];
        json(&succeed(lab.command(&args)))
    };
    let before = eval("run");
    for grown in ["grown-0", "grown-1", "grown-2"] {
        assert_eq!(eval(grown)["loss"], before["loss"], "{grown}");
    }
}

#[test]
fn growth_as_a_command_is_growth_in_the_recipe() {
    let lab = Lab::new();
    // A checkpoint at step 12 in both; the old schedule continues, since the command has no other.
    let growth = GROWTH
        .split("\n[grow.schedule]")
        .next()
        .expect("a part")
        .replace("13", "12");
    let inside = lab.recipe("inside.toml", &growth);
    succeed(lab.train(&inside, "inside", &[]));

    let plain = lab.recipe("plain.toml", "");
    succeed(lab.train(&plain, "plain", &["--set", "checkpoint.keep=100"]));
    let mut grow = vec![
        "grow",
        "--from",
        "plain/checkpoints/step-00000012",
        "--to",
        "grown",
    ];
    grow.extend(GROWTH_FLAGS);
    let said = succeed(lab.command(&grow)).out;
    assert!(said.contains("largest logit difference 0"), "{said}");
    assert!(said.contains("--resume grown"), "{said}");
    let trained = succeed(lab.train(&plain, "command", &["--resume", "grown"]));
    assert!(
        trained.err.contains("going on from grown at step 12"),
        "{}",
        trained.err
    );

    let [a, b] = ["inside", "command"].map(|out| files(&newest(&lab.path(out))));
    for name in [
        "config.json",
        "model.safetensors",
        "optimizer.safetensors",
        "tokenizer.json",
    ] {
        assert!(a[name] == b[name], "{name} differs");
    }
    // The state differs in who asked for the growth, and by nothing else.
    let state = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
        let mut state: serde_json::Value =
            serde_json::from_slice(&files["state.json"]).expect("JSON");
        let growth = &mut state["growths"][0];
        growth["event"] = serde_json::Value::Null;
        // Measured on other tokens.
        growth["report"]["relative_logit_diff"] = serde_json::Value::Null;
        state
    };
    assert_eq!(state(&a), state(&b));
    // Held-out losses after the growth. Training losses are recorded closer around a planned growth.
    let after = |out: &str| {
        let lines = loss_columns(&lab.path(out)).into_iter();
        lines
            .filter(|l| l.contains(r#""kind":"eval""#) && l.contains(r#""stage":1"#))
            .collect::<Vec<_>>()
    };
    let (inside, command) = (after("inside"), after("command"));
    assert!(
        !command.is_empty() && inside.ends_with(&command),
        "{inside:?} {command:?}"
    );
}

/// The best loss so far is that of the model before the growth, and no rival of what the grown one reaches.
#[test]
fn a_grown_checkpoint_has_no_best_so_far() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "\n[ema]\ndecay = 0.9\n");
    let steps = |steps| ["--set", steps, "--set", "schedule.lr=1e-9"];
    succeed(lab.train(&recipe, "run", &steps("train.steps=6")));
    let of = |dir: &Path| -> serde_json::Value {
        let state = fs::read(dir.join("state.json")).expect("a state");
        serde_json::from_slice(&state).expect("JSON")
    };
    let run = of(&newest(&lab.path("run")));
    assert!(run["best"]["loss"].is_f64() && run["best_ema"]["loss"].is_f64());
    // New tokens drawn like those of a fresh model change what it computes.
    let moved = ["--method", "random", "--ffn", "+48", "--qkv", "+16"];
    let grow = ["grow", "--from", "run", "--to", "grown"];
    succeed(lab.command(&[&grow[..], &moved].concat()));
    let grown = of(&lab.path("grown"));
    assert!(
        grown["best"].is_null() && grown["best_ema"].is_null(),
        "{grown}"
    );

    let more = [&steps("train.steps=8")[..], &["--resume", "grown"]].concat();
    succeed(lab.train(&recipe, "on", &more));
    let on = of(&newest(&lab.path("on")));
    assert_eq!(
        (&on["best"]["step"], &on["best_ema"]["step"]),
        (&8.into(), &8.into())
    );
}

/// Without the state of a training, the model itself says which stages it has had.
#[test]
fn a_model_without_training_state_grows_again_and_again() {
    let lab = Lab::new();
    let [_, _, model] = trained(&lab);
    let more = ["--norm", "segment", "--ffn", "+8"];
    let mut from = model;
    for to in ["first", "second"] {
        let growth = [&["grow", "--from", &from, "--to", to], &more[..]].concat();
        succeed(lab.command(&growth));
        from = to.into();
    }
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(lab.path("second/config.json")).expect("a file"))
            .expect("JSON");
    let segments = config["blocks"][0]["ffn"]["segments"].as_array();
    let stages: Vec<_> = (segments.expect("segments").iter())
        .map(|segment| segment["stage"].as_u64())
        .collect();
    assert_eq!(stages, [Some(0), Some(1), Some(2)]);
    // A length, a header that says where each array lies, and the arrays.
    let bytes = fs::read(lab.path("second/model.safetensors")).expect("arrays");
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
    let (header, data) = rest.split_at(length);
    let header: serde_json::Value = serde_json::from_slice(header).expect("JSON");
    let keys = |id| {
        let offsets = &header[format!("blocks.0.ffn.segments.{id}.keys")]["data_offsets"];
        let [from, to] = [0, 1].map(|i| offsets[i].as_u64().expect("an offset") as usize);
        &data[from..to]
    };
    assert!(keys(1) != keys(2), "new numbers are drawn for each stage");

    // `--stage` counts from 1, those of the file from 0, and a message says so.
    let ask = |model: &str, stage: &str| {
        lab.command(&[
            "generate", "--model", model, "--tokens", "3", "--stage", stage,
        ])
    };
    for stage in ["1", "2", "3"] {
        succeed(ask("second", stage));
    }
    let counting = "--stage counts stages from 1, config.json from 0";
    for stage in ["0", "4"] {
        fail(ask("second", stage), 2, &["1 to 3", counting]);
    }
    succeed(lab.command(&[
        "grow", "--from", "second", "--to", "deeper", "--layers", "+1",
    ]));
    let blocks = "to which no later stage added blocks";
    fail(ask("deeper", "1"), 2, &[blocks, counting]);
}

#[test]
fn growing_by_nothing_keeps_every_byte_of_the_weights() {
    let lab = Lab::new();
    let [run, checkpoint, _] = trained(&lab);
    let report = json(&succeed(lab.command(&[
        "grow", "--from", &run, "--to", "same", "--ffn", "+0", "--json",
    ])));
    assert_eq!(report["params_before"], report["params_after"]);
    let (old, new) = (files(Path::new(&checkpoint)), files(&lab.path("same")));
    for name in [
        "config.json",
        "model.safetensors",
        "optimizer.safetensors",
        "tokenizer.json",
    ] {
        assert!(old[name] == new[name], "{name} differs");
    }
}

#[test]
fn generation_is_deterministic_and_stops() {
    let lab = Lab::new();
    trained(&lab);
    let generate = |args: &[&str]| {
        let all = [&["generate", "--model", "run", "--prompt", "ka"], args].concat();
        succeed(lab.command(&all))
    };
    // Greedy: no seed, no number of threads matters.
    let greedy = generate(&["--temperature", "0", "--tokens", "20"]);
    let again = generate(&[
        "--temperature",
        "0",
        "--tokens",
        "20",
        "--seed",
        "9",
        "--threads",
        "2",
    ]);
    assert_eq!(greedy.out, again.out);
    assert!(greedy.err.contains(" new tokens at "), "{}", greedy.err);
    // The pass over the prompt gives the first token, so there is no decoding to measure.
    let one = generate(&["--temperature", "0", "--tokens", "1"]);
    assert!(one.err.contains("1 new tokens\n"), "{}", one.err);
    // Sampled: the seed does.
    let sampled =
        |seed: &str| generate(&["--temperature", "1", "--tokens", "20", "--seed", seed]).out;
    assert_eq!(sampled("1"), sampled("1"));
    assert!((2..9).any(|seed| sampled(&seed.to_string()) != sampled("1")));

    // A stop text ends it, and is not printed.
    let text = greedy.out.trim_end_matches('\n');
    let stop = text.chars().nth(8).expect("a text").to_string();
    let end = 2 + text[2..].find(&stop).expect("it is there");
    let stopped = generate(&["--temperature", "0", "--tokens", "20", "--stop", &stop]);
    assert_eq!(stopped.out, format!("{}\n", &text[..end]));

    // The context ends it, with a note.
    let full = generate(&["--temperature", "0", "--tokens", "100"]);
    assert!(
        full.err.contains("the context of 32 tokens is full"),
        "{}",
        full.err
    );
    // The token that fills the context is followed by one more.
    assert!(
        full.err
            .contains(&format!("{} new tokens", CONTEXT - 2 + 1)),
        "{}",
        full.err
    );
    let none = generate(&["--tokens", "0"]);
    assert_eq!(none.out, "ka\n");
}

#[test]
fn a_prompt_comes_from_standard_input() {
    let lab = Lab::new();
    trained(&lab);
    let flags = ["generate", "--model", "run", "--tokens", "9", "--prompt"];
    let mut command = lab.command(&[&flags[..], &["-"]].concat());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all("kaé to".as_bytes()).expect("it reads");
    drop(input);
    let piped: common::Ran = child.wait_with_output().expect("a child").into();
    assert_eq!(piped.code, Some(0), "{piped:#?}");
    let given = succeed(lab.command(&[&flags[..], &["kaé to"]].concat()));
    assert_eq!(piped.out, given.out);
    assert!(piped.out.starts_with("kaé to"), "{piped:#?}");
    // No prompt at all begins a document; one that looks like a flag is still a prompt.
    succeed(lab.command(&["generate", "--model", "run", "--tokens", "3"]));
    let dashes = succeed(lab.command(&[&flags[..], &["--ka"]].concat()));
    assert!(dashes.out.starts_with("--ka"), "{dashes:#?}");
}

#[test]
fn outputs_for_programs_parse() {
    let lab = Lab::new();
    let args = [
        "data",
        "prepare",
        "--input",
        "data.txt",
        "--tokenizer",
        "bpe:300",
        "--out",
        "bpe",
        "--json",
    ];
    let prepared = json(&succeed(lab.command(&args)));
    assert_eq!(prepared["tokenizer"]["vocab_size"], 300);
    let inspected = json(&succeed(lab.command(&["data", "inspect", "bpe", "--json"])));
    assert_eq!(inspected, prepared);
    assert_eq!(
        json(&succeed(lab.command(&["inspect", "bpe", "--json"]))),
        prepared
    );
    let doctor = json(&succeed(lab.command(&["doctor", "--json"])));
    assert!(doctor["cores"].as_u64() > Some(0), "{doctor}");
    // People's forms of the same.
    for args in [
        &["data", "inspect", "bpe"][..],
        &["inspect", "bpe"],
        &["doctor"],
        &["config", "presets"],
    ] {
        assert!(
            succeed(lab.command(args)).out.lines().count() > 3,
            "{args:?}"
        );
    }
}

#[test]
fn a_recipe_is_shown_with_the_origin_of_its_values_and_reads_back() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    let shown = succeed(lab.command(&[
        "config",
        "show",
        "--config",
        &recipe,
        "--set",
        "train.steps=17",
    ]))
    .out;
    let origin = |line: &str| {
        let found = shown
            .lines()
            .find(|l| l.starts_with(line))
            .unwrap_or_else(|| panic!("{line}: {shown}"));
        found
            .split('#')
            .nth(1)
            .expect("an origin")
            .trim()
            .to_string()
    };
    assert_eq!(origin("steps = 17"), "--set");
    assert!(origin("width = 32").ends_with("recipe.toml"));
    assert_eq!(origin("theta ="), "preset nano");
    assert_eq!(
        origin("keep = 2").split('/').next_back(),
        Some("recipe.toml")
    );
    assert_eq!(origin("clip ="), "default");
    let again = lab.file("again.toml", &shown);
    let twice = succeed(lab.command(&["config", "show", "--config", &again])).out;
    let values = |text: &str| {
        text.lines()
            .map(|l| l.split('#').next().unwrap_or("").trim_end().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&shown), values(&twice));
}

#[test]
fn lists_and_texts_of_lines_are_shown_with_their_origin_and_read_back() {
    let lab = Lab::new();
    let growths = "[[grow]]\nat_step = 5\nffn = \"+8\"\nschedule = { lr = 1e-4 }\n\n\
                   [[grow]]\nat_step = 9\nsites = { \"blocks.0.ffn\" = \"+8\" }\n";
    let recipe = lab.recipe("recipe.toml", growths);
    let prompt = "sample.prompt=\"Q: why?\\nwidth = 1\\n[A]\"";
    let args = ["config", "show", "--config", &recipe, "--set", prompt];
    let shown = succeed(lab.command(&args)).out;
    let count = |line: &str, origin: &str| {
        let is = |found: &&str| found.starts_with(line) && found.ends_with(origin);
        shown.lines().filter(is).count()
    };
    assert_eq!(count("at_step = ", "recipe.toml"), 2, "{shown}");
    assert_eq!(count("ffn = \"+8\"", "recipe.toml"), 1, "{shown}");
    assert_eq!(count("ffn = \"+0\"", "# default"), 1, "{shown}");
    assert_eq!(count("lr = 0.0001", "recipe.toml"), 1, "{shown}");
    assert_eq!(
        count("\"blocks.0.ffn\" = \"+8\"", "recipe.toml"),
        1,
        "{shown}"
    );
    assert_eq!(count("[[grow]]", ""), 2, "{shown}");
    assert_eq!(count("# prompt: ", "--set"), 1, "{shown}");

    let again: toml::Table = shown.parse().expect("TOML");
    let prompt = again["sample"]["prompt"].as_str();
    assert_eq!(prompt, Some("Q: why?\nwidth = 1\n[A]"));
    let file = lab.file("again.toml", &shown);
    let twice = succeed(lab.command(&["config", "show", "--config", &file])).out;
    assert_eq!(twice.parse::<toml::Table>().expect("TOML"), again);
}

#[test]
fn the_recipes_that_come_along_are_possible() {
    let lab = Lab::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let recipes = fs::read_dir(folder)
        .expect("recipes")
        .map(|r| r.expect("a recipe").path());
    let mut count = 0;
    for recipe in recipes.filter(|path| path.extension() == Some("toml".as_ref())) {
        succeed(lab.command(&["config", "show", "--config", text_of(&recipe)]));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn completions_are_made_for_each_shell() {
    let lab = Lab::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let made = succeed(lab.command(&["completions", shell])).out;
        for verb in ["generate", "prepare", "freeze-old"] {
            assert!(made.contains(verb), "{shell}: {verb}");
        }
    }
    assert_eq!(run(lab.command(&["completions", "csh"])).code, Some(2));
}

#[test]
fn help_is_there_for_every_verb() {
    let lab = Lab::empty();
    let verbs: [&[&str]; 14] = [
        &[],
        &["demo"],
        &["bench"],
        &["data"],
        &["data", "prepare"],
        &["data", "inspect"],
        &["train"],
        &["grow"],
        &["eval"],
        &["generate"],
        &["logits"],
        &["inspect"],
        &["config", "show"],
        &["doctor"],
    ];
    for verb in verbs {
        let help = succeed(lab.command(&[verb, &["--help"]].concat())).out;
        assert!(help.contains("Usage: tokenformer"), "{verb:?}: {help}");
    }
    assert!(
        succeed(lab.command(&["--version"]))
            .out
            .starts_with("tokenformer ")
    );
}

#[test]
fn weights_of_fewer_bits_lose_little_and_say_so_in_the_benchmark() {
    let lab = Lab::new();
    let [run, ..] = trained(&lab);
    let loss = |precision| {
        let args = [
            "eval",
            "--model",
            &run,
            "--data",
            "data",
            "--json",
            "--precision",
            precision,
        ];
        json(&succeed(lab.command(&args)))["loss"]
            .as_f64()
            .expect("a loss")
    };
    let exact = loss("f32");
    for precision in ["bf16", "int8"] {
        let off = (loss(precision) - exact).abs() / exact;
        assert!(off > 0.0 && off < 0.005, "{precision} is off by {off:e}");
        let args = [
            "generate",
            "--model",
            &run,
            "--prompt",
            "ka",
            "--precision",
            precision,
        ];
        assert!(succeed(lab.command(&args)).out.starts_with("ka"));
    }
    for (what, batch) in [("decode", "3"), ("prefill", "2")] {
        let args = [
            "bench",
            what,
            "--preset",
            "nano",
            "--steps",
            "1",
            "--batch",
            batch,
            "--precision",
            "int8",
            "--json",
        ];
        let found = json(&succeed(lab.command(&args)));
        assert_eq!(
            (&found["precision"], &found["what"]),
            (&"int8".into(), &what.into())
        );
        assert!(found["tokens_per_s"].as_f64() > Some(0.0), "{found}");
        assert!(found["share_of_limit"].as_f64() > Some(0.0), "{found}");
    }
}

#[test]
fn kernels_and_growth_have_benchmarks() {
    let lab = Lab::empty();
    let bench = |what: &str, more: &[&str]| {
        let args = ["bench", what, "--preset", "nano", "--steps", "1"];
        succeed(lab.command(&[&args, more].concat()))
    };
    for precision in ["f32", "bf16"] {
        let found = json(&bench("kernels", &["--json", "--precision", precision]));
        assert_eq!(found["precision"], precision);
        let kernels = found["kernels"].as_array().expect("a list");
        assert!(kernels.len() > 10, "{found}");
        for kernel in kernels {
            assert!(kernel["ms"].as_f64() > Some(0.0), "{kernel}");
            assert!(kernel["gb_per_s"].as_f64() > Some(0.0), "{kernel}");
        }
    }
    assert!(
        bench("kernels", &[])
            .out
            .contains("site backward, with weights")
    );
    let found = json(&bench("growth", &["--json"]));
    let sizes = found["sizes"].as_array().expect("a list");
    let [first, second, third] = &sizes[..] else {
        panic!("three sizes: {found}");
    };
    let tokens = |size: &serde_json::Value| size["ffn_tokens"].as_u64().expect("a number");
    assert_eq!(
        [tokens(second), tokens(third)],
        [2, 4].map(|f| f * tokens(first))
    );
    assert!(
        third["flops_ratio"].as_f64() > second["flops_ratio"].as_f64(),
        "{found}"
    );
    assert!(bench("growth", &[]).out.contains("time over FLOPs"));
}

#[test]
fn the_peak_of_memory_is_that_of_the_work() {
    let lab = Lab::empty();
    let args = "bench train --preset nano --batch 1 --steps 1 --threads 1 --json";
    let args: Vec<&str> = args.split(' ').collect();
    let found = json(&succeed(lab.command(&args)));
    // The measurement of the machine's own limits takes 256 MiB.
    let peak = found["peak_rss_bytes"].as_u64().expect("a number");
    assert!((1 << 20..200 << 20).contains(&peak), "{found}");
    assert!(
        found["machine"]["read_gb_per_s"].as_f64() > Some(0.0),
        "{found}"
    );
}

#[test]
fn models_of_pictures_have_benchmarks() {
    let lab = Lab::empty();
    for (what, batch, precision) in [("train", 3, "f32"), ("predict", 2, "int8")] {
        let args = ["bench", what, "--preset", "vit-digits", "--steps", "1"];
        let batch = batch.to_string();
        let more = ["--json", "--batch", &batch, "--precision", precision];
        let found = json(&succeed(lab.command(&[&args[..], &more].concat())));
        assert!(found["images_per_s"].as_f64() > Some(0.0), "{found}");
        assert!(found["gflops"].as_f64() > Some(0.0), "{found}");
        assert!(found.get("tokens_per_s").is_none(), "{found}");
        let text = succeed(lab.command(&args)).out;
        assert!(text.contains("images/s"), "{text}");
    }
    let args = ["bench", "kernels", "--preset", "vit-digits", "--steps", "1"];
    assert!(succeed(lab.command(&args)).out.contains("T=16"));
}

#[test]
fn characters_that_the_tokenizer_does_not_know_are_told() {
    let lab = Lab::empty();
    let tokenizer = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, " ": 2, "\n": 3}, "merges": []}}"#;
    lab.file("tokenizer.json", tokenizer);
    lab.file("text.txt", "ab ba aab\n\n".repeat(400) + "é\n");
    succeed(lab.command(&[
        "data",
        "prepare",
        "--input",
        "text.txt",
        "--tokenizer",
        "tokenizer.json",
        "--out",
        "data",
    ]));
    let recipe = lab.recipe("recipe.toml", "");
    let ran = succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    let told = "The tokenizer dropped 1 characters of the text";
    assert!(ran.err.contains(told) || ran.out.contains(told), "{ran:#?}");
    let prompt = |prompt| {
        let args = ["generate", "--model", "run", "--tokens", "2", "--prompt"];
        succeed(lab.command(&[&args[..], &[prompt]].concat())).err
    };
    let told = "note: The tokenizer dropped 2 characters of the prompt";
    assert!(prompt("aé bé").contains(told));
    assert!(!prompt("ab").contains("dropped"));
}

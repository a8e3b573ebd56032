//! What is wrong is said: file or key, what was expected, what was found, what helps; with exit code 2 for
//! flags and recipes that cannot be, 1 for what fails; never with a panic.

mod common;

use common::{CONTEXT, Lab, fail, newest, succeed, text_of};
use std::fs;
use std::path::Path;
use std::process::Command;

fn prepare(lab: &Lab, input: &str) -> Command {
    lab.command(&[
        "data",
        "prepare",
        "--tokenizer",
        "bytes",
        "--input",
        input,
        "--out",
        "made",
    ])
}

#[test]
fn bad_texts_are_refused() {
    let lab = Lab::empty();
    lab.file("empty.txt", "");
    lab.file("latin1.txt", b"caf\xe9 au lait\n".repeat(20));
    lab.file(
        "bad.jsonl",
        "{\"text\": \"fine\"}\n{\"title\": \"no text\"}\n",
    );
    fs::create_dir(lab.path("empty")).expect("a folder");
    let refused = [
        ("missing.txt", "missing.txt"),
        ("empty.txt", "empty.txt"),
        ("latin1.txt", "latin1.txt"),
        ("latin1.txt", "0xe9"),
        ("bad.jsonl", "bad.jsonl:2"),
        ("empty", "empty"),
    ];
    for (input, part) in refused {
        fail(prepare(&lab, input), 1, &[part]);
        assert!(!lab.path("made").exists(), "{input}: an output is left");
    }
    fail(
        lab.command(&[
            "demo",
            "--steps",
            "4",
            "--out",
            "demo",
            "--data",
            "empty.txt",
        ]),
        1,
        &["empty.txt"],
    );
}

#[test]
#[cfg(unix)]
fn an_unreadable_text_is_refused() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    let lab = Lab::empty();
    lab.file("secret.txt", common::text(1, 1000));
    // To root nothing is unreadable: then the program runs as nobody, from a place that no one may read.
    let is_root = fs::metadata(lab.path("secret.txt")).expect("a file").uid() == 0;
    let program = lab.path("tokenformer");
    fs::copy(common::BIN, &program).expect("a copy");
    let allow = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our file");
    };
    allow(&lab.path("."), 0o777);
    allow(&lab.path("secret.txt"), 0o000);
    let mut command = Command::new(&program);
    command.current_dir(lab.path("."));
    command.args([
        "data",
        "prepare",
        "--tokenizer",
        "bytes",
        "--input",
        "secret.txt",
        "--out",
        "made",
    ]);
    if is_root {
        command.uid(65534).gid(65534);
    }
    fail(command, 1, &["secret.txt", "ermission"]);
}

#[test]
fn files_in_the_place_of_folders_are_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    lab.file("file", "x");
    fail(lab.train(&recipe, "file", &[]), 1, &["file"]);
    fail(lab.train(&recipe, "file/run", &[]), 1, &["file"]);
    fail(lab.command(&["train", "--config", "."]), 1, &["."]);
    fail(
        lab.command(&["inspect", "file"]),
        1,
        &["file", "no model here"],
    );
    fail(
        lab.command(&["eval", "--model", "file", "--data", "file"]),
        1,
        &["file"],
    );
    fail(lab.command(&["data", "inspect", "file"]), 1, &["file"]);
    fail(
        lab.command(&[
            "data",
            "prepare",
            "--tokenizer",
            "bytes",
            "--input",
            "data.txt",
            "--out",
            "file",
        ]),
        1,
        &["file"],
    );
    fail(
        lab.command(&[
            "data",
            "prepare",
            "--tokenizer",
            "bytes",
            "--input",
            "data.txt",
            "--out",
            "data",
        ]),
        1,
        &["data", "--force"],
    );
}

#[test]
fn a_text_shorter_than_a_context_is_refused() {
    let lab = Lab::empty();
    lab.file("short.txt", "just\na few\nwords\n");
    succeed(lab.command(&[
        "data",
        "prepare",
        "--tokenizer",
        "bytes",
        "--input",
        "short.txt",
        "--out",
        "data",
    ]));
    let recipe = lab.recipe("recipe.toml", "");
    let expected = format!("at least {} tokens", CONTEXT + 1);
    fail(
        lab.train(&recipe, "run", &[]),
        1,
        &["too few tokens", &expected, "model.context of a recipe"],
    );
    assert!(!lab.path("run").exists());
}

/// A dataset of earlier versions may hold out a single token, of which there is no loss.
#[test]
fn a_held_out_text_of_one_token_is_refused() {
    let lab = Lab::new();
    let path = lab.path("data/valid.tokens");
    let mut writer = tokenformer_data::TokenFileWriter::create(&path, 257).expect("a writer");
    writer.push_document(&[7], 1).expect("room for a token");
    let written = writer.finish().expect("a file");
    let summary = lab.path("data/dataset.json");
    let text = fs::read_to_string(&summary).expect("a summary");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["valid"] = serde_json::json!({
        "documents": 1, "text_bytes": 1, "tokens": 1, "hash": written.hash(),
    });
    written.publish().expect("a file");
    fs::write(&summary, json.to_string()).expect("room for a summary");
    let recipe = lab.recipe("recipe.toml", "");
    let data = lab.path("data");
    let words = [
        text_of(&data),
        "the held-out text is too short",
        "at least 2 tokens",
    ];
    fail(lab.command(&["inspect", "--plan", &recipe]), 2, &words);
    fail(lab.train(&recipe, "run", &[]), 2, &words);
}

/// Puts a token into a token file that its vocabulary does not have, with all hashes made to fit.
fn forge(dir: &Path) {
    let path = dir.join("train.tokens");
    let mut bytes = fs::read(&path).expect("a token file");
    bytes[128..130].copy_from_slice(&60_000u16.to_le_bytes());
    let body = *blake3::hash(&bytes[128..]).as_bytes();
    bytes[64..96].copy_from_slice(&body);
    let old = blake3::hash(&fs::read(&path).expect("a file")[..96]).to_hex();
    let seal = blake3::hash(&bytes[..96]);
    bytes[96..128].copy_from_slice(seal.as_bytes());
    fs::write(&path, bytes).expect("a file");
    let summary = fs::read_to_string(dir.join("dataset.json")).expect("a summary");
    assert!(summary.contains(old.as_str()), "the summary holds the hash");
    let forged = summary.replace(old.as_str(), seal.to_hex().as_str());
    fs::write(dir.join("dataset.json"), forged).expect("a file");
}

#[test]
fn tokens_beyond_the_vocabulary_are_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    for tokens in ["[257]", "[[1, 2], [3, 4294967295]]"] {
        let file = lab.file("tokens.json", tokens);
        let logits = [
            "logits",
            "--model",
            "run",
            "--tokens",
            &file,
            "--out",
            "x.safetensors",
        ];
        fail(
            lab.command(&logits),
            1,
            &["not in the vocabulary", "below 257"],
        );
    }
    forge(&lab.path("data"));
    fail(
        lab.train(&recipe, "new", &[]),
        1,
        &["train.tokens", "60000"],
    );
    fail(
        lab.command(&["eval", "--model", "run", "--data", "data"]),
        1,
        &["train.tokens", "60000"],
    );
}

#[test]
fn token_files_of_other_shapes_are_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    let logits = |tokens: &str| {
        lab.command(&[
            "logits",
            "--model",
            "run",
            "--tokens",
            tokens,
            "--out",
            "x.safetensors",
        ])
    };
    let bad: [(&str, i32); 10] = [
        ("", 1),
        ("{}", 1),
        ("[1, \"two\"]", 1),
        ("[1, -2]", 1),
        ("[1, 4294967296]", 1),
        ("[1.5]", 1),
        ("[]", 2),
        ("[[]]", 2),
        ("[[1, 2], [3]]", 2),
        ("[[1], 2]", 1),
    ];
    for (content, code) in bad {
        let file = lab.file("tokens.json", content);
        fail(logits(&file), code, &["tokens.json", "rectangle"]);
    }
    let long: Vec<usize> = (0..=CONTEXT).map(|i| i % 7).collect();
    let file = lab.file("tokens.json", format!("{long:?}"));
    fail(logits(&file), 1, &["at most 32 tokens", "33"]);
    let deep = lab.file("tokens.json", "[".repeat(100_000));
    fail(logits(&deep), 1, &["tokens.json"]);
    let not_safetensors = lab.file(
        "tokens.safetensors",
        "\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}\u{ff}",
    );
    fail(logits(&not_safetensors), 1, &["tokens.safetensors"]);
    fail(logits("missing.json"), 1, &["missing.json"]);
}

#[test]
fn contradictions_of_a_model_are_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let contradictions: [(&str, &[&str]); 13] = [
        (
            "model.heads=3",
            &["heads", "a divisor of the width 32", "3"],
        ),
        (
            "model.rotary_fraction=0.2",
            &["fraction", "an even number", "3"],
        ),
        ("model.rotary_fraction=2.0", &["fraction", "at most 1"]),
        ("model.vocab=100", &["model.vocab", "at least 257", "100"]),
        ("model.width=0", &["width", "between 1 and"]),
        ("model.slots.ffn=0", &["model.slots.ffn", "at least 1", "0"]),
        ("model.context=0", &["context", "between 1 and", "0"]),
        ("model.causal=false", &["model.causal", "not causal"]),
        ("train.batch=0", &["train", "at least 1"]),
        ("optimizer.beta1=1.0", &["optimizer.beta1", "below 1"]),
        ("schedule.lr=-1.0", &["schedule", "above 0"]),
        ("sample.temperature=-1.0", &["temperature", "0 or more"]),
        ("log.every=0", &["log.every", "at least 1"]),
    ];
    for (set, parts) in contradictions {
        fail(lab.train(&recipe, "run", &["--set", set]), 2, parts);
    }
    assert!(!lab.path("run").exists());
    // Plans of such a run are of no use either.
    let set = ["--set", "model.causal=false"];
    let plan = ["inspect", "--plan", &recipe];
    fail(lab.command(&[&plan[..], &set].concat()), 2, &["not causal"]);
}

/// Numbers that are possible, and no longer are when they are rounded to the single precision of the optimizer.
#[test]
fn numbers_that_vanish_in_single_precision_are_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let vanishing: [(&str, &[&str]); 9] = [
        ("schedule.lr=1e-60", &["schedule.lr: ", "above 0"]),
        ("schedule.lr=1e60", &["schedule.lr: ", "3e38"]),
        (
            "optimizer.beta1=0.999999999",
            &["optimizer.beta1", "below 1"],
        ),
        (
            "optimizer.beta2=0.9999999999",
            &["optimizer.beta2", "below 1"],
        ),
        ("optimizer.eps=1e-60", &["optimizer.eps", "from 0 on"]),
        (
            "optimizer.weight_decay=1e-50",
            &["optimizer.weight_decay", "from 0 on"],
        ),
        ("optimizer.clip=1e-60", &["optimizer.clip", "from 0 on"]),
        (
            "optimizer.layer_decay=1e-60",
            &["optimizer.layer_decay", "above 0"],
        ),
        ("schedule.min_ratio=2.0", &["schedule.min_ratio", "0 and 1"]),
    ];
    for (set, parts) in vanishing {
        fail(lab.train(&recipe, "run", &["--set", set]), 2, parts);
    }
    let growth = "\n[[grow]]\nat_step = 9\nffn = \"+8\"\nschedule = { lr = 1e-60 }\n";
    let grown = lab.recipe("grown.toml", growth);
    fail(lab.train(&grown, "run", &[]), 2, &["grow[0].schedule.lr"]);
    assert!(!lab.path("run").exists());
}

#[test]
fn growths_that_cannot_be_are_refused_before_the_first_step() {
    let lab = Lab::new();
    let growths: [(&str, &[&str]); 11] = [
        ("at_step = 0", &["grow.at_step", "between 1 and"]),
        (
            "at_step = 30\nffn = \"+1\"",
            &["grow.at_step", "between 1 and"],
        ),
        ("at_step = 5\nffn = \"8\"", &["ffn", "neither +N"]),
        (
            "at_step = 5\nffn = \"=8\"",
            &["ffn", "at least the 48 tokens"],
        ),
        (
            "at_step = 5\nlayers = 1000000000000",
            &["grow.layers", "at most"],
        ),
        (
            "at_step = 5\nffn = \"+8\"\nkeys = \"zero\"\nvalues = \"zero\"",
            &["keys and values", "never learn"],
        ),
        ("at_step = 5\ntau = \"anneal\"", &["anneal:STEPS"]),
        (
            "at_step = 9\n[[grow]]\nat_step = 9",
            &["grow.at_step", "9 then 9"],
        ),
        // Later ones, in the network that those before them leave.
        (
            "at_step = 9\nffn = \"+8\"\n[[grow]]\nat_step = 20\nffn = \"=50\"",
            &["grow[1], at step 20", "ffn", "at least the 56 tokens"],
        ),
        (
            "at_step = 9\nffn = \"+8\"\n[[grow]]\nat_step = 20\nsites = { \"blocks.2.ffn\" = \"+8\" }",
            &["grow[1], at step 20", "blocks.2.ffn", "from 0 to 1"],
        ),
        (
            "at_step = 9\nffn = \"+8\"\n[[grow]]\nat_step = 12\nffn = \"=56\"\n[[grow]]\nat_step = 20\n\
             ffn = \"+800000000\"",
            &["grow[2], at step 20", "ffn"],
        ),
    ];
    for (growth, parts) in growths {
        let recipe = lab.recipe("recipe.toml", &format!("\n[[grow]]\n{growth}\n"));
        fail(lab.train(&recipe, "run", &[]), 2, parts);
        let records = lab.path("run").join("metrics.jsonl");
        assert!(!records.exists(), "{growth}: a run has begun");
    }
}

#[test]
fn absurd_sizes_are_refused_with_both_amounts_of_memory() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let memory = ["not enough memory", "available", "B"];
    let absurd: [&[&str]; 4] = [
        &["--set", "model.width=1048576", "--set", "model.layers=1000"],
        &["--set", "train.batch=16777216"],
        &[
            "--set",
            "train.batch=16777216",
            "--set",
            "model.layers=16384",
        ],
        &[
            "--set",
            "model.slots.ffn=16777216",
            "--set",
            "model.layers=100",
        ],
    ];
    for sets in absurd {
        fail(lab.train(&recipe, "run", sets), 1, &memory);
    }
    // Beyond what 64 bits count.
    let largest = [
        "--set",
        "model.width=16777216",
        "--set",
        "model.heads=1048576",
        "--set",
        "model.slots={qkv=16777216, proj=16777216, ffn=16777216}",
        "--set",
        "model.layers=16384",
    ];
    fail(
        lab.train(&recipe, "run", &largest),
        2,
        &["model: ", "at most", "numbers"],
    );
    let numbers = [
        "model.width=17000000",
        "model.layers=1000000000",
        "train.batch=9223372036854775807",
        "train.steps=9223372036854775807",
        "model.context=9223372036854775807",
    ];
    for set in numbers {
        fail(lab.train(&recipe, "run", &["--set", set]), 2, &[]);
    }
    assert!(!lab.path("run").exists());

    // In a recipe, as a command, as an evaluation.
    let growth = "\n[[grow]]\nat_step = 5\nffn = \"+16000000\"\nlayers = 16000\n";
    let growing = lab.recipe("growing.toml", growth);
    fail(lab.train(&growing, "growing", &[]), 1, &memory);
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    let grow = |amount: &[&str], code: i32| {
        let args = ["grow", "--from", "run", "--to", "grown"];
        fail(lab.command(&[&args[..], amount].concat()), code, &[]);
        assert!(!lab.path("grown").exists());
    };
    grow(&["--ffn", "+16000000", "--layers", "+16000"], 1);
    grow(&["--ffn", "+18446744073709551615"], 2);
    grow(&["--ffn", "+99999999999999999999"], 2);
    grow(&["--layers", "+18446744073709551615"], 2);
    grow(&["--qkv", "=5"], 2);
    for tokenizer in ["bpe:99999999999", "bpe:0", "bpe:", "word"] {
        let args = [
            "data",
            "prepare",
            "--input",
            "data.txt",
            "--out",
            "made",
            "--tokenizer",
            tokenizer,
        ];
        fail(lab.command(&args), 2, &["--tokenizer", tokenizer]);
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "\n[[grow]]\nat_step = 5\nfnn = \"+8\"\n");
    fail(
        lab.train(&recipe, "run", &[]),
        2,
        &["recipe.toml: grow.fnn", "did you mean grow.ffn?"],
    );
    let recipe = lab.recipe("recipe.toml", "");
    let typos = [
        ("train.step=5", "train.steps"),
        ("optimiser.clip=1", "optimizer"),
        ("model.contxt=5", "model.context"),
        ("schedule.warmup=5", "schedule.warmup_steps"),
        ("sed=5", "seed"),
    ];
    for (set, near) in typos {
        let hint = format!("did you mean {near}?");
        fail(
            lab.train(&recipe, "run", &["--set", set]),
            2,
            &["--set: ", "unknown key", &hint],
        );
    }
    fail(
        lab.train(&recipe, "run", &["--set", "model.preset=nanno"]),
        2,
        &["nanno", "nano"],
    );
    fail(lab.command(&["trian"]), 2, &["trian", "train"]);
    fail(
        lab.command(&["train", "--confg", "x"]),
        2,
        &["--confg", "--config"],
    );
}

/// A key that the model has no use for is refused where somebody sets it to another value.
#[test]
fn keys_without_effect_are_refused() {
    let lab = Lab::new();
    let sites = lab.recipe("sites.toml", "");
    let plain = lab.plain_recipe("plain.toml", "");
    let pictures = lab.file("pictures.toml", "[model]\npreset = \"vit-digits\"\n");
    let flat = lab.file("flat.toml", "[schedule]\nshape = \"constant\"\n");
    let wsd = lab.file("wsd.toml", "[schedule]\nshape = \"wsd\"\ndecay_steps = 9\n");
    let show = |recipe: &str, sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        let args: Vec<&str> = ["config", "show", "--config", recipe]
            .into_iter()
            .chain(sets)
            .collect();
        lab.command(&args)
    };
    for (recipe, set) in [
        (&sites, "model.mlp_hidden=64"),
        (&sites, "model.bias=true"),
        (&sites, "lr_base.width=8"),
        (&sites, "lr_base.mlp_hidden=8"),
        (&sites, "images.workers=2"),
        (&sites, "images.augment.flip=0.5"),
        (&sites, "eval.images=10"),
        (&plain, "model.norm=segment"),
        (&plain, "model.theta=softmax"),
        (&plain, "model.rotary_base=500.0"),
        (&plain, "lr_base.qkv=8"),
        (&plain, "lr_base.ffn=8"),
        (&sites, "schedule.decay_steps=4"),
        (&sites, "schedule.decay_share=0.5"),
        (&sites, "schedule.decay=sqrt"),
        (&flat, "schedule.decay=sqrt"),
        (&flat, "schedule.min_ratio=0.0"),
        (&wsd, "schedule.decay_share=0.5"),
        (&sites, "ema.warmup=5"),
        (&sites, "planner.confidence=0.5"),
        (&sites, "planner.evidence=[\"runs/a\"]"),
        (&pictures, "sample.every=5"),
        (&pictures, "sample.tokens=5"),
        (&pictures, "eval.tokens=5"),
        (&pictures, "model.mlp_hidden=5"),
    ] {
        let key = set.split('=').next().unwrap_or_default();
        let key = key.strip_suffix(".flip").unwrap_or(key);
        let place = format!("--set: {key}: this key has no effect here");
        fail(show(recipe, &[set]), 2, &[&place]);
    }
    let own = "\n[[grow]]\nat_step = 5\nffn = \"+8\"\nschedule = { shape = \"constant\", min_ratio = 0.5 }\n";
    let grown = lab.recipe("grown.toml", own);
    let problem = [
        "grown.toml: grow[0].schedule.min_ratio: this key has no effect here",
        "the learning rate stays the highest",
        "got:      0.5",
    ];
    fail(show(&grown, &[]), 2, &problem);
    let images = lab.recipe("images.toml", "\n[images]\nworkers = 2\n");
    let place = "images.toml: images.workers: this key has no effect here";
    fail(lab.train(&images, "run", &[]), 2, &[place]);
    fail(lab.command(&["inspect", "--plan", &images]), 2, &[place]);
    assert!(!lab.path("run").exists());

    // What nobody changes, what is true, and what has an effect.
    for (recipe, sets) in [
        (&sites, &["model.bias=false", "lr_base.ffn=8"][..]),
        (&plain, &["model.norm=joint", "lr_base.width=8"]),
        (&pictures, &["sample.tokens=0", "images.workers=2"]),
        (
            &sites,
            &["schedule.min_ratio=0.0", "schedule.decay_share=0.2"],
        ),
        (&flat, &["schedule.min_ratio=0.1", "ema.warmup=10"]),
        (&wsd, &["schedule.decay=sqrt", "schedule.min_ratio=0.0"]),
        (&sites, &["ema.decay=0.9", "ema.warmup=5"]),
    ] {
        succeed(show(recipe, sets));
    }
    // A run that began when it was not refused goes on with its own recipe.
    succeed(lab.train(&sites, "run", &["--set", "train.steps=2"]));
    let own = lab.path("run/config.toml");
    let text = fs::read_to_string(&own).expect("a recipe");
    let text = text.replace("decay_share = 0.2", "decay_share = 0.5");
    let idle = "[images]\nworkers = 2\n[ema]\nwarmup = 5\n[planner]\nconfidence = 0.5\n";
    fs::write(&own, format!("{text}\n{idle}")).expect("room for a recipe");
    succeed(lab.train(text_of(&own), "run", &["--set", "train.steps=3"]));
}

#[test]
fn malformed_recipes_and_values_are_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let wrong: [(&str, &[&str]); 8] = [
        (
            "train.steps=many",
            &["train.steps", "a whole number", "many"],
        ),
        ("train.steps=-1", &["train.steps", "a whole number", "-1"]),
        ("train.steps=1.5", &["train.steps", "a whole number", "1.5"]),
        ("train=5", &["train", "a table"]),
        ("model.theta=relu", &["model.theta", "relu"]),
        ("train.steps", &["KEY=VALUE"]),
        ("=5", &["KEY=VALUE"]),
        ("grow.ffn=5", &["[[grow]]"]),
    ];
    for (set, parts) in wrong {
        fail(lab.train(&recipe, "run", &["--set", set]), 2, parts);
    }
    let not_toml = lab.file("not.toml", "seed = \n[data\n");
    fail(
        lab.train(&not_toml, "run", &[]),
        2,
        &["not.toml", "not TOML"],
    );
    let not_text = lab.file("binary.toml", b"seed = \xff\xfe");
    fail(
        lab.train(&not_text, "run", &[]),
        2,
        &["binary.toml", "UTF-8"],
    );
    fail(lab.train("missing.toml", "run", &[]), 1, &["missing.toml"]);
    fail(
        lab.command(&["train", "--out", "run"]),
        2,
        &["data.dir", "data prepare"],
    );
    fail(
        lab.train(&recipe, "run", &["--set", "data.dir=nowhere"]),
        1,
        &["nowhere"],
    );
    assert!(!lab.path("run").exists());
}

#[test]
fn flags_out_of_range_are_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    let flags: [(&[&str], &str); 39] = [
        // Of two flags that exclude each other, what needs one of them is refused beside the other one.
        (&["train", "--resume", "run", "--decay", "3"], "--decay"),
        (
            &[
                "plan",
                "growth",
                "run",
                "--flops",
                "1e9",
                "--flop-rate",
                "1e9",
            ],
            "--flop-rate",
        ),
        (&["inspect", "run", "--set", "train.batch=2"], "--set"),
        (&["train", "--threads", "0"], "--threads"),
        (&["train", "--threads", "1000000"], "--threads"),
        (&["train", "--threads", "two"], "--threads"),
        (&["demo", "--steps", "1"], "--steps"),
        (&["demo", "--minutes", "0"], "--minutes"),
        (&["demo", "--minutes", "NaN"], "--minutes"),
        (&["demo", "--seed", "18446744073709551615"], "--seed"),
        (
            &[
                "data", "prepare", "--input", "data.txt", "--out", "x", "--valid", "1",
            ],
            "--valid",
        ),
        (
            &[
                "data", "prepare", "--input", "data.txt", "--out", "x", "--valid", "NaN",
            ],
            "--valid",
        ),
        (&["data", "prepare", "--out", "x"], "--input"),
        (
            &["eval", "--model", "run", "--data", "data", "--batch", "0"],
            "--batch",
        ),
        (
            &[
                "eval",
                "--model",
                "run",
                "--data",
                "data",
                "--context",
                "33",
            ],
            "--context",
        ),
        (
            &["eval", "--model", "run", "--data", "data", "--stride", "0"],
            "--stride",
        ),
        (
            &["eval", "--model", "run", "--data", "data", "--stride", "33"],
            "--stride",
        ),
        (
            &[
                "eval", "--model", "run", "--data", "data", "--split", "test",
            ],
            "--split",
        ),
        (
            &[
                "eval",
                "--model",
                "run",
                "--data",
                "data",
                "--max-unreadable",
                "0.5",
            ],
            "--max-unreadable",
        ),
        (
            &[
                "eval",
                "--model",
                "run",
                "--data",
                "data",
                "--task-data",
                "data",
            ],
            "--task-data",
        ),
        (
            &["eval", "--model", "run", "--data", "data", "--limit", "5"],
            "--limit",
        ),
        (
            &["eval", "--model", "run", "--data", "data", "--samples", "x"],
            "--samples",
        ),
        (
            &[
                "data", "prepare", "--input", "data.txt", "--out", "x", "--grey",
            ],
            "--grey",
        ),
        (
            &[
                "data", "prepare", "--input", "data.txt", "--out", "x", "--resize", "8",
            ],
            "--resize",
        ),
        (
            &["eval", "--model", "run", "--tasks", "piqa", "--limit", "0"],
            "--limit",
        ),
        (
            &[
                "eval",
                "--model",
                "run",
                "--tasks",
                "piqa",
                "--context",
                "8",
            ],
            "--context",
        ),
        (
            &["eval", "--model", "run", "--tasks", "piqa", "--stride", "8"],
            "--stride",
        ),
        (
            &["eval", "--model", "run", "--tasks", "piqa", "--tokens", "8"],
            "--tokens",
        ),
        (
            &["eval", "--model", "run", "--tasks", "piqa", "--batch", "8"],
            "--batch",
        ),
        (
            &[
                "eval", "--model", "run", "--tasks", "piqa", "--split", "test",
            ],
            "--split",
        ),
        (
            &["eval", "--model", "run", "--tasks", "piqa", "--report"],
            "--report",
        ),
        (
            &["generate", "--model", "run", "--temperature=-1"],
            "temperature",
        ),
        (
            &["generate", "--model", "run", "--temperature", "NaN"],
            "temperature",
        ),
        (&["generate", "--model", "run", "--top-p", "0"], "top_p"),
        (
            &["grow", "--from", "run", "--to", "x", "--layers", "=3"],
            "--layers",
        ),
        (
            &["grow", "--from", "run", "--to", "x", "--freeze-old"],
            "--ffn",
        ),
        (
            &["grow", "--from", "run", "--to", "x", "--tau", "free"],
            "--tau",
        ),
        (
            &[
                "grow", "--from", "run", "--to", "x", "--ffn", "+8", "--at", "start",
            ],
            "growth: at",
        ),
        (
            &[
                "grow", "--from", "run", "--to", "x", "--ffn", "+8", "--blocks", "copy",
            ],
            "growth: blocks",
        ),
    ];
    for (args, part) in flags {
        fail(lab.command(args), 2, &[part]);
        assert!(!lab.path("x").exists());
    }
}

#[test]
fn a_resume_under_other_conditions_is_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", common::GROWTH);
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=20"]));
    lab.prepare("other", 2);
    let more = ["--set", "train.steps=30"];
    let changed: [(&str, &[&str]); 4] = [
        ("model.slots.ffn=56", &["[model]", "48", "56"]),
        ("model.init=fan-in", &["[model]", "Released", "FanIn"]),
        ("seed=8", &["another seed", "7", "8"]),
        ("data.dir=other", &["other training data"]),
    ];
    let before = common::files(&lab.path("run/checkpoints"));
    for (set, parts) in changed {
        let sets = [&more[..], &["--set", set]].concat();
        fail(lab.train(&recipe, "run", &sets), 2, parts);
    }
    let without = lab.recipe("without.toml", "");
    fail(
        lab.train(&without, "run", &more),
        2,
        &["past growths have changed", "step 13: +8 qkv"],
    );
    let earlier = lab.recipe(
        "earlier.toml",
        &format!("\n[[grow]]\nat_step = 5\nffn = \"+8\"\n{}", common::GROWTH),
    );
    fail(
        lab.train(&earlier, "run", &more),
        2,
        &["a growth in the past", "step 5"],
    );
    assert!(
        common::files(&lab.path("run/checkpoints")) == before,
        "the run is as it was"
    );

    // Where to start is looked at as closely.
    fail(
        lab.train(&recipe, "run", &["--resume", "never"]),
        2,
        &["there is a run here"],
    );
    fail(
        lab.train(&recipe, "new", &["--resume", "nowhere"]),
        1,
        &["nowhere", "no model here"],
    );
    lab.recipe("plain.toml", "");
    succeed(lab.train(&without, "plain", &[]));
    let other = newest(&lab.path("plain"));
    fail(
        lab.train(&recipe, "run", &["--resume", text_of(&other)]),
        2,
        &["there is a run here"],
    );
    let earlier = lab.path("plain/checkpoints/step-00000028");
    fail(
        lab.train(&without, "plain", &["--resume", text_of(&earlier)]),
        2,
        &["a later one", "step 30", "another --out"],
    );
}

#[test]
fn another_tokenizer_is_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    succeed(lab.command(&[
        "data",
        "prepare",
        "--tokenizer",
        "bpe:300",
        "--input",
        "data.txt",
        "--out",
        "bpe",
    ]));
    fail(
        lab.command(&["eval", "--model", "run", "--data", "bpe"]),
        1,
        &["another tokenizer", "--tokenizer"],
    );
}

#[test]
fn models_that_are_none_are_refused() {
    let lab = Lab::new();
    fs::create_dir(lab.path("empty")).expect("a folder");
    fs::create_dir(lab.path("half")).expect("a folder");
    lab.file("half/model.safetensors", "not really");
    for (dir, part) in [
        ("missing", "no model here"),
        ("empty", "no model here"),
        ("half", "half"),
        ("data.txt", "a file"),
    ] {
        fail(lab.command(&["inspect", dir]), 1, &[dir, part]);
        fail(lab.command(&["generate", "--model", dir]), 1, &[dir, part]);
        fail(
            lab.command(&["eval", "--model", dir, "--data", "data"]),
            1,
            &[dir, part],
        );
        fail(
            lab.command(&["grow", "--from", dir, "--to", "x", "--ffn", "+1"]),
            1,
            &[dir, part],
        );
    }
}

#[test]
#[cfg(unix)]
fn prompts_that_are_no_text_or_too_long_are_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    lab.file("latin1", b"caf\xe9");
    let mut command = lab.command(&["generate", "--model", "run", "--prompt", "-"]);
    command.stdin(fs::File::open(lab.path("latin1")).expect("a file"));
    fail(command, 1, &["standard input", "UTF-8"]);
    let long = "x".repeat(CONTEXT + 1);
    fail(
        lab.command(&["generate", "--model", "run", "--prompt", &long]),
        1,
        &["context", "at most 32"],
    );
}

/// Runs with a limit on file sizes, in blocks of 512 bytes, which acts like a full disk.
#[cfg(unix)]
fn limited(lab: &Lab, blocks: u32, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.current_dir(lab.path("."));
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(command.get_program());
    shell.args(command.get_args());
    shell
}

#[test]
#[cfg(unix)]
fn a_full_disk_ends_a_run_that_goes_on_when_there_is_room() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", common::GROWTH);
    succeed(lab.train(&recipe, "whole", &[]));
    // Less than the weights, then more than those but less than the grown moments, then less than the report.
    let largest = common::files(&newest(&lab.path("whole")));
    let moments = largest["optimizer.safetensors"].len() as u32 / 512;
    for blocks in [1, 30, moments - 8] {
        let out = format!("run-{blocks}");
        fail(
            limited(&lab, blocks, &lab.train(&recipe, &out, &[])),
            1,
            &[&out, "File too large"],
        );
        let half = |name: &String| name.contains(".tmp-step");
        assert!(
            !common::files(&lab.path(&out)).keys().any(half),
            "a half-written checkpoint is left"
        );
        succeed(lab.train(&recipe, &out, &[]));
        common::Remains::of(&lab.path(&out))
            .assert_equal(&common::Remains::of(&lab.path("whole")), &out);
    }
    fail(
        limited(&lab, 20, &prepare(&lab, "data.txt")),
        1,
        &["made", "File too large"],
    );
    assert!(!lab.path("made/dataset.json").exists());
    let grow = lab.command(&["grow", "--from", "whole", "--to", "grown", "--ffn", "+64"]);
    fail(limited(&lab, 100, &grow), 1, &["grown"]);
    assert!(!lab.path("grown").exists());
    let tokens = lab.file("tokens.json", "[[1, 2, 3, 4, 5, 6, 7, 8, 9]]");
    let logits = lab.command(&[
        "logits",
        "--model",
        "whole",
        "--tokens",
        &tokens,
        "--out",
        "x.safetensors",
    ]);
    fail(limited(&lab, 2, &logits), 1, &["x.safetensors"]);
    assert!(!lab.path("x.safetensors").exists());
}

/// Runs with a separate file system mounted at `dir`, if this machine allows it; else `None`.
#[cfg(target_os = "linux")]
fn mounted(lab: &Lab, options: &str, dir: &str, command: &Command) -> Option<Command> {
    let script =
        format!("mount -t tmpfs -o {options} tmpfs {dir} || exit 77; shift; exec \"$0\" \"$@\"");
    let mut shell = Command::new("unshare");
    shell.current_dir(lab.path("."));
    shell.args(["-m", "sh", "-c"]);
    fs::create_dir_all(lab.path(dir)).expect("a folder");
    let mut probe = Command::new("unshare");
    probe.current_dir(lab.path("."));
    let possible = probe
        .args(["-m", "sh", "-c", &format!("mount -t tmpfs tmpfs {dir}")])
        .output()
        .is_ok_and(|output| output.status.success());
    shell
        .arg(script)
        .arg(command.get_program())
        .arg("-")
        .args(command.get_args());
    possible.then_some(shell)
}

#[test]
#[cfg(target_os = "linux")]
fn small_and_read_only_disks_are_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let train = lab.train(&recipe, "disk/run", &[]);
    let Some(small) = mounted(&lab, "size=200k", "disk", &train) else {
        eprintln!("not tested: mounting is not allowed here");
        return;
    };
    fail(small, 1, &["disk/run", "space"]);
    let read_only = mounted(&lab, "ro", "disk", &train).expect("as before");
    fail(read_only, 1, &["disk/run", "Read-only"]);
    let grow = [
        "data",
        "prepare",
        "--tokenizer",
        "bytes",
        "--input",
        "data.txt",
        "--out",
        "disk/data",
    ];
    let prepare = lab.command(&grow);
    let small = mounted(&lab, "size=16k", "disk", &prepare).expect("as before");
    fail(small, 1, &["disk/data", "space"]);
    let read_only = mounted(&lab, "ro", "disk", &prepare).expect("as before");
    fail(read_only, 1, &["disk/data", "Read-only"]);
}

#[test]
#[cfg(target_os = "linux")]
fn outputs_that_are_full_or_closed_do_no_harm() {
    use std::process::Stdio;
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=2"]));
    let full = || {
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("Linux has it")
    };
    let verbs: [&[&str]; 6] = [
        &["config", "presets"],
        &["config", "show"],
        &["inspect", "run", "--json"],
        &["doctor"],
        &["generate", "--model", "run"],
        &["completions", "bash"],
    ];
    for verb in verbs {
        let mut command = lab.command(verb);
        command.stdout(full());
        fail(command, 1, &["standard output", "space"]);

        let mut command = lab.command(verb);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        command.stdout(writer);
        succeed(command);
    }
    // A log on a full disk does not end the run.
    let mut command = lab.train(&recipe, "quiet", &[]);
    command.stderr(full());
    succeed(command);
    common::Remains::of(&lab.path("quiet"));

    // What is no plain file is not replaced by one.
    let status = Command::new("mkfifo")
        .arg(lab.path("fifo"))
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("mkfifo runs").success());
    let tokens = lab.file("tokens.json", "[1, 2]");
    fail(
        lab.command(&[
            "logits", "--model", "run", "--tokens", &tokens, "--out", "fifo",
        ]),
        2,
        &["--out", "fifo"],
    );
    use std::os::unix::fs::FileTypeExt;
    assert!(
        fs::metadata(lab.path("fifo"))
            .expect("it is there")
            .file_type()
            .is_fifo()
    );
}

#[test]
fn benchmarks_that_cannot_be_are_refused() {
    let lab = Lab::empty();
    let bench = |args: &[&str]| lab.command(&[&["bench", "--preset", "nano"], args].concat());
    fail(
        bench(&["train", "--precision", "int8"]),
        2,
        &["--precision", "int8"],
    );
    fail(
        bench(&["decode", "--precision", "auto"]),
        2,
        &["--precision", "auto"],
    );
    fail(
        bench(&["decode", "--recompute", "blocks"]),
        2,
        &["--recompute", "bench train"],
    );
    fail(
        bench(&["decode", "--batch", "0"]),
        2,
        &["--batch", "got:      0"],
    );
    fail(bench(&["prefill", "--batch", "1000000"]), 2, &["--batch"]);
    fail(bench(&["predict"]), 2, &["a model of pictures", "nano"]);
    for threads in ["0", "1000000000000", "18446744073709551615"] {
        for what in ["kernels", "train"] {
            fail(bench(&[what, "--threads", threads]), 2, &["--threads"]);
        }
    }
    fail(
        bench(&["kernels", "--device", "abacus"]),
        2,
        &["--device", "abacus"],
    );
    fail(
        bench(&["kernels", "--device", "cuda"]),
        2,
        &["--device", "the CPU"],
    );
    for what in ["prefill", "decode", "growth"] {
        let args = ["bench", what, "--preset", "vit-digits"];
        fail(lab.command(&args), 2, &["a language model", "vit-digits"]);
    }
}

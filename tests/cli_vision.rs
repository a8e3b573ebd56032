//! Runs on pictures: training with an average, growth, evaluation, prediction, and what is refused.

mod common;

use common::{Lab, Remains, fail, json, newest, run, succeed, text_of};
use std::fs;
use std::path::Path;
use tokenformer_report::{EvalRecord, Record, read};
use tokenformer_store::SafetensorsFile;

/// Random changes of all kinds, an average, stochastic depth.
const EVERYTHING: &str = r#"
[images.augment]
crop = { kind = "resized", scale = [0.3, 1.0], ratio = [0.75, 1.33] }
flip = 0.5
smoothing = 0.1
rand_augment = { operations = 2 }
erase = { probability = 0.5 }
mix = { mixup_alpha = 0.8 }

[ema]
decay = 0.9
"#;

/// A growth at a step without a checkpoint, compared with training on.
const GROWTH: &str = "
[[grow]]
at_step = 9
control = 3
qkv = \"+8\"
proj = \"+8\"
ffn = \"+16\"
layers = 1
";

/// Ways to begin new tokens whose size follows that of old ones.
const MATCHED: &str = "
[[grow]]
at_step = 9
ffn = \"+16\"
keys = \"zero\"
values = \"matched\"
";

/// With these, weights and their average are at their best at different steps.
const SETS_OF_TWO_BESTS: [&str; 3] = [
    "schedule.lr=1e-2",
    "schedule.shape=\"constant\"",
    "eval.every=3",
];

fn recipe(lab: &Lab, name: &str, more: &str) -> String {
    let data = lab.path("set");
    let text = format!(
        r#"
seed = 5

[data]
dir = "{}"

[model]
preset = "vit-cifar"
width = 32
layers = 2
heads = 2
slots = {{ qkv = 16, proj = 16, ffn = 32 }}
input = {{ height = 16, width = 16 }}

[train]
steps = 18
batch = 6
accumulate = 2
drop_path = 0.3

[schedule]
lr = 5e-3
warmup_steps = 3

[eval]
every = 6

[checkpoint]
every = 4
keep = 3

[log]
every = 2
{more}"#,
        text_of(&data)
    );
    lab.file(name, text)
}

/// A folder with a set of three classes of fractals.
fn lab() -> Lab {
    let lab = Lab::empty();
    make(&lab, "set", &[]);
    lab
}

fn make(lab: &Lab, out: &str, more: &[&str]) {
    let args = [
        "data",
        "make",
        "fractals",
        "--classes",
        "3",
        "--per-class",
        "20",
        "--test-per-class",
        "4",
        "--size",
        "16",
        "--valid",
        "0.3",
        "--out",
        out,
    ];
    succeed(lab.command(&[&args, more].concat()));
}

fn evals(run: &Path) -> Vec<EvalRecord> {
    let records = read(run.join("metrics.jsonl")).expect("records");
    let evals = records.into_iter().filter_map(|record| match record {
        Record::Eval(r) => Some(r),
        _ => None,
    });
    evals.collect()
}

#[test]
fn threads_and_workers_change_no_byte() {
    let lab = lab();
    let recipe = recipe(&lab, "recipe.toml", &format!("{EVERYTHING}{GROWTH}"));
    let with = |out: &str, threads: &str, workers: &str| {
        let workers = format!("images.workers={workers}");
        succeed(lab.train(&recipe, out, &["--threads", threads, "--set", &workers]));
        Remains::of(&lab.path(out))
    };
    let first = with("one", "1", "0");
    with("two", "2", "2").assert_equal(&first, "threads and workers");
    with("four", "4", "3").assert_equal(&first, "more threads and workers");
    let files = fs::read_dir(newest(&lab.path("one"))).expect("a checkpoint");
    let names: Vec<String> = files
        .map(|file| {
            file.expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    for name in ["ema.safetensors", "classes.json", "preprocess.json"] {
        assert!(names.iter().any(|n| n == name), "no {name} in {names:?}");
    }
}

#[test]
fn what_is_computed_again_changes_no_byte() {
    let lab = lab();
    let recipe = recipe(&lab, "recipe.toml", &format!("{EVERYTHING}{GROWTH}"));
    let with = |out: &str| {
        let recompute = format!("train.recompute={out}");
        succeed(lab.train(&recipe, out, &["--set", &recompute]));
        Remains::of(&lab.path(out))
    };
    let first = with("none");
    for other in ["scores", "blocks"] {
        with(other).assert_equal(&first, other);
    }
}

/// Cuts a finished run back to its oldest checkpoint, and lets it go on.
fn goes_on_with_the_same_bytes(lab: &Lab, recipe: &str) {
    succeed(lab.train(recipe, "run", &[]));
    let whole = Remains::of(&lab.path("run"));
    let mut checkpoints: Vec<_> = fs::read_dir(lab.path("run").join("checkpoints"))
        .expect("checkpoints")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| text_of(path).contains("/step-"))
        .collect();
    checkpoints.sort();
    assert!(checkpoints.len() > 1, "{checkpoints:?}");
    for later in &checkpoints[1..] {
        fs::remove_dir_all(later).expect("a checkpoint");
    }
    for pointer in ["best", "best-ema"] {
        fs::remove_file(lab.path("run").join(pointer)).expect("a pointer");
    }
    succeed(lab.train(recipe, "run", &[]));
    let again = Remains::of(&lab.path("run"));
    again.shared_with(&whole).assert_equal(&whole, "gone on");
}

#[test]
fn a_run_on_pictures_goes_on_with_the_same_bytes() {
    let lab = lab();
    let recipe = recipe(&lab, "recipe.toml", &format!("{EVERYTHING}{GROWTH}"));
    // Enough checkpoints that the growth and its control are done again.
    goes_on_with_the_same_bytes(&lab, &recipe);
}

#[test]
fn a_run_on_text_goes_on_with_the_same_average() {
    let lab = Lab::new();
    let growth = "[ema]\ndecay = 0.95\n[[grow]]\nat_step = 26\ncontrol = 2\nffn = \"+16\"\ntau = \"tracked\"\n";
    let recipe = lab.recipe("recipe.toml", growth);
    goes_on_with_the_same_bytes(&lab, &recipe);
    assert!(newest(&lab.path("run")).join("ema.safetensors").exists());
    let args = ["eval", "--model", "run", "--data", "data", "--json"];
    let trained = json(&succeed(lab.command(&args)));
    let average = json(&succeed(
        lab.command(&[&args[..], &["--weights", "ema"]].concat()),
    ));
    assert_ne!(trained["loss"], average["loss"]);
}

#[test]
fn weights_and_their_average_have_a_best_checkpoint_each() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "[ema]\ndecay = 0.95\n");
    // Weights that jump about, and an average that lags behind them.
    let sets = SETS_OF_TWO_BESTS.iter().flat_map(|set| ["--set", set]);
    succeed(lab.train(&recipe, "run", &sets.collect::<Vec<_>>()));
    let evals = evals(&lab.path("run"));
    let best = |loss: &dyn Fn(&EvalRecord) -> f64| {
        let measured = evals.iter().filter(|eval| eval.step > 0);
        let least = measured.min_by(|a, b| loss(a).total_cmp(&loss(b)));
        least
            .map(|eval| (eval.step, loss(eval)))
            .expect("evaluations")
    };
    let trained = best(&|eval| eval.loss);
    let average = best(&|eval| eval.ema_loss.expect("an average"));
    assert_ne!(trained.0, average.0, "{evals:?}");
    let measured = |weights: &str| {
        let args = ["eval", "--model", "run", "--data", "data", "--json"];
        let more = ["--weights", weights, "--tokens", "256"];
        let found = json(&succeed(lab.command(&[&args[..], &more].concat())));
        let step = found["model"]
            .as_str()
            .and_then(|dir| dir.split("step-").last());
        (
            step.and_then(|step| step.parse().ok()).expect("a step"),
            found["loss"].as_f64().expect("a loss"),
        )
    };
    assert_eq!(measured("trained"), trained);
    assert_eq!(measured("ema"), average);
    // A run of an earlier version has marked no average.
    fs::remove_file(lab.path("run").join("best-ema")).expect("a pointer");
    assert_eq!(measured("ema").0, trained.0);
}

#[test]
fn a_growth_keeps_weights_and_average_to_the_bit() {
    for (name, growth) in [("joint", GROWTH), ("matched", MATCHED)] {
        let lab = lab();
        let recipe = recipe(&lab, "recipe.toml", &format!("{EVERYTHING}{growth}"));
        succeed(lab.train(&recipe, "run", &[]));
        let around: Vec<_> = (evals(&lab.path("run")).into_iter())
            .filter(|eval| eval.step == 9)
            .collect();
        let [before, after] = around.as_slice() else {
            panic!("{name}: {around:?}");
        };
        assert!(after.params > before.params, "{name}");
        let measured = |e: &EvalRecord| {
            [
                Some(e.loss),
                e.top1,
                e.top5,
                e.ema_loss,
                e.ema_top1,
                e.ema_top5,
            ]
            .map(|x| x.expect("measured").to_bits())
        };
        assert_eq!(measured(before), measured(after), "{name}");
        assert_ne!(before.loss, before.ema_loss.unwrap(), "{name}");
        let records = read(lab.path("run").join("metrics.jsonl")).expect("records");
        let moved = records.iter().find_map(|record| match record {
            Record::Grow(r) => Some(r.max_logit_diff),
            _ => None,
        });
        assert_eq!(moved, Some(0.0), "{name}");
    }
}

#[test]
fn a_grown_checkpoint_keeps_its_average_and_classes() {
    let lab = lab();
    let recipe = recipe(&lab, "recipe.toml", EVERYTHING);
    succeed(lab.train(&recipe, "run", &[]));
    let grow = [
        "grow", "--from", "run", "--to", "grown", "--ffn", "+16", "--layers", "+1",
    ];
    succeed(lab.command(&grow));
    // New rows whose size follows that of old ones are the same in both.
    let matched = ["grow", "--from", "run", "--to", "matched", "--ffn", "+16"];
    let start = ["--keys", "zero", "--values", "matched"];
    succeed(lab.command(&[&matched[..], &start].concat()));
    let [trained, average] = ["model.safetensors", "ema.safetensors"].map(|file| {
        let file = SafetensorsFile::open(&lab.path("matched").join(file)).expect("arrays");
        let array = |id| format!("blocks.1.ffn.segments.{id}.values");
        [0, 1].map(|id| file.read_f32(&array(id)).expect("an array"))
    });
    assert_ne!(trained[0], average[0]);
    assert_eq!(trained[1], average[1]);

    let newest = newest(&lab.path("run"));
    for weights in ["trained", "ema"] {
        let of = |model: &str| {
            let args = [
                "eval",
                "--model",
                model,
                "--data",
                "set",
                "--weights",
                weights,
                "--json",
            ];
            json(&succeed(lab.command(&args)))
        };
        let (before, after) = (of(text_of(&newest)), of("grown"));
        for key in ["loss", "top1", "top5", "ece", "f1"] {
            assert_eq!(before[key], after[key], "{weights}: {key}");
        }
        assert!(after["param_count"].as_f64() > before["param_count"].as_f64());
    }
}

#[test]
fn a_run_on_pictures_speaks_of_images() {
    let lab = lab();
    let recipe = recipe(&lab, "recipe.toml", EVERYTHING);
    let ran = succeed(lab.train(&recipe, "run", &[]));
    assert!(
        ran.err.contains("img/s") && ran.err.contains("top-1"),
        "{}",
        ran.err
    );
    for file in ["metrics.jsonl", "metrics.csv", "report.html"] {
        let text = fs::read_to_string(lab.path("run").join(file)).expect("a file");
        for word in [
            "perplexity",
            "bits_per_byte",
            "Bits per byte",
            "tokens_per_s",
        ] {
            assert!(!text.contains(word), "{word} in {file}");
        }
        assert!(text.contains("images"), "{file}");
    }
    let planned = json(&succeed(
        lab.command(&["inspect", "--plan", &recipe, "--json"]),
    ));
    assert!(
        planned["modes"][0]["peak_bytes"].as_u64() > Some(1 << 20),
        "{planned}"
    );
}

/// A PNG file of `size` x `size` pixels, uncompressed.
fn png(size: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        let step = |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
            })
        };
        !bytes.iter().fold(!0, step)
    };
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        let body = [kind, data].concat();
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(&body);
        file.extend(crc(&body).to_be_bytes());
    };
    let side = (size as u32).to_be_bytes();
    chunk(b"IHDR", &[&side[..], &side, &[8, 2, 0, 0, 0]].concat());
    let rows: Vec<u8> = (0..size)
        .flat_map(|y| {
            let row = (0..size).flat_map(|x| pixel(x, y)).collect::<Vec<u8>>();
            std::iter::once(0).chain(row)
        })
        .collect();
    let adler = rows.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    let len = rows.len() as u16;
    let stored = [
        &[0x78, 1, 1][..],
        &len.to_le_bytes(),
        &(!len).to_le_bytes(),
        &rows,
    ]
    .concat();
    let sum = ((adler.1 << 16) | adler.0).to_be_bytes();
    chunk(b"IDAT", &[&stored[..], &sum].concat());
    chunk(b"IEND", &[]);
    file
}

/// Pictures of two classes in folders, of other sizes than the model reads.
fn tree(lab: &Lab) {
    let mut random = common::Random(3);
    for split in ["train", "val"] {
        for class in ["blue, dark", "red"] {
            let folder = lab.path("tree").join(split).join(class);
            fs::create_dir_all(&folder).expect("a folder");
            for number in 0..5 {
                let size = 17 + random.below(20) as usize;
                let noise: Vec<u8> = (0..size * size).map(|_| random.below(256) as u8).collect();
                let file = png(size, |x, y| match class {
                    "red" => [200, noise[y * size + x], 10],
                    _ => [10, noise[y * size + x], 200],
                });
                fs::write(folder.join(format!("{number}.png")), file).expect("a file");
            }
        }
    }
}

#[test]
fn prediction_and_evaluation_give_the_same_probabilities() {
    let lab = Lab::empty();
    tree(&lab);
    for (storage, more) in [("indexed", &[][..]), ("packed", &["--resize", "18"][..])] {
        let set = [
            "data",
            "prepare",
            "--images",
            "tree",
            "--out",
            "set",
            "--force",
            "--storage",
            storage,
        ];
        succeed(lab.command(&[&set, more].concat()));
        let recipe = recipe(
            &lab,
            "recipe.toml",
            "[images]\ncrop_share = 0.875\nresize = true\n",
        );
        let _ = fs::remove_dir_all(lab.path("run"));
        succeed(lab.train(&recipe, "run", &["--set", "train.steps=8"]));
        let eval = [
            "eval", "--model", "run", "--data", "set", "--out", "found", "--force",
        ];
        let told = succeed(lab.command(&eval));
        assert!(
            told.out.contains("10 evaluated + 0 skipped = 10 found"),
            "{}",
            told.out
        );
        let csv = fs::read_to_string(lab.path("found").join("predictions.csv")).expect("rows");
        let args = ["predict", "tree/val", "--model", "run", "--json"];
        let predicted = json(&succeed(lab.command(&args)));
        assert_eq!(predicted["predicted"], 10);
        for picture in predicted["pictures"].as_array().expect("pictures") {
            let file = picture["file"].as_str().expect("a name");
            let end = file.strip_prefix("tree/").expect("a file of the tree");
            let row = csv
                .lines()
                .find(|row| row.replace('"', "").starts_with(end));
            let row = row.unwrap_or_else(|| panic!("no {end} in\n{csv}"));
            for class in picture["classes"].as_array().expect("classes") {
                let probability = class["probability"].as_f64().expect("a number");
                let field = format!(",{probability:?}");
                assert!(row.contains(&field), "{storage}: no {field} in {row}");
            }
        }
        let summary = fs::read_to_string(lab.path("found").join("summary.json")).expect("a file");
        for key in [
            "model",
            "top1",
            "top1_err",
            "top5",
            "top5_err",
            "precision",
            "recall",
            "f1",
            "param_count",
            "img_size",
            "crop_pct",
            "interpolation",
        ] {
            assert!(
                summary.contains(&format!("\"{key}\":")),
                "no {key} in {summary}"
            );
        }
    }
}

#[test]
fn evaluation_says_where_it_shows_other_inputs_than_prediction() {
    let lab = Lab::empty();
    tree(&lab);
    for (out, more) in [
        ("set", &[][..]),
        ("black", &["--background", "0,0,0", "--resize", "18"]),
        ("grey", &["--grey"]),
    ] {
        let args = ["data", "prepare", "--images", "tree", "--out", out];
        succeed(lab.command(&[&args, more].concat()));
    }
    let recipe = recipe(&lab, "recipe.toml", "[images]\nresize = true\n");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=4"]));
    let eval = |data: &str| lab.command(&["eval", "--model", "run", "--data", data]);
    let told = succeed(eval("set")).err;
    assert!(!told.contains("warning"), "{told}");
    let told = succeed(eval("black")).err;
    for part in [
        "background: [0, 0, 0] in black, [255, 255, 255] in the model's preprocess.json",
        "reduced short side: 18 in black, no in the model's preprocess.json",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    assert_eq!(told.matches("warning").count(), 2, "{told}");
    let parts = [
        "pictures of other channels than the model's",
        "expected: pictures in colour",
        "got:      grey pictures",
    ];
    fail(eval("grey"), 1, &parts);
}

#[test]
fn a_model_of_pictures_does_not_go_on_with_others() {
    let lab = lab();
    make(&lab, "other", &["--seed", "9"]);
    let recipe = recipe(&lab, "recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=4"]));
    let other = ["--resume", "run", "--set", "data.dir=other"];
    let refused = |more: &[&str], part: &str| {
        let flags = [&other[..], more].concat();
        let told = fail(
            lab.train(&recipe, "x", &flags),
            2,
            &[part, "train a new model"],
        );
        assert!(!told.err.contains("tokenizer"), "{}", told.err);
    };
    refused(
        &["--new-data"],
        "a model of pictures cannot go on with others",
    );
    refused(&[], "other training data");
}

#[test]
fn losses_of_pictures_shown_in_another_way_are_told_apart() {
    let lab = lab();
    let recipe = recipe(&lab, "recipe.toml", "");
    let measured_on = |crop_share: &str| {
        let set = format!("images.crop_share={crop_share}");
        succeed(lab.train(
            &recipe,
            crop_share,
            &["--set", "train.steps=4", "--set", &set],
        ));
        let state = fs::read(newest(&lab.path(crop_share)).join("state.json")).expect("a state");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        state["measured_on"].as_str().expect("a text").to_string()
    };
    let [whole, centre] = ["1.0", "0.5"].map(measured_on);
    assert_ne!(whole, centre);
    // Earlier versions wrote what comes first.
    let begins = |text: &str| text.split(", shown as ").next().map(str::to_string);
    assert_eq!(begins(&whole), begins(&centre));
    assert!(whole.starts_with("0 of "), "{whole}");
}

#[test]
fn pictures_that_cannot_be_read_are_counted_and_never_replaced() {
    let lab = Lab::empty();
    tree(&lab);
    let set = [
        "data",
        "prepare",
        "--images",
        "tree",
        "--out",
        "set",
        "--storage",
        "indexed",
    ];
    succeed(lab.command(&set));
    let recipe = recipe(&lab, "recipe.toml", "[images]\nresize = true\n");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=4"]));
    fs::write(lab.path("tree/val/red/0.png"), "<html>").expect("a file");
    let eval = ["eval", "--model", "run", "--data", "set"];
    fail(
        lab.command(&eval),
        1,
        &["too many pictures that cannot be read", "red/0.png"],
    );
    let told = succeed(lab.command(&[&eval[..], &["--max-unreadable", "0.5"]].concat()));
    assert!(
        told.out.contains("9 evaluated + 1 skipped = 10 found"),
        "{}",
        told.out
    );
    let told = succeed(lab.command(&["predict", "tree/val", "--model", "run"]));
    assert!(
        told.err.contains("9 predicted + 1 skipped = 10 found"),
        "{}",
        told.err
    );
    let html = ["predict", "tree/val/red/0.png", "--model", "run"];
    fail(lab.command(&html), 1, &["no pictures", "0.png"]);

    // The report of a run says of how many pictures it speaks. Its evaluations see the first five alone, so that it ends.
    let few = ["--set", "train.steps=4", "--set", "eval.images=5"];
    succeed(lab.train(&recipe, "again", &few));
    let report = [&eval[..], &["--max-unreadable", "0.5"]].concat();
    let report = [&report[..], &["--out", "found", "--report"]].concat();
    succeed(lab.command(&report));
    for page in ["again/report.html", "found/report.html"] {
        let page = fs::read_to_string(lab.path(page)).expect("a page");
        for part in [
            "9 evaluated + 1 skipped = 10 found",
            "red/0.png: the file changed since the dataset was made",
        ] {
            assert!(page.contains(part), "no {part:?}");
        }
    }
}

#[test]
fn models_and_data_that_do_not_fit_are_refused() {
    let lab = lab();
    make(&lab, "small", &["--force"]);
    lab.prepare("text", 1);
    let recipe = recipe(&lab, "recipe.toml", "");
    let train = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        lab.train(&recipe, "refused", &sets)
    };
    let text = format!("data.dir={}", text_of(&lab.path("text")));
    fail(
        train(&[&text]),
        2,
        &["data.dir: the data are text, and the model reads images"],
    );
    fail(
        train(&["model.vocab=4"]),
        2,
        &["model.vocab: the model has other classes", "expected: 3"],
    );
    fail(
        train(&["model.input.channels=1"]),
        2,
        &["model.input.channels: "],
    );
    let size = ["model.input.height=32", "model.input.width=32"];
    fail(
        train(&size),
        2,
        &["another size than the dataset's", "images.resize = true"],
    );
    fail(train(&["model.input.patch=[5, 5]"]), 2, &["patch"]);
    fail(train(&["images.augment.flip=2.0"]), 2, &["flip"]);
    fail(train(&["images.augment.crop.kind=round"]), 2, &["images"]);
    fail(train(&["ema.decay=1.0"]), 2, &["ema.decay"]);
    fail(train(&["train.drop_path=1.0"]), 2, &["train.drop_path"]);
    fail(
        train(&["optimizer.layer_decay=0.0"]),
        2,
        &["optimizer.layer_decay"],
    );
    // A set that is not there is made by the verb for pictures, or for the set that the folder is named after.
    let own = "data prepare --images FILES-OR-FOLDERS --out mine";
    fail(train(&["data.dir=mine"]), 1, &["no dataset", own]);
    let public = "with: tokenformer data fetch fashion-mnist --out data/fashion-mnist";
    let set = "data.dir=data/fashion-mnist";
    fail(train(&[set]), 1, &["no dataset", public]);
    let made = "with: tokenformer data make fractals --out fractals";
    fail(train(&["data.dir=fractals"]), 1, &["no dataset", made]);
    fail(
        lab.command(&["data", "export", "--data", "set", "--out", "tokens"]),
        2,
        &["--data", "a dataset of text", "one of pictures"],
    );
    let words = lab.file("words.toml", "[model]\npreset = \"nano\"\n");
    let set = format!("data.dir={}", text_of(&lab.path("set")));
    fail(
        lab.train(&words, "refused", &["--set", &set]),
        2,
        &["model.preset: the data are pictures, and the model reads text"],
    );
    assert!(
        !lab.path("refused")
            .join("checkpoints")
            .join("step-00000004")
            .exists()
    );

    succeed(lab.train(&recipe, "run", &["--set", "train.steps=4"]));
    let parts = ["a model that reads text", "`predict`"];
    fail(
        lab.command(&["generate", "--model", "run", "--prompt", "x"]),
        2,
        &parts,
    );
    fail(
        lab.command(&["eval", "--model", "run", "--data", "text"]),
        2,
        &parts,
    );
    let eval = ["eval", "--model", "run", "--data", "set"];
    let with = |more: &[&str]| lab.command(&[&eval[..], more].concat());
    fail(
        with(&["--stride", "4"]),
        2,
        &["--stride", "a dataset of text"],
    );
    fail(
        with(&["--weights", "ema"]),
        1,
        &["no average of weights here"],
    );
    let made = [
        "data",
        "make",
        "fractals",
        "--classes",
        "4",
        "--per-class",
        "8",
        "--size",
        "16",
        "--out",
        "four",
    ];
    succeed(lab.command(&[&made[..], &["--valid", "0.3"]].concat()));
    let other = ["eval", "--model", "run", "--data", "four"];
    fail(lab.command(&other), 1, &["other classes than the model's"]);
    let nothing = run(lab.command(&["predict", "nowhere.png", "--model", "run"]));
    assert_eq!(nothing.code, Some(1), "{nothing:#?}");
}

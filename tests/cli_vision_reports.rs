//! What runs on pictures leave to look at, other image sizes, the demo and the study on pictures, and labels that travel
//! with a model.

mod common;

use common::{Lab, Ran, fail, json, loss_columns, succeed, text_of};
use std::fs;
use std::path::Path;

const TOKENFORMER: &str = "preset = \"vit-cifar\"\nslots = { qkv = 16, proj = 16, ffn = 32 }";
const PLAIN: &str = "preset = \"vit-plain-cifar\"";
const GROWTH: &str = "[[grow]]\nat_step = 6\nqkv = \"+8\"\nproj = \"+8\"\nffn = \"+16\"\n";

/// A set of three classes of fractals, and a run on it.
fn trained(model: &str, more: &str) -> Lab {
    let lab = Lab::empty();
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
        "set",
    ];
    succeed(lab.command(&args));
    let recipe = lab.file(
        "recipe.toml",
        format!(
            "seed = 5\n[data]\ndir = \"{}\"\n[model]\n{model}\nwidth = 32\nlayers = 2\nheads = 2\n\
             input = {{ height = 16, width = 16 }}\n[train]\nsteps = 12\nbatch = 6\n[schedule]\nlr = 5e-3\n\
             warmup_steps = 3\n[eval]\nevery = 6\n[checkpoint]\nevery = 6\n[ema]\ndecay = 0.9\n{more}",
            text_of(&lab.path("set"))
        ),
    );
    succeed(lab.train(&recipe, "run", &[]));
    lab
}

fn read(lab: &Lab, file: &str) -> String {
    fs::read_to_string(lab.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A page that needs nothing from outside.
fn check_page(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "no {part:?}");
    }
    let links = page.replace("http://www.w3.org/2000/svg", "");
    let links = links.replace("src=\"data:image/png;base64,", "");
    for outside in ["http:", "https:", "src=", "href=", "@import", "<script"] {
        assert!(!links.contains(outside), "{outside}");
    }
}

const SECTIONS: [&str; 8] = [
    "data:image/png;base64,iVBORw0KGgo",
    "Least sure",
    "Where attention looked",
    "fractal-1 taken for ",
    "Expected calibration error",
    "block 1, ffn",
    "Parameter tokens of one class",
    "Energy of stage 2",
];

#[test]
fn a_finished_run_shows_pictures_and_parameter_tokens() {
    let lab = trained(TOKENFORMER, GROWTH);
    check_page(&read(&lab, "run/report.html"), &SECTIONS);
    // A plain model has no parameter tokens to show.
    let lab = trained(PLAIN, "");
    let page = read(&lab, "run/report.html");
    check_page(&page, &SECTIONS[..5]);
    assert!(!page.contains("Parameter tokens"));
}

#[test]
fn an_evaluation_makes_the_same_report_of_any_split() {
    let lab = trained(TOKENFORMER, GROWTH);
    let eval = [
        "eval",
        "--model",
        "run",
        "--data",
        "set",
        "--split",
        "test",
        "--weights",
        "ema",
        "--out",
        "found",
        "--report",
    ];
    let told = succeed(lab.command(&eval));
    // After so few steps the logits are small: the best divisor for these few pictures is below 1/16.
    assert!(told.out.contains("temperature    none"), "{}", told.out);
    check_page(&read(&lab, "found/report.html"), &SECTIONS);
    let rows = read(&lab, "found/tokens.csv");
    assert!(rows.starts_with("class,place,token,stage,selectivity,effect\nfractal-0,1,"));
    let summary: serde_json::Value =
        serde_json::from_str(&read(&lab, "found/summary.json")).unwrap();
    assert!(summary["temperature"].is_null() && summary["temperature_pictures"].is_null());
    assert!(read(&lab, "found/report.html").contains("none was fitted"));
    let held_out = ["eval", "--model", "run", "--data", "set", "--json"];
    let summary = json(&succeed(lab.command(&held_out)));
    let temperature = summary["temperature"].as_f64().expect("a temperature");
    assert!((0.1..4.0).contains(&temperature), "{temperature}");
    assert_eq!(summary["temperature_pictures"], summary["evaluated"]);
    let packed = [&eval[..], &["--force", "--precision", "bf16"]].concat();
    fail(
        lab.command(&packed),
        2,
        &["--precision", "f32 with --report"],
    );
    let nowhere = ["eval", "--model", "run", "--data", "set", "--report"];
    assert_eq!(common::run(lab.command(&nowhere)).code, Some(2));
}

#[test]
fn pictures_are_shown_at_other_sizes() {
    let lab = trained(TOKENFORMER, "");
    let eval = |more: &[&str]| {
        let args = ["eval", "--model", "run", "--data", "set", "--json"];
        json(&succeed(lab.command(&[&args, more].concat())))
    };
    let [usual, same, large] = [
        eval(&[]),
        eval(&["--image-size", "16"]),
        eval(&["--image-size", "24x32"]),
    ];
    assert_eq!(usual, same, "positions that are resampled to the same grid");
    assert_eq!(large["img_size"], 32);
    assert_ne!(large["loss"], usual["loss"]);
    for wrong in ["17", "0", "9999", "x", "3x4x5"] {
        let args = [
            "eval",
            "--model",
            "run",
            "--data",
            "set",
            "--image-size",
            wrong,
        ];
        let ran = common::run(lab.command(&args));
        assert!(matches!(ran.code, Some(1 | 2)), "{wrong}: {ran:#?}");
        assert!(
            ran.err.contains("help: ") || ran.err.contains("--help"),
            "{ran:#?}"
        );
    }
}

#[test]
fn classes_and_preprocessing_travel_with_a_model() {
    let lab = trained(PLAIN, "");
    succeed(lab.command(&["export", "--model", "run", "--to", "exported"]));
    for file in ["classes.json", "preprocess.json"] {
        assert!(lab.path("exported").join(file).exists(), "no {file}");
    }
    succeed(lab.command(&["convert", "--from", "exported", "--to", "back"]));
    let eval = |model: &str| -> serde_json::Value {
        let args = ["eval", "--model", model, "--data", "set", "--json"];
        json(&succeed(lab.command(&args)))
    };
    let (before, after) = (
        eval(text_of(&common::newest(&lab.path("run")))),
        eval("back"),
    );
    for key in ["loss", "top1", "ece"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    // Without them, the user is told; damaged ones are refused.
    fs::write(lab.path("exported/classes.json"), "[\"a\"]").expect("a file");
    fail(
        lab.command(&["convert", "--from", "exported", "--to", "wrong"]),
        1,
        &["other classes than the model's"],
    );
    for file in ["classes.json", "preprocess.json"] {
        fs::remove_file(lab.path("exported").join(file)).expect("a file");
    }
    let told = succeed(lab.command(&["convert", "--from", "exported", "--to", "bare"]));
    assert!(
        told.out.contains("no classes.json and preprocess.json"),
        "{}",
        told.out
    );
}

#[test]
fn the_demo_on_pictures_trains_grows_and_reports() {
    let lab = Lab::empty();
    let demo = ["demo", "--images", "--steps", "4", "--out", "demo"];
    let ran = succeed(lab.command(&demo));
    for part in ["growing after 2", "top 1", "report.html", "ask it"] {
        assert!(ran.out.contains(part), "no {part:?}: {ran:#?}");
    }
    assert!(ran.err.contains("computes exactly what it did"), "{ran:#?}");
    check_page(&read(&lab, "demo/report.html"), &SECTIONS[..7]);
    let predict = [
        "predict",
        "demo/pictures",
        "--model",
        "demo",
        "--weights",
        "ema",
    ];
    let told = succeed(lab.command(&predict));
    assert!(
        told.err.contains("10 predicted + 0 skipped = 10 found"),
        "{told:#?}"
    );
    // A demo that is done is not done again.
    let records = loss_columns(&lab.path("demo"));
    succeed(lab.command(&demo));
    assert_eq!(records, loss_columns(&lab.path("demo")));
    assert_eq!(
        common::run(lab.command(&["demo", "--images", "--data", "x"])).code,
        Some(2)
    );
}

fn results(study: &Path) -> Vec<(String, serde_json::Value)> {
    let files = fs::read_dir(study.join("results")).expect("results");
    let mut found: Vec<_> = files
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("a result");
            let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            value["seconds"] = 0.into();
            (text_of(&path).to_string(), value)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn a_study_on_pictures_runs_what_is_missing_and_reports() {
    let lab = Lab::empty();
    let study = |more: &[&str]| -> Ran {
        let args = [
            "reproduce",
            "vision",
            "--steps",
            "8",
            "--seeds",
            "2",
            "--out",
            "study",
            "--arms",
            "tokenformer,vit,grown",
        ];
        succeed(lab.command(&[&args, more].concat()))
    };
    let ran = study(&[]);
    assert_eq!(ran.err.matches("test top-1").count(), 6, "{}", ran.err);
    let first = results(&lab.path("study"));
    assert_eq!(first.len(), 6);
    for (name, result) in &first {
        assert!(result["test"][1]["pictures"] == 120, "{name}: {result}");
        let grown = result["arm"] == "grown";
        assert_eq!(result["growth_logit_difference"] == 0.0, grown, "{name}");
    }
    let page = read(&lab, "study/report.html");
    for part in [
        "vit − tokenformer",
        "a plain ViT of as many parameters",
        "Held-out accuracy over cost",
    ] {
        assert!(page.contains(part), "no {part:?}");
    }
    let again = study(&[]);
    assert!(!again.err.contains("test top-1"), "{}", again.err);
    assert_eq!(first, results(&lab.path("study")));
    let listed = study(&["--list"]);
    assert!(listed.out.contains("2 of 2 known so far"), "{}", listed.out);
    let unknown = ["reproduce", "vision", "--arms", "no", "--out", "other"];
    fail(lab.command(&unknown), 2, &["no such arm", "exp-l1"]);
    let unknown = ["reproduce", "vision", "--profile", "large"];
    fail(lab.command(&unknown), 2, &["smoke or laptop"]);
}

#[test]
fn a_recipe_is_shown_with_the_size_of_its_model() {
    let lab = Lab::empty();
    let shown = succeed(lab.command(&["config", "show", "--set", "model.preset=vit-b16"]));
    let parts = ["# The model has 114759400 parameters", "with 1000 classes"];
    for part in parts {
        assert!(shown.out.contains(part), "no {part:?} in {}", shown.out);
    }
}

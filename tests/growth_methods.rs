//! The ways to grow by name, in recipes and with `grow`: runs go on from any checkpoint with the same bytes, and count what
//! they compute.

mod common;

use common::{Lab, fail, files, json, newest, succeed, text_of};
use std::path::{Path, PathBuf};
use tokenformer_report::{Record, read};

/// Growths at steps without a planned checkpoint.
const SITES: &str = r#"
[[grow]]
at_step = 9
method = "zero-key"
query = "+8"
ffn = "+24"
tau = "tracked"
sites = { "blocks.0.proj" = "+4" }

[[grow]]
at_step = 17
method = "identity-blocks"
layers = 2
old_lr = 0.5

[[grow]]
at_step = 23
method = "random-key-zero-value"
ffn = "+16"
moments = "reset"
"#;

const PLAIN: &str = r#"
[[grow]]
at_step = 9
method = "ffn"
ffn = "+24"

[[grow]]
at_step = 17
method = "clone"
width = "=64"

[[grow]]
at_step = 23
method = "interpose"
layers = 2
"#;

fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/step-{step:08}"))
}

#[test]
fn a_grown_run_goes_on_from_any_checkpoint_with_the_same_bytes() {
    let lab = Lab::new();
    let plain = lab.plain_recipe("plain.toml", PLAIN);
    let averaged = lab.recipe("averaged.toml", &format!("\n[ema]\ndecay = 0.9\n{SITES}"));
    for recipe in [lab.recipe("sites.toml", SITES), plain, averaged] {
        let keep = ["--set", "checkpoint.keep=20"];
        let whole = format!("{recipe}-whole");
        succeed(lab.train(&recipe, &whole, &keep));
        let whole = PathBuf::from(whole);
        for step in [12, 20, 24] {
            let from = checkpoint(&whole, step);
            let out = format!("{recipe}-from-{step}");
            let more = ["--resume", text_of(&from)];
            succeed(lab.train(&recipe, &out, &[&keep[..], &more].concat()));
            let end = |run: &Path| files(&checkpoint(run, 30));
            let (got, want) = (end(Path::new(&out)), end(&whole));
            assert!(got.len() >= 6 && got.keys().eq(want.keys()));
            for (name, bytes) in &want {
                assert!(got[name] == *bytes, "{recipe} from {step}: {name}");
            }
        }
    }
}

/// A growth that finds everything as large as it asks for is none, whatever grew before it.
#[test]
fn a_growth_that_adds_nothing_does_not_hinder_a_resume() {
    let lab = Lab::new();
    let sites = r#"
[[grow]]
at_step = 9
sites = { "blocks.0.ffn" = "=48" }

[[grow]]
at_step = 13
ffn = "+8"

[[grow]]
at_step = 17
ffn = "=56"
"#;
    let plain = r#"
[[grow]]
at_step = 9
ffn = "=48"

[[grow]]
at_step = 13
method = "clone"
width = "=64"

[[grow]]
at_step = 17
ffn = "=96"
"#;
    let plain = lab.plain_recipe("plain.toml", plain);
    for recipe in [lab.recipe("sites.toml", sites), plain] {
        let keep = ["--set", "checkpoint.keep=20"];
        let whole = format!("{recipe}-whole");
        let ran = succeed(lab.train(&recipe, &whole, &keep));
        for step in [9, 17] {
            let told = format!("the growth at step {step} adds nothing");
            assert!(ran.err.contains(&told), "{}", ran.err);
        }
        let whole = PathBuf::from(whole);
        for step in [12, 16, 20] {
            let from = checkpoint(&whole, step);
            let out = format!("{recipe}-from-{step}");
            let more = ["--resume", text_of(&from)];
            succeed(lab.train(&recipe, &out, &[&keep[..], &more].concat()));
            assert!(files(&checkpoint(Path::new(&out), 30)) == files(&checkpoint(&whole, 30)));
        }
    }
    // What the `grow` command did counts as well.
    let short = ["--set", "train.steps=8", "--set", "checkpoint.keep=20"];
    succeed(lab.train(&lab.recipe("recipe.toml", ""), "run", &short));
    let grow = ["grow", "--from", "run", "--to", "grown", "--ffn", "+8"];
    succeed(lab.command(&grow));
    let nothing = lab.recipe("nothing.toml", "[[grow]]\nat_step = 9\nffn = \"=56\"\n");
    let more = ["--resume", "grown", "--set", "train.steps=16"];
    succeed(lab.train(&nothing, "more", &more));
    succeed(lab.train(&nothing, "more", &["--set", "train.steps=20"]));
    // A growth that would have added something is still missed.
    let missed = lab.recipe("missed.toml", "[[grow]]\nat_step = 9\nffn = \"=57\"\n");
    fail(
        lab.train(&missed, "more", &["--set", "train.steps=24"]),
        2,
        &["a growth in the past"],
    );
}

/// Operations of training after each step that was recorded.
fn flops(run: &Path) -> Vec<(u64, f64)> {
    let records = read(run.join("metrics.jsonl")).expect("records");
    let of = |record: &Record| match record {
        Record::Train(r) => Some((r.step, r.flops.expect("they are known"))),
        Record::Eval(r) => Some((r.step, r.flops.expect("they are known"))),
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

#[test]
fn a_run_counts_what_it_computes() {
    let lab = Lab::new();
    let grown = lab.recipe("grown.toml", "\n[[grow]]\nat_step = 9\nffn = \"+48\"\n");
    succeed(lab.train(&grown, "run", &["--set", "log.every=1"]));
    let found = flops(&lab.path("run"));
    let at = |step| {
        found
            .iter()
            .filter(move |(s, _)| *s == step)
            .map(|(_, f)| *f)
    };
    let after = |step| at(step).next().expect("a record");
    // 3·(2·body + 4·L·D·T + 2·V·D + 10·slots) of 8 windows of 32 tokens: two blocks of width 32, bytes as tokens.
    let per_step = |slots: f64| {
        // 256 bytes and the end of a text.
        let vocab = 257.0;
        let token = 3.0
            * (2.0 * 2.0 * 32.0 * slots
                + 4.0 * 2.0 * 32.0 * 32.0
                + 2.0 * vocab * 32.0
                + 10.0 * slots);
        256.0 * token
    };
    let (small, large) = (per_step(2.0 * 112.0), per_step(2.0 * 160.0));
    for step in 1..=9 {
        assert!(
            (after(step) / (step as f64 * small) - 1.0).abs() < 1e-9,
            "{found:?}"
        );
    }
    // Two passes over 32 probe tokens, before the growth and after it.
    let probe = 32.0 / 256.0 / 3.0 * (small + large);
    let want = |step: f64| 9.0 * small + probe + (step - 9.0) * large;
    assert!(
        (after(30) / want(30.0) - 1.0).abs() < 1e-9,
        "{} {}",
        after(30),
        want(30.0)
    );
    let last_of_9 = at(9).next_back().expect("an evaluation of the grown model");
    assert!((last_of_9 / want(9.0) - 1.0).abs() < 1e-9);
    let state =
        std::fs::read_to_string(newest(&lab.path("run")).join("state.json")).expect("a state");
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    assert_eq!(state["flops"].as_f64(), Some(after(30)));

    // Memory settings and comparisons do not change the count.
    let control = lab.recipe(
        "control.toml",
        "\n[[grow]]\nat_step = 9\nffn = \"+48\"\ncontrol = 5\n",
    );
    let lean = ["--set", "log.every=1", "--set", "train.recompute=blocks"];
    succeed(lab.train(&control, "lean", &lean));
    assert_eq!(flops(&lab.path("lean")), found);
}

#[test]
fn grow_knows_every_method() {
    let lab = Lab::new();
    let (sites, plain) = (
        lab.recipe("sites.toml", ""),
        lab.plain_recipe("plain.toml", ""),
    );
    let short = ["--set", "train.steps=6"];
    succeed(lab.train(&sites, "sites", &short));
    succeed(lab.train(&plain, "plain", &short));
    let cases: [(&str, &str, &[&str], bool); 14] = [
        ("sites", "segment", &["--ffn", "+8", "--key", "+4"], true),
        (
            "sites",
            "zero-key",
            &["--site", "blocks.1.ffn=+8", "--tau", "tracked"],
            true,
        ),
        ("sites", "random-key-zero-value", &["--ffn", "=64"], false),
        ("sites", "random", &["--ffn", "+8"], false),
        (
            "sites",
            "identity-blocks",
            &["--layers", "+1", "--at", "start"],
            true,
        ),
        ("sites", "stack", &["--layers", "+2"], false),
        (
            "plain",
            "ffn",
            &["--ffn", "+8", "--rate", "full", "--warmup", "0"],
            true,
        ),
        ("plain", "identity-blocks", &["--layers", "+1"], true),
        ("plain", "interpose", &["--layers", "+2"], false),
        (
            "plain",
            "repeat-last",
            &["--layers", "+1", "--moments", "reset"],
            false,
        ),
        (
            "plain",
            "clone",
            &["--width", "=64", "--noise", "0.2"],
            true,
        ),
        ("plain", "lemon", &["--width", "+32"], true),
        (
            "plain",
            "shrink-pad",
            &["--width", "=48", "--shrink", "0.5"],
            false,
        ),
        ("plain", "corner", &["--width", "=48"], false),
    ];
    for (i, (run, method, more, keeps)) in cases.into_iter().enumerate() {
        let to = format!("grown-{i}");
        let mut args = vec![
            "grow", "--from", run, "--to", &to, "--json", "--method", method,
        ];
        args.extend(more);
        let report = json(&succeed(lab.command(&args)));
        assert_eq!(report["preserving"].as_bool(), Some(keeps), "{method}");
        assert_eq!(report["growth"]["method"].as_str(), Some(method));
        let moved = report["relative_logit_diff"].as_f64().expect("a number");
        assert_eq!(moved <= 1e-5, keeps, "{method}: {moved}");
        // The grown checkpoint trains on.
        let recipe = if run == "sites" { &sites } else { &plain };
        let out = format!("on-{i}");
        let more = ["--resume", &to, "--set", "train.steps=8"];
        succeed(lab.train(recipe, &out, &more));
        succeed(lab.command(&["inspect", &out]));
    }
    let grow = |more: &[&str]| {
        let mut args = vec!["grow", "--from", "sites", "--to", "no"];
        args.extend(more);
        lab.command(&args)
    };
    fail(grow(&["--method", "net2net"]), 2, &["net2net", "corner"]);
    fail(
        grow(&["--method", "clone", "--width", "=64"]),
        2,
        &["a plain Transformer"],
    );
    fail(
        grow(&["--method", "stack", "--ffn", "+8"]),
        2,
        &["nothing, with the method stack"],
    );
    fail(grow(&["--site", "blocks.1.ffn"]), 2, &["blocks.0.ffn=+64"]);
}

/// What `grow` says of a growth: the tokens of every block, and that the function stays only where that is sure.
#[test]
fn grow_says_what_grew_and_what_is_sure() {
    let lab = Lab::new();
    let short = ["--set", "train.steps=6"];
    succeed(lab.train(&lab.recipe("recipe.toml", ""), "run", &short));
    let grow = |from: &str, to: &str, more: &[&str]| {
        let all = [&["grow", "--from", from, "--to", to], more].concat();
        succeed(lab.command(&all)).out
    };
    let exact = "computes exactly what it did";
    let one = ["--qkv", "+8", "--query", "+0", "--site", "blocks.1.ffn=+16"];
    let said = grow("run", "one", &one);
    let row = |name: &str| {
        let row = said.lines().find(|line| line.starts_with(name));
        let cells = row.expect("a row").split_whitespace();
        cells.map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(row("query")[1..3], ["16", "16"]);
    assert_eq!(row("key")[1..3], ["16", "24"]);
    assert_eq!(row("ffn")[1..3], ["48", "48..64"]);
    assert!(
        said.contains("by +8 key, +8 value, +16 blocks.1.ffn:"),
        "{said}"
    );
    assert!(said.contains(exact), "{said}");
    // A copy of a block that adds nothing adds nothing, too, but no copy promises that.
    let said = grow(
        "run",
        "zero",
        &[
            "--method",
            "identity-blocks",
            "--layers",
            "+1",
            "--at",
            "end",
        ],
    );
    assert!(said.contains(exact), "{said}");
    let said = grow(
        "zero",
        "copy",
        &["--method", "repeat-last", "--layers", "+1"],
    );
    assert!(
        said.contains("largest logit difference 0") && !said.contains(exact),
        "{said}"
    );
}

#[test]
fn recipes_say_what_is_wrong_with_a_growth() {
    let lab = Lab::new();
    for (growth, parts) in [
        ("method = \"net2net\"", ["grow[0].method", "corner"]),
        ("metod = \"stack\"", ["metod", "method"]),
        (
            "at = \"between\"\nlayers = 1",
            ["grow[0].at", "after:BLOCKS"],
        ),
        (
            "sites = { \"blocks.0.ffn\" = 16 }",
            ["grow[0].sites", "string"],
        ),
        (
            "sites = { \"blocks.9.ffn\" = \"+16\" }",
            ["blocks.9.ffn", "from 0 to 1"],
        ),
        (
            "method = \"stack\"\nlayers = 1\nblocks = \"copy\"",
            ["blocks", "the method stack"],
        ),
        (
            "method = \"clone\"\nwidth = \"=64\"",
            ["width", "a plain Transformer"],
        ),
    ] {
        let recipe = lab.recipe(
            "recipe.toml",
            &format!("\n[[grow]]\nat_step = 9\n{growth}\n"),
        );
        fail(lab.train(&recipe, "run", &[]), 2, &parts);
        assert!(
            !lab.path("run").join("metrics.jsonl").exists(),
            "refused before anything is trained"
        );
    }
}

/// A rate found at other sizes is scaled by the fan-in, and belongs to the run.
#[test]
fn rates_of_other_sizes() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "\n[lr_base]\nffn = 24\n");
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=12"]));
    let state =
        std::fs::read_to_string(newest(&lab.path("run")).join("state.json")).expect("a state");
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    let params = &state["training"]["params"];
    // 48 tokens added to a base of 24.
    assert_eq!(
        params["blocks.0.ffn.segments.0.values"]["lr_scale"].as_f64(),
        Some(0.5)
    );
    assert_eq!(params.as_object().map(|map| map.len()), Some(2));
    let other = lab.recipe("other.toml", "\n[lr_base]\nffn = 12\n");
    fail(lab.train(&other, "run", &[]), 2, &["[lr_base] has changed"]);
    succeed(lab.train(&recipe, "run", &["--set", "train.steps=16"]));
}

//! A control, the updates without a growth that a run makes before it grows, is what it says and changes nothing else.

mod common;

use common::{Lab, files, loss_columns, succeed};
use std::path::Path;
use tokenformer_report::{Record, read};

/// Losses of all updates and of all controls, by step.
fn losses(run: &Path) -> [Vec<(u64, u64)>; 2] {
    let records = read(run.join("metrics.jsonl")).expect("records");
    let of = |pick: fn(&Record) -> Option<(u64, f64)>| {
        let picked = records.iter().filter_map(pick);
        picked.map(|(step, loss)| (step, loss.to_bits())).collect()
    };
    let train = of(|record| match record {
        Record::Train(r) => Some((r.step, r.loss)),
        _ => None,
    });
    let control = of(|record| match record {
        Record::Control(r) => Some((r.step, r.loss)),
        _ => None,
    });
    [train, control]
}

#[test]
fn a_control_has_the_losses_of_a_run_that_does_not_grow() {
    let lab = Lab::new();
    let growth = "[[grow]]\nat_step = 13\ncontrol = 10\nqkv = \"+8\"\nffn = \"+24\"\nlayers = 1\n";
    let grown = lab.recipe("grown.toml", growth);
    let plain = lab.recipe("plain.toml", "");
    let every_step = ["--set", "log.every=1"];
    succeed(lab.train(&plain, "plain", &every_step));
    let ran = succeed(lab.train(&grown, "grown", &every_step));
    let told = "training on for 10 updates without the growth";
    assert!(ran.err.contains(told), "{ran:#?}");

    let [plain, _] = losses(&lab.path("plain"));
    let [train, control] = losses(&lab.path("grown"));
    assert_eq!(train[..13], plain[..13]);
    assert_eq!(control, plain[13..23]);
    // After the first updates the growth makes a difference, which the comparison would not see otherwise.
    assert_ne!(train[22], plain[22]);

    let plots = lab.path("grown").join("plots");
    let plot = std::fs::read_to_string(plots.join("growth_zoom_1.svg")).expect("a plot");
    assert!(plot.contains("without the growth"), "{plot}");
    let report = std::fs::read_to_string(lab.path("grown").join("report.html"));
    assert!(report.expect("a report").contains("clip-growth_zoom_1"));
}

#[test]
fn a_control_changes_nothing_else_of_a_run() {
    // The first growth's `tau` still moves during the second's control, and that freezes what is old.
    let growths = r#"
[[grow]]
at_step = 13
control = 100
qkv = "+8"
proj = "+8"
ffn = "+24"
layers = 1
tau = "anneal:12"

[grow.schedule]
shape = "wsd"
lr = 4e-3
warmup_steps = 3

[[grow]]
at_step = 22
control = 100
ffn = "+16"
freeze_old = true
"#;
    let lab = Lab::new();
    let with = lab.recipe("with.toml", growths);
    let without = lab.recipe("without.toml", &growths.replace("control = 100", ""));
    succeed(lab.train(&with, "with", &["--set", "checkpoint.keep=9"]));
    succeed(lab.train(&without, "without", &["--set", "checkpoint.keep=9"]));

    let [with, without] = ["with", "without"].map(|name| lab.path(name));
    let [mine, theirs] = [&with, &without].map(|run| files(&run.join("checkpoints")));
    assert!(mine.keys().eq(theirs.keys()));
    for (name, bytes) in &mine {
        assert!(*bytes == theirs[name], "{name} differs");
    }
    let (controls, others): (Vec<String>, Vec<String>) = loss_columns(&with)
        .into_iter()
        .partition(|line| line.contains(r#""kind":"control""#));
    assert_eq!(others, loss_columns(&without));
    // They end before the next growth, and with the run.
    let steps: Vec<u64> = losses(&with)[1].iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, (14..=30).collect::<Vec<u64>>());
    assert_eq!(controls.len(), 17);
}

/// The checkpoint from which the run goes on was written without an average, which the control goes back to.
#[test]
fn an_average_may_begin_where_a_control_does() {
    let lab = Lab::new();
    let plain = lab.recipe("plain.toml", "");
    succeed(lab.train(&plain, "run", &["--set", "train.steps=12"]));
    let growth = |control: &str| {
        format!("[ema]\ndecay = 0.9\n[[grow]]\nat_step = 12\n{control}ffn = \"+24\"\n")
    };
    let without = lab.recipe("without.toml", &growth(""));
    succeed(lab.train(&without, "without", &["--resume", "run"]));
    let with = lab.recipe("with.toml", &growth("control = 5\n"));
    succeed(lab.train(&with, "run", &[]));
    let [with, without] = ["run", "without"].map(|run| files(&common::newest(&lab.path(run))));
    assert!(with.contains_key("ema.safetensors"));
    for (name, bytes) in &with {
        // The best so far of the run elsewhere is forgotten.
        assert!(
            name == "state.json" || name == "manifest.json" || *bytes == without[name],
            "{name}"
        );
    }
}

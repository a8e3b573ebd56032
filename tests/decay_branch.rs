//! A decay branch is the run that had planned its decay at that place from the beginning, byte for byte.

mod common;

use common::{GROWTH, Lab, fail, files, loss_columns, succeed, text_of};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FLAT: [&str; 6] = [
    "--set",
    "schedule.shape=wsd",
    "--set",
    "checkpoint.keep=20",
    "--set",
    "schedule.decay_share=0.2",
];

fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/step-{step:08}"))
}

/// Records after a step, without remarks and clocks.
fn records_after(run: &Path, step: u64) -> Vec<String> {
    let of = |line: &String| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        value["step"].as_u64()
    };
    let lines = loss_columns(run).into_iter();
    lines
        .filter(|line| {
            // What a clock measured was cut out of the line, which is JSON no more.
            let start = line.find(r#""step":"#).map(|at| &line[at + 7..]);
            let digits = start.and_then(|rest| rest.split(',').next()?.parse().ok());
            of(line).or(digits) > Some(step)
        })
        .collect()
}

fn assert_same(lab: &Lab, branch: &str, planned: &str, [from, to]: [u64; 2]) {
    let (branch, planned) = (lab.path(branch), lab.path(planned));
    let (got, want) = (
        files(&checkpoint(&branch, to)),
        files(&checkpoint(&planned, to)),
    );
    assert!(!want.is_empty());
    assert_eq!(
        got.keys().collect::<Vec<_>>(),
        want.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &want {
        assert!(got[name] == *bytes, "{name} of step {to} differs");
    }
    let (got, want) = (records_after(&branch, from), records_after(&planned, from));
    assert!(want.len() > 1);
    assert_eq!(got, want);
}

fn branch<'a>(from: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "train",
        "--branch-from",
        from,
        "--out",
        out,
        "--threads",
        "1",
    ];
    args.extend(more);
    args
}

#[test]
fn a_branch_is_the_run_that_decays_there() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "trunk", &FLAT));
    let trunk = files(&lab.path("trunk"));
    let from = checkpoint(&lab.path("trunk"), 12);
    let from = text_of(&from);
    for (shape, ratio) in [("linear", "0"), ("cosine", "0.1"), ("sqrt", "0")] {
        let out = format!("branch-{shape}");
        let more = ["--decay", "6", "--decay-shape", shape, "--min-ratio", ratio];
        let args = branch(from, &out, &more);
        let ran = succeed(lab.command(&args));
        assert!(ran.out.contains("done after 18 steps"), "{ran:#?}");
        let planned = format!("planned-{shape}");
        let sets = [
            "train.steps=18".to_string(),
            "schedule.decay_steps=6".into(),
            format!("schedule.decay={shape}"),
            format!("schedule.min_ratio={ratio}"),
        ];
        let mut more: Vec<&str> = FLAT.into();
        for set in &sets {
            more.extend(["--set", set]);
        }
        succeed(lab.train(&recipe, &planned, &more));
        assert_same(&lab, &out, &planned, [12, 18]);

        // The same command again finds everything done; so does the recipe that it wrote.
        let before = files(&lab.path(&out).join("checkpoints"));
        succeed(lab.command(&args));
        let own = lab.path(&out).join("config.toml");
        succeed(lab.train(text_of(&own), &out, &[]));
        assert!(files(&lab.path(&out).join("checkpoints")) == before);
        // Another decay is another branch, and leaves this one alone.
        for more in [
            &["--decay", "9"][..],
            &["--decay", "6", "--min-ratio", "0.5"],
        ] {
            let other = lab.command(&branch(from, &out, more));
            fail(other, 2, &["--out", "this very branch"]);
        }
        assert!(files(&lab.path(&out).join("checkpoints")) == before);
    }
    // The last update of a decay to nothing changes nothing.
    let last = loss_columns(&lab.path("branch-linear"));
    assert!(
        last.iter()
            .any(|line| line.contains(r#""step":18,"#) && line.contains(r#""lr":0.0"#))
    );
    assert!(
        files(&lab.path("trunk")) == trunk,
        "a branch leaves the trunk alone"
    );
}

/// A branch that was stopped is resumed from its own last checkpoint by the same command.
#[test]
fn a_branch_goes_on() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "trunk", &FLAT));
    let from = checkpoint(&lab.path("trunk"), 12);
    let more = ["--decay", "10"];
    succeed(lab.command(&branch(text_of(&from), "whole", &more)));
    succeed(lab.command(&branch(text_of(&from), "run", &more)));
    // As if it had been killed after step 16.
    for step in [20, 22] {
        fs::remove_dir_all(checkpoint(&lab.path("run"), step)).expect("a checkpoint");
    }
    for pointer in ["latest", "best"] {
        fs::remove_file(lab.path("run").join(pointer)).expect("a pointer");
    }
    succeed(lab.command(&branch(text_of(&from), "run", &more)));
    assert_same(&lab, "run", "whole", [12, 22]);
    let told = succeed(lab.command(&branch(text_of(&from), "run", &more))).err;
    assert!(told.contains("nothing left to train"), "{told}");
}

/// A stage with a separate schedule decays by it; the later growth is dropped.
#[test]
fn a_branch_leaves_a_grown_run() {
    let lab = Lab::new();
    let later = "\n[[grow]]\nat_step = 26\nffn = \"+8\"\n";
    let flat = "decay_share = 0.1\n";
    let recipe = lab.recipe("recipe.toml", &format!("{GROWTH}{flat}{later}"));
    let keep = ["--set", "checkpoint.keep=20"];
    succeed(lab.train(&recipe, "trunk", &keep));
    let from = checkpoint(&lab.path("trunk"), 20);
    let more = [
        "--decay",
        "4",
        "--decay-shape",
        "cosine",
        "--min-ratio",
        "0",
    ];
    succeed(lab.command(&branch(text_of(&from), "branch", &more)));
    let own = "min_ratio = 0.0\ndecay_steps = 4\ndecay = \"cosine\"\n";
    let planned = lab.recipe("planned.toml", &format!("{GROWTH}{own}"));
    succeed(lab.train(
        &planned,
        "planned",
        &["--set", "checkpoint.keep=20", "--set", "train.steps=24"],
    ));
    assert!(weights(&lab, "branch", 24) == weights(&lab, "planned", 24));
    let config = fs::read_to_string(lab.path("branch").join("config.toml")).expect("a recipe");
    assert!(
        config.contains("at_step = 13") && !config.contains("at_step = 26"),
        "{config}"
    );
}

/// Weights and moments of a checkpoint; its state tells what schedule the growths before it were planned with.
fn weights(lab: &Lab, run: &str, step: u64) -> BTreeMap<String, Vec<u8>> {
    let mut files = files(&checkpoint(&lab.path(run), step));
    files.retain(|name, _| name.ends_with("safetensors"));
    assert_eq!(files.len(), 2);
    files
}

/// At the last step before a growth with a schedule the rate is that of the stage which ends there.
#[test]
fn a_branch_before_a_growth_goes_on_at_the_rate_of_the_stage_that_ends() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    let keep = ["--set", "checkpoint.keep=20"];
    let flat = [&keep[..], &["--set", "schedule.shape=constant"]].concat();
    succeed(lab.train(&recipe, "flat", &flat));
    let from = checkpoint(&lab.path("flat"), 13);
    succeed(lab.command(&branch(text_of(&from), "branch", &["--decay", "4"])));
    let planned = [
        "--set",
        "train.steps=17",
        "--set",
        "schedule.shape=wsd",
        "--set",
        "schedule.decay_steps=4",
    ];
    succeed(lab.train(&lab.recipe("planned.toml", ""), "planned", &planned));
    assert!(weights(&lab, "branch", 17) == weights(&lab, "planned", 17));

    let decayed = [&keep[..], &["--set", "schedule.shape=wsd"]].concat();
    succeed(lab.train(&recipe, "decayed", &decayed));
    let from = checkpoint(&lab.path("decayed"), 13);
    fail(
        lab.command(&branch(text_of(&from), "other", &["--decay", "4"])),
        2,
        &["the learning rate is not flat", "step 13 of 13"],
    );
}

/// A growth that had nothing to add has begun its schedule, by which the branch decays.
#[test]
fn a_branch_keeps_the_schedule_of_a_growth_that_added_nothing() {
    let lab = Lab::new();
    let nothing = |more: &str| {
        format!(
            "\n[[grow]]\nat_step = 13\nffn = \"=48\"\n[grow.schedule]\nlr = 1e-3\nwarmup_steps = 0\n{more}"
        )
    };
    let recipe = lab.recipe("recipe.toml", &nothing("shape = \"constant\"\n"));
    succeed(lab.train(&recipe, "trunk", &["--set", "checkpoint.keep=20"]));
    let from = checkpoint(&lab.path("trunk"), 20);
    succeed(lab.command(&branch(text_of(&from), "branch", &["--decay", "4"])));
    let planned = nothing("shape = \"wsd\"\ndecay_steps = 4\n");
    let planned = lab.recipe("planned.toml", &planned);
    succeed(lab.train(&planned, "planned", &["--set", "train.steps=24"]));
    assert!(weights(&lab, "branch", 24) == weights(&lab, "planned", 24));
}

#[test]
fn a_branch_from_where_the_rate_is_not_flat_is_refused() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "trunk", &FLAT));
    succeed(lab.train(&recipe, "falling", &["--set", "checkpoint.keep=20"]));
    let flat = "the learning rate is not flat";
    for (run, step, what) in [
        ("trunk", 4, flat),    // warms up until step 5
        ("trunk", 28, flat),   // decays from step 24 on
        ("falling", 12, flat), // a cosine
    ] {
        let from = checkpoint(&lab.path(run), step);
        let args = branch(text_of(&from), "branch", &["--decay", "4"]);
        fail(lab.command(&args), 2, &[what]);
    }
    let from = checkpoint(&lab.path("trunk"), 12);
    let from = text_of(&from);
    let none = branch(from, "branch", &["--decay", "0"]);
    fail(lab.command(&none), 2, &["a decay of no steps"]);
    let over = branch(from, "branch", &["--decay", "4", "--min-ratio", "2"]);
    fail(lab.command(&over), 2, &["min_ratio"]);
    let onto = branch(from, "trunk", &["--decay", "4"]);
    fail(lab.command(&onto), 2, &["the run has a later one"]);
    fail(lab.command(&branch(from, "branch", &[])), 2, &["--decay"]);
    fail(
        lab.command(&["train", "--decay", "4"]),
        2,
        &["--branch-from"],
    );
    let both = branch(from, "branch", &["--decay", "4", "--resume", "never"]);
    fail(lab.command(&both), 2, &["--resume"]);
    let nowhere = branch("nowhere", "branch", &["--decay", "4"]);
    fail(lab.command(&nowhere), 1, &["nowhere"]);
}

/// What the flags of a branch decide cannot be set beside them; the rest of the schedule can.
#[test]
fn what_a_branch_decides_is_not_set() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "trunk", &FLAT));
    let from = checkpoint(&lab.path("trunk"), 12);
    let from = text_of(&from);
    for (set, flag) in [
        ("train.steps=20", "--decay"),
        ("schedule.shape=cosine", "--decay"),
        ("schedule.decay_steps=5", "--decay"),
        ("schedule.decay_share=0.5", "--decay"),
        ("schedule.decay=sqrt", "--decay-shape"),
        ("schedule.min_ratio=0.5", "--min-ratio"),
    ] {
        let more = [
            "--decay",
            "4",
            "--decay-shape",
            "cosine",
            "--min-ratio",
            "0",
            "--set",
            set,
        ];
        let key = set.split('=').next().unwrap_or_default();
        let place = format!("--set {key}: ");
        let decides = format!("where {flag} decides it");
        fail(
            lab.command(&branch(from, "branch", &more)),
            2,
            &[&place, &decides],
        );
    }
    assert!(!lab.path("branch").exists());
    let sets = [
        "schedule.decay=sqrt",
        "schedule.min_ratio=0.0",
        "eval.every=2",
    ];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let set: Vec<&str> = ["--decay", "4"].into_iter().chain(sets).collect();
    succeed(lab.command(&branch(from, "set", &set)));
    let flags = ["--decay", "4", "--decay-shape", "sqrt", "--min-ratio", "0"];
    succeed(lab.command(&branch(from, "flags", &flags)));
    assert!(weights(&lab, "set", 16) == weights(&lab, "flags", 16));
}

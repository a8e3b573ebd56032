//! `inspect --plan` tells the peak memory of a run before it starts: to 10 % what the run then takes.
#![cfg(target_os = "linux")]

mod common;

use common::{Lab, json, run};
use std::fs;
use std::time::Duration;

/// Peak resident bytes of a training run in a separate process.
fn measured(lab: &Lab, recipe: &str, out: &str, more: &[&str]) -> f64 {
    let mut child = lab
        .train(recipe, out, more)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program");
    let path = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0u64;
    // The peak is reached in the steps, which are followed by evaluations and checkpoints.
    while child.try_wait().expect("a child").is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        peak_kib = kib.unwrap_or(0).max(peak_kib);
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended = child.wait_with_output().expect("a child");
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    1024.0 * peak_kib as f64
}

#[test]
fn the_plan_is_what_the_run_takes() {
    let lab = Lab::new();
    let recipe = |name: &str, preset: &str, batch: usize, more: &str| {
        let data = lab.path("data");
        let data = data.display();
        lab.file(
            name,
            format!(
                "[data]\ndir = \"{data}\"\n[model]\npreset = \"{preset}\"\n[train]\nsteps = 2\nbatch = {batch}\n\
                 [eval]\ntokens = 512\n[sample]\ntokens = 0\n{more}"
            ),
        )
    };
    let growth =
        "[[grow]]\nat_step = 1\nffn = \"+1536\"\nqkv = \"+192\"\nproj = \"+192\"\nlayers = 1\n";
    let frozen = "[[grow]]\nat_step = 1\nffn = \"+1536\"\nfreeze_old = true\n[optimizer]\nmoments = \"bf16\"\n";
    let cases = [
        (recipe("frozen.toml", "tiny", 4, frozen), vec!["blocks"]),
        (
            recipe("tiny.toml", "tiny", 8, ""),
            vec!["none", "scores", "blocks"],
        ),
        (recipe("grown.toml", "tiny", 4, growth), vec!["blocks"]),
        (recipe("small.toml", "small", 2, ""), vec!["blocks"]),
        (recipe("gpt-tiny.toml", "gpt-tiny", 8, ""), vec!["none"]),
        (
            recipe(
                "gpt-grown.toml",
                "gpt-tiny",
                4,
                "[[grow]]\nat_step = 1\nlayers = 2\n",
            ),
            vec!["blocks"],
        ),
    ];
    for (recipe, modes) in &cases {
        let planned = run(lab.command(&["inspect", "--plan", recipe, "--json", "--threads", "2"]));
        let planned = json(&planned);
        let tokens = ["train", "valid"].map(|split| lab.path(&format!("data/{split}.tokens")));
        let sizes = tokens.map(|path| fs::metadata(path).expect("tokens").len());
        assert_eq!(planned["mapped_bytes"], sizes[0] + sizes[1]);
        for mode in modes {
            let found = planned["modes"].as_array().expect("modes");
            let found = found
                .iter()
                .find(|m| m["recompute"] == *mode)
                .expect("a mode");
            let planned = found["peak_bytes"].as_f64().expect("bytes");
            let set = format!("train.recompute={mode}");
            let out = format!("{recipe}-{mode}");
            let measured = measured(&lab, recipe, &out, &["--set", &set, "--threads", "2"]);
            println!(
                "{recipe} {mode}: planned {planned:.0}, measured {measured:.0}, {:.3}",
                planned / measured
            );
            assert!(
                (planned / measured - 1.0).abs() < 0.1,
                "{recipe} {mode}: planned {planned}, measured {measured}"
            );
        }
    }
}

#[test]
fn the_plan_of_a_training_on_pictures_is_what_it_takes() {
    let lab = Lab::empty();
    let data = lab.path("set");
    let data = data.display().to_string();
    let sizes = [
        "--classes",
        "3",
        "--per-class",
        "60",
        "--test-per-class",
        "2",
    ];
    let made = ["data", "make", "fractals", "--out", &data];
    run(lab.command(&[&made[..], &sizes].concat()));
    let recipe = |name: &str, more: &str| {
        lab.file(
            name,
            format!(
                "[data]\ndir = \"{data}\"\n[model]\npreset = \"vit-cifar\"\n[train]\nsteps = 2\nbatch = 32\n\
                 [ema]\ndecay = 0.9\n{more}"
            ),
        )
    };
    let growth = "[[grow]]\nat_step = 1\nqkv = \"+96\"\nproj = \"+96\"\nffn = \"+384\"\n";
    for (name, more) in [("plain.toml", ""), ("grown.toml", growth)] {
        let recipe = recipe(name, more);
        let planned = run(lab.command(&["inspect", "--plan", &recipe, "--json", "--threads", "2"]));
        let planned = json(&planned);
        for (number, mode) in [(0, "none"), (2, "blocks")] {
            assert_eq!(planned["modes"][number]["recompute"], mode);
            let planned = planned["modes"][number]["peak_bytes"]
                .as_f64()
                .expect("bytes");
            let set = format!("train.recompute={mode}");
            let out = format!("{name}-{mode}");
            let measured = measured(&lab, &recipe, &out, &["--set", &set, "--threads", "2"]);
            println!(
                "{name} {mode}: planned {planned:.0}, measured {measured:.0}, {:.3}",
                planned / measured
            );
            assert!(
                (planned / measured - 1.0).abs() < 0.1,
                "{name} {mode}: {planned}, {measured}"
            );
        }
    }
}

#[test]
fn a_plan_needs_no_data() {
    let lab = Lab::empty();
    let recipe = lab.file("recipe.toml", "[model]\npreset = \"150m\"\n");
    let args = [
        "inspect",
        "--plan",
        &recipe,
        "--set",
        "train.batch=1",
        "--json",
    ];
    let planned = json(&run(lab.command(&args)));
    let peaks: Vec<u64> = (planned["modes"].as_array().expect("modes").iter())
        .map(|m| m["peak_bytes"].as_u64().expect("bytes"))
        .collect();
    // Weights, gradients and two moments alone take 16 bytes per parameter.
    // With one short sequence the output head decides, and recomputing a block takes a little memory too.
    assert!(peaks[0] >= peaks[1] && peaks[0] >= peaks[2], "{peaks:?}");
    assert!(peaks[2] > 16 * 151_000_000, "{peaks:?}");
}

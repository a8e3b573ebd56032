//! Signals end a run in good order, unless they were ignored when it started.
#![cfg(unix)]

mod common;

use common::{Lab, Ran, hear_signals, text_of};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// More steps than any test waits for.
const LONG: [&str; 4] = ["--set", "train.steps=1000000", "--set", "eval.every=0"];

/// A long run whose shell had told the system to ignore a signal; `-` for none.
fn start(lab: &Lab, out: &str, ignored: &str) -> Child {
    let recipe = lab.recipe("recipe.toml", "");
    let train = lab.train(&recipe, out, &LONG);
    let mut shell = Command::new("sh");
    let script = format!("trap '' {ignored}; exec \"$0\" \"$@\"");
    let script = if ignored == "-" {
        "exec \"$0\" \"$@\""
    } else {
        &script
    };
    shell
        .args(["-c", script])
        .arg(train.get_program())
        .args(train.get_args())
        .current_dir(lab.path("."))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    hear_signals(&mut shell);
    shell.spawn().expect("sh runs")
}

fn records(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl"))
        .map_or(0, |text| text.matches(r#""kind":"train""#).count())
}

/// Waits until the run has `more` records of steps more than now, by which time it has seen what it was sent.
fn wait_for_steps(child: &mut Child, run: &Path, more: usize) {
    let until = records(run) + more;
    while records(run) < until {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "{} ended: {ended:?}", text_of(run));
        sleep(Duration::from_millis(2));
    }
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args(["-s", signal, &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
}

fn end(child: Child) -> Ran {
    child.wait_with_output().expect("a child").into()
}

#[test]
fn signals_that_were_ignored_at_the_start_stay_ignored() {
    // `nohup`, a background job of a script, and one that a supervisor wants to end by other means.
    for (ignored, other) in [("HUP", "TERM"), ("INT", "HUP"), ("TERM", "INT")] {
        let lab = Lab::new();
        let mut child = start(&lab, "run", ignored);
        wait_for_steps(&mut child, &lab.path("run"), 1);
        send(&child, ignored);
        wait_for_steps(&mut child, &lab.path("run"), 5);
        send(&child, other);
        let ran = end(child);
        assert_eq!(ran.code, Some(0), "{ignored}: {ran:#?}");
        assert!(ran.out.contains("nothing is lost"), "{ignored}: {ran:#?}");
    }
}

#[test]
fn each_signal_saves_the_run_and_ends_it() {
    for signal in ["HUP", "INT", "TERM"] {
        let lab = Lab::new();
        let mut child = start(&lab, "run", "-");
        wait_for_steps(&mut child, &lab.path("run"), 1);
        send(&child, signal);
        let ran = end(child);
        assert_eq!(ran.code, Some(0), "{signal}: {ran:#?}");
        assert!(ran.out.contains("nothing is lost"), "{signal}: {ran:#?}");
        assert!(lab.path("run/latest").exists(), "{signal}");
    }
}

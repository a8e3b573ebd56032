//! The demo from end to end on a little text.

mod common;

use common::{Lab, fail, loss_columns, succeed};
use std::fs;

fn texts(lab: &Lab) {
    fs::create_dir(lab.path("texts")).expect("a folder");
    for i in 0..4 {
        lab.file(&format!("texts/{i}.md"), common::text(i, 12_000));
    }
}

#[test]
fn the_demo_trains_grows_and_reports() {
    let lab = Lab::empty();
    texts(&lab);
    let ran = succeed(lab.command(&["demo", "--steps", "6", "--data", "texts", "--out", "demo"]));
    for part in [
        "growing after 3",
        "talk to it",
        "bits per byte",
        "report.html",
    ] {
        assert!(ran.out.contains(part), "no {part:?}: {ran:#?}");
    }
    assert!(ran.err.contains("computes exactly what it did"), "{ran:#?}");

    let out = lab.path("demo");
    let report = fs::read_to_string(out.join("report.html")).expect("a report");
    assert!(report.contains("<svg"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(
            !report.contains(outside),
            "the report needs the network: {outside}"
        );
    }
    let plots = fs::read_dir(out.join("plots")).expect("plots");
    assert!(
        plots
            .map(|p| p.expect("a plot").path())
            .filter(|p| p.extension() == Some("svg".as_ref()))
            .count()
            > 0
    );
    let entries = fs::read_dir(&out)
        .expect("a run")
        .map(|e| e.expect("an entry"));
    let names: Vec<String> = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(
        names.iter().any(|n| n.contains("tfevents")),
        "no TensorBoard events: {names:?}"
    );
    for name in [
        "config.toml",
        "metrics.jsonl",
        "metrics.csv",
        "latest",
        "best",
        "data",
        "checkpoints",
    ] {
        assert!(names.iter().any(|n| n == name), "no {name}: {names:?}");
    }
    let records = loss_columns(&out);
    let growths: Vec<_> = records
        .iter()
        .filter(|r| r.contains(r#""kind":"grow""#))
        .collect();
    assert_eq!(growths.len(), 1);
    assert!(
        growths[0].contains(r#""step":3"#) && growths[0].contains(r#""max_logit_diff":0.0"#),
        "{growths:?}"
    );

    // What it says to try works, and a demo that is done is not done again.
    succeed(lab.command(&["generate", "--model", "demo", "--tokens", "5"]));
    let again = succeed(lab.command(&["demo", "--steps", "6", "--data", "texts", "--out", "demo"]));
    assert!(
        again.out.contains("going on with the demo that is there"),
        "{again:#?}"
    );
    assert_eq!(loss_columns(&out), records);
    // Another demo, and a run that is no demo, are left alone.
    let pictures = lab.command(&["demo", "--images", "--steps", "6", "--out", "demo"]);
    fail(pictures, 2, &["--out", "this demo has made"]);
    fs::rename(lab.path("demo/data"), lab.path("elsewhere")).expect("a folder");
    let config = fs::read(out.join("config.toml")).expect("a recipe");
    let run = lab.command(&["demo", "--steps", "6", "--data", "texts", "--out", "demo"]);
    fail(run, 2, &["--out", "this demo has made"]);
    assert_eq!(fs::read(out.join("config.toml")).expect("a recipe"), config);
}

#[test]
#[cfg(unix)]
fn ctrl_c_at_any_moment_of_the_demo_does_no_harm() {
    use std::process::{Command, Stdio};
    use std::time::Duration;
    let lab = Lab::empty();
    texts(&lab);
    let demo = |out: &str| {
        let args = ["demo", "--steps", "2", "--data", "texts"];
        lab.command(&[&args[..], &["--threads", "1", "--out", out]].concat())
    };
    succeed(demo("whole"));
    // Moments from the start over the preparation of the data to the first step, in one folder.
    for wait_ms in [0, 4, 10, 30, 60, 100, 200] {
        let mut child = demo("stopped")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        std::thread::sleep(Duration::from_millis(wait_ms));
        // It may have ended by now: then there is nothing to interrupt.
        if child.try_wait().expect("a child").is_none() {
            let sent = Command::new("kill")
                .args(["-INT", &child.id().to_string()])
                .status();
            assert!(sent.expect("kill runs").success());
        }
        let ran: common::Ran = child.wait_with_output().expect("a child").into();
        assert!(
            matches!(ran.code, None | Some(0)),
            "after {wait_ms} ms: {ran:#?}"
        );
    }
    // Once more ends as if nothing had been.
    succeed(demo("stopped"));
    let columns = ["stopped", "whole"].map(|out| loss_columns(&lab.path(out)));
    assert_eq!(columns[0], columns[1]);
}

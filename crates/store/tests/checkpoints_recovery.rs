//! After a kill at any moment the newest whole checkpoint is found, and nothing half-done is taken for one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokenformer_store::{
    CheckpointWriter, Checkpoints, DirWriter, Error, Verified, Warning, read_small,
};

fn no_warning(warning: Warning) {
    panic!("{warning}");
}

fn open(run: &Path) -> CheckpointWriter {
    CheckpointWriter::open(run, &mut no_warning).unwrap()
}

fn save(writer: &mut CheckpointWriter, step: u64, text: &str) -> PathBuf {
    writer
        .save(step, "checkpoint", |dir| {
            dir.write_bytes("state.json", text.as_bytes())?;
            dir.write_bytes("weights", &[step as u8; 5000])
        })
        .unwrap_or_else(|error: Error| panic!("{error}"))
}

/// The newest good step, its text, and the warnings on the way.
fn newest(run: &Path) -> (u64, String, Vec<String>) {
    let mut warnings = Vec::new();
    let found = Checkpoints::open(run)
        .latest_good(&mut |warning| warnings.push(warning.to_string()))
        .unwrap();
    let (step, Verified { dir, .. }) = found.unwrap();
    (
        step,
        fs::read_to_string(dir.join("state.json")).unwrap(),
        warnings,
    )
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn saved_steps_are_listed_in_order_and_pointed_to() {
    let scratch = tempfile::tempdir().unwrap();
    let run = scratch.path().join("run");
    let checkpoints = Checkpoints::open(&run);
    assert!(checkpoints.list().unwrap().is_empty());
    assert!(checkpoints.latest_good(&mut no_warning).unwrap().is_none());
    assert!(!run.exists(), "reading creates nothing");

    let mut writer = open(&run);
    let dir = save(&mut writer, 500, "a");
    assert_eq!(dir, run.join("checkpoints/step-00000500"));
    save(&mut writer, 1_000_000_000, "c");
    save(&mut writer, 1000, "b");
    let steps: Vec<u64> = writer
        .list()
        .unwrap()
        .into_iter()
        .map(|(step, _)| step)
        .collect();
    assert_eq!(steps, [500, 1000, 1_000_000_000]);
    assert_eq!(writer.latest().unwrap(), Some(1000));
    assert_eq!(writer.best().unwrap(), None);
    writer.set_best(500).unwrap();
    assert_eq!(checkpoints.best().unwrap(), Some(500));
    assert!(writer.set_best(7).is_err());
    assert_eq!(
        fs::read_to_string(run.join("latest")).unwrap(),
        "step-00001000\n"
    );
    assert_eq!(newest(&run), (1_000_000_000, "c".into(), vec![]));
}

#[test]
fn other_names_are_not_checkpoints() {
    let scratch = tempfile::tempdir().unwrap();
    let run = scratch.path().join("run");
    save(&mut open(&run), 5, "a");
    for name in [
        "step-5",
        "step-000000007",
        "step-+0000008",
        "step-",
        "step-00000009.bak",
        "step-99999999999999999999",
    ] {
        fs::create_dir(run.join("checkpoints").join(name)).unwrap();
    }
    fs::write(run.join("checkpoints/step-00000006"), b"a file").unwrap();
    let steps: Vec<u64> = Checkpoints::open(&run)
        .list()
        .unwrap()
        .into_iter()
        .map(|(step, _)| step)
        .collect();
    assert_eq!(steps, [5]);
}

#[test]
fn broken_checkpoints_are_reported_and_skipped() {
    let scratch = tempfile::tempdir().unwrap();
    let run = scratch.path().join("run");
    let mut writer = open(&run);
    for step in 1..=4 {
        save(&mut writer, step, &format!("step {step}"));
    }
    fs::write(writer.dir_for(4).join("weights"), [4; 4999]).unwrap();
    fs::remove_file(writer.dir_for(3).join("manifest.json")).unwrap();
    let (step, text, warnings) = newest(&run);
    assert_eq!((step, text.as_str()), (2, "step 2"));
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings[0].contains("step-00000004") && warnings[0].contains("got:      4999 bytes"),
        "{}",
        warnings[0]
    );
    assert!(
        warnings[1].contains("step-00000003") && warnings[1].contains("manifest.json"),
        "{}",
        warnings[1]
    );

    for step in 1..=2 {
        fs::write(writer.dir_for(step).join("state.json"), b"step X").unwrap();
    }
    let error = Checkpoints::open(&run)
        .latest_good(&mut |_| {})
        .unwrap_err();
    assert!(
        matches!(error, Error::NoGoodCheckpoint { count: 4, .. }),
        "starting anew would be silent loss"
    );
    assert!(
        error.to_string().contains("\"weights\" is damaged"),
        "{error}"
    );

    save(&mut writer, 4, "step 4 again");
    assert_eq!(newest(&run), (4, "step 4 again".into(), vec![]));
}

#[test]
fn a_failed_save_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let run = scratch.path().join("run");
    let mut writer = open(&run);
    save(&mut writer, 1, "one");
    for step in [1, 2] {
        let failed = writer.save(step, "checkpoint", |dir| {
            dir.write_bytes("state.json", b"half")?;
            dir.write_bytes("../escape", b"")
        });
        assert!(matches!(failed, Err(Error::FileName { .. })));
    }
    assert_eq!(newest(&run), (1, "one".into(), vec![]));
    assert_eq!(names(&run.join("checkpoints")), ["step-00000001"]);
    assert_eq!(writer.latest().unwrap(), Some(1));
}

/// The state of the folder after each stage of saving step 2, or of saving step 1 again.
#[test]
fn a_kill_at_each_stage_leaves_the_right_one() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = scratch.path().join("whole");
    DirWriter::begin(&whole, "checkpoint")
        .and_then(|mut writer| {
            writer.write_bytes("state.json", b"new")?;
            writer.commit()
        })
        .unwrap();

    struct Stage {
        name: &'static str,
        leave: fn(folder: &Path, whole: &Path),
        expected: (u64, &'static str),
        warnings: usize,
    }
    fn aside(folder: &Path) {
        fs::rename(
            folder.join("step-00000001"),
            folder.join(".old-step-00000001"),
        )
        .unwrap();
    }
    let stages = [
        Stage {
            name: "before the manifest",
            leave: |folder, whole| {
                copy_dir(whole, &folder.join(".tmp-step-00000002"));
                fs::remove_file(folder.join(".tmp-step-00000002/manifest.json")).unwrap();
            },
            expected: (1, "old"),
            warnings: 0,
        },
        Stage {
            name: "after the manifest, before the rename",
            leave: |folder, whole| copy_dir(whole, &folder.join(".tmp-step-00000002")),
            expected: (1, "old"),
            warnings: 0,
        },
        Stage {
            name: "after the rename, before the pointer",
            leave: |folder, whole| copy_dir(whole, &folder.join("step-00000002")),
            expected: (2, "new"),
            warnings: 0,
        },
        Stage {
            name: "after the old one stepped aside",
            leave: |folder, whole| {
                aside(folder);
                copy_dir(whole, &folder.join(".tmp-step-00000001"));
            },
            expected: (1, "old"),
            warnings: 1,
        },
        Stage {
            name: "after the new one is in place, before the old one is removed",
            leave: |folder, whole| {
                aside(folder);
                copy_dir(whole, &folder.join("step-00000001"));
            },
            expected: (1, "new"),
            warnings: 0,
        },
        Stage {
            name: "while the old one is being removed",
            leave: |folder, whole| {
                aside(folder);
                fs::remove_file(folder.join(".old-step-00000001/state.json")).unwrap();
                copy_dir(whole, &folder.join("step-00000001"));
            },
            expected: (1, "new"),
            warnings: 0,
        },
        Stage {
            name: "the new one is in place but damaged, the old one still there",
            leave: |folder, whole| {
                aside(folder);
                copy_dir(whole, &folder.join("step-00000001"));
                fs::write(folder.join("step-00000001/state.json"), b"bad").unwrap();
            },
            expected: (1, "old"),
            warnings: 1,
        },
        Stage {
            name: "while another one is being deleted",
            leave: |folder, whole| {
                copy_dir(whole, &folder.join(".tmp-delete-step-00000000"));
                fs::remove_file(folder.join(".tmp-delete-step-00000000/state.json")).unwrap();
            },
            expected: (1, "old"),
            warnings: 0,
        },
    ];
    for Stage {
        name,
        leave,
        expected,
        warnings,
    } in stages
    {
        let run = scratch.path().join("run");
        save(&mut open(&run), 1, "old");
        leave(&run.join("checkpoints"), &whole);

        let before = names(&run.join("checkpoints"));
        let (step, text, told) = newest(&run);
        assert_eq!((step, text.as_str()), expected, "{name}, read");
        assert_eq!(told.len(), warnings, "{name}: {told:?}");
        assert_eq!(
            names(&run.join("checkpoints")),
            before,
            "{name}: reading changes nothing"
        );

        let mut told = 0;
        let mut writer = CheckpointWriter::open(&run, &mut |_| told += 1).unwrap();
        assert_eq!(told, warnings, "{name}");
        assert_eq!(
            newest(&run),
            (expected.0, expected.1.into(), vec![]),
            "{name}, after recovery"
        );
        let clean: Vec<String> = (1..=expected.0)
            .map(|step| format!("step-{step:08}"))
            .collect();
        assert_eq!(
            names(&run.join("checkpoints")),
            clean,
            "{name}: nothing is left over"
        );
        save(&mut writer, 1, "again");
        drop(writer);
        fs::remove_dir_all(&run).unwrap();
    }
}

#[test]
fn a_pointer_that_is_nonsense_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let run = scratch.path().join("run");
    let mut writer = open(&run);
    save(&mut writer, 1, "one");
    for text in [
        "",
        "1",
        "../../etc",
        "step-00000001\nstep-00000002",
        "step-1",
    ] {
        fs::write(run.join("best"), text).unwrap();
        assert!(
            matches!(writer.best(), Err(Error::Pointer { .. })),
            "{text:?}"
        );
    }
    fs::write(run.join("best"), [b'x'; 300]).unwrap();
    assert!(matches!(writer.best(), Err(Error::TooLarge { .. })));
}

#[test]
fn one_writer_at_a_time() {
    let scratch = tempfile::tempdir().unwrap();
    let run = scratch.path().join("run");
    let writer = open(&run);
    let message = CheckpointWriter::open(&run, &mut no_warning)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("another process is using this run directory\n  help:     "),
        "{message}"
    );
    Checkpoints::open(&run).list().unwrap();
    drop(writer);
    open(&run);
}

const RUN_OF_CHILD: &str = "TOKENFORMER_STORE_TEST_RUN";

/// Not a test by itself: the process that `a_killed_writer_loses_nothing_it_reported` kills.
#[test]
#[ignore = "runs until it is killed"]
fn child_that_saves_forever() {
    let Some(run) = std::env::var_os(RUN_OF_CHILD).map(PathBuf::from) else {
        return;
    };
    let mut writer = CheckpointWriter::open(&run, &mut |_| {}).unwrap();
    let start = match writer.latest_good(&mut |_| {}).unwrap() {
        Some((_, found)) => counter(&found.dir) + 1,
        None => 0,
    };
    for count in start.. {
        // Each step is saved three times, so that replacing is cut short as often as creating.
        save(&mut writer, count / 3, &count.to_string());
        println!("\nsaved {count}");
        writer.retain(2, &[]).unwrap();
    }
}

fn counter(dir: &Path) -> u64 {
    String::from_utf8(read_small(&dir.join("state.json"), 100).unwrap())
        .unwrap()
        .parse()
        .unwrap()
}

#[cfg(unix)]
#[test]
fn a_killed_writer_loses_nothing_it_reported() {
    let scratch = tempfile::tempdir().unwrap();
    let run = scratch.path().join("run");
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "child_that_saves_forever",
                "--nocapture",
            ])
            .env(RUN_OF_CHILD, &run)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut reported =
            || lines.find_map(|line| line.strip_prefix("saved ")?.parse::<u64>().ok());
        let mut last = reported().expect("the child saves");
        for _ in 0..round % 4 {
            last = reported().expect("the child saves");
        }
        assert!(matches!(
            CheckpointWriter::open(&run, &mut |_| {}),
            Err(Error::RunLocked { .. })
        ));
        // The pause only spreads the kills over the stages of a save.
        std::thread::sleep(std::time::Duration::from_micros(137 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(later) = reported() {
            last = later;
        }

        let (_, found) = Checkpoints::open(&run)
            .latest_good(&mut |warning| {
                assert!(matches!(warning, Warning::Recovered { .. }), "{warning}");
            })
            .unwrap()
            .unwrap();
        let read = counter(&found.dir);
        assert!(
            read == last || read == last + 1,
            "reported {last}, found {read}"
        );
        // The system has taken the lock back.
        let writer = CheckpointWriter::open(&run, &mut |_| {}).unwrap();
        assert_eq!(
            counter(&writer.latest_good(&mut no_warning).unwrap().unwrap().1.dir),
            read
        );
        assert!(
            names(&run.join("checkpoints"))
                .iter()
                .all(|name| name.starts_with("step-"))
        );
    }
}

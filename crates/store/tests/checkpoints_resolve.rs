//! A path that the user types leads to the directory to load, or to help.

use std::fs;
use std::path::{Path, PathBuf};

use tokenformer_store::{CheckpointWriter, DirWriter, Error, Resolved, Warning, Which, resolve};

fn run_with(run: &Path, steps: impl IntoIterator<Item = u64>) -> CheckpointWriter {
    let mut writer = CheckpointWriter::open(run, &mut |warning| panic!("{warning}")).unwrap();
    for step in steps {
        let saved = writer.save(step, "checkpoint", |dir| {
            dir.write_bytes("model.safetensors", &[1, 2, 3])
        });
        saved.unwrap_or_else(|error: Error| panic!("{error}"));
    }
    writer
}

fn found(path: &Path, which: Which) -> (PathBuf, Option<u64>) {
    let Resolved {
        dir,
        step,
        manifest,
    } = resolve(path, which, &mut |warning| panic!("{warning}")).unwrap();
    assert!(manifest.is_some());
    (dir, step)
}

fn refused(path: &Path) -> Error {
    resolve(path, Which::Latest, &mut |_| {}).unwrap_err()
}

#[test]
fn a_run_leads_to_its_latest_or_best() {
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = run_with(scratch.path(), 1..=3);
    let newest = (writer.dir_for(3), Some(3));
    assert_eq!(found(scratch.path(), Which::Latest), newest);
    assert_eq!(
        found(scratch.path(), Which::Best),
        newest,
        "nothing was called best yet"
    );
    writer.set_best(2).unwrap();
    assert_eq!(
        found(scratch.path(), Which::Best),
        (writer.dir_for(2), Some(2))
    );
    assert_eq!(found(scratch.path(), Which::Latest), newest);
    let average = |writer: &CheckpointWriter, step| {
        let expected = (writer.dir_for(step), Some(step));
        assert_eq!(found(scratch.path(), Which::BestAverage), expected);
    };
    // A run of an earlier version, which has marked no average.
    average(&writer, 2);
    writer.set_best_average(1).unwrap();
    average(&writer, 1);
    assert_eq!(found(scratch.path(), Which::Best).1, Some(2));
}

#[test]
fn a_broken_latest_is_skipped_but_a_broken_best_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = run_with(scratch.path(), 1..=3);
    writer.set_best(3).unwrap();
    fs::write(writer.dir_for(3).join("model.safetensors"), [0; 3]).unwrap();
    let mut warnings = 0;
    let resolved = resolve(scratch.path(), Which::Latest, &mut |_| warnings += 1).unwrap();
    assert_eq!((resolved.step, warnings), (Some(2), 1));
    assert!(matches!(
        resolve(scratch.path(), Which::Best, &mut |_| {}),
        Err(Error::Damaged { .. })
    ));
    assert!(matches!(refused(&writer.dir_for(3)), Error::Damaged { .. }));
}

#[test]
fn checkpoints_published_and_plain_directories_lead_to_themselves() {
    let scratch = tempfile::tempdir().unwrap();
    let writer = run_with(&scratch.path().join("run"), [7]);
    assert_eq!(
        found(&writer.dir_for(7), Which::Best),
        (writer.dir_for(7), Some(7))
    );

    let exported = scratch.path().join("exported");
    DirWriter::begin(&exported, "model")
        .unwrap()
        .commit()
        .unwrap();
    assert_eq!(found(&exported, Which::Latest), (exported.clone(), None));

    let plain = scratch.path().join("plain");
    fs::create_dir(&plain).unwrap();
    assert!(
        refused(&plain)
            .to_string()
            .contains("a folder with none of these")
    );
    fs::write(plain.join("model.safetensors"), b"not looked into here").unwrap();
    let resolved = resolve(&plain, Which::Latest, &mut |_| {}).unwrap();
    assert_eq!((resolved.dir, resolved.manifest), (plain, None));
}

#[test]
fn what_was_not_finished_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let writer = run_with(&scratch.path().join("run"), [7]);
    fs::remove_file(writer.dir_for(7).join("manifest.json")).unwrap();
    assert!(matches!(
        refused(&writer.dir_for(7)),
        Error::ManifestMissing { .. }
    ));
    let half = scratch.path().join(".tmp-model");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("model.safetensors"), b"half").unwrap();
    assert!(
        refused(&half)
            .to_string()
            .contains("not written to its end")
    );
}

#[test]
fn a_model_cut_in_its_replacement_is_still_found() {
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("model");
    DirWriter::begin(&model, "model").unwrap().commit().unwrap();
    let aside = scratch.path().join(".old-model");
    fs::rename(&model, &aside).unwrap();
    let mut warnings = Vec::new();
    let resolved = resolve(&model, Which::Latest, &mut |warning| warnings.push(warning)).unwrap();
    assert_eq!(resolved.dir, aside);
    assert!(matches!(warnings.as_slice(), [Warning::Recovered { path }] if *path == model));
}

#[test]
fn other_paths_get_help() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("model.safetensors");
    fs::write(&file, b"x").unwrap();
    run_with(&scratch.path().join("young"), []);
    for (path, got, help) in [
        (
            scratch.path().join("missing"),
            "no such file or folder",
            "check the path",
        ),
        (
            file.join("below"),
            "no such file or folder",
            "check the path",
        ),
        (file, "a file", "give the folder"),
        (
            scratch.path().join("young"),
            "a run folder without a checkpoint",
            "wait",
        ),
    ] {
        let message = refused(&path).to_string();
        assert!(
            message.contains(&format!("got:      {got}\n  help:     {help}")),
            "{message}"
        );
    }
}

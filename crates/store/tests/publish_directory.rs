//! A published directory appears completely or not at all, even after kills and errors.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokenformer_store::{
    DirWriter, Error, Manifest, TensorSource, ensure_space, verify, write_atomic,
};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn fill(writer: &mut DirWriter, text: &str) {
    #[derive(Serialize)]
    struct State {
        step: u64,
        note: &'static str,
    }
    writer.write_bytes("note.txt", text.as_bytes()).unwrap();
    writer
        .write_json("state.json", &State { step: 7, note: "n" })
        .unwrap();
    let weights = [0.5f32; 6];
    writer
        .write_tensors(
            "model.safetensors",
            &BTreeMap::new(),
            [TensorSource::f32("w", &[2, 3], &weights)],
        )
        .unwrap();
    fs::write(writer.file("extra.bin").unwrap(), b"by other means").unwrap();
}

fn publish(dir: &Path, text: &str) -> Manifest {
    let mut writer = DirWriter::begin(dir, "model").unwrap();
    fill(&mut writer, text);
    writer.commit().unwrap()
}

fn note(dir: &Path) -> String {
    fs::read_to_string(dir.join("note.txt")).unwrap()
}

/// The files that a process leaves if it is killed at this moment.
fn killed_while_writing(dir: &Path) -> PathBuf {
    let mut writer = DirWriter::begin(dir, "model").unwrap();
    fill(&mut writer, "half");
    let left = dir.with_file_name(".tmp-model");
    let copy = dir.with_file_name("copy");
    fs::create_dir(&copy).unwrap();
    for name in names(&left) {
        fs::copy(left.join(&name), copy.join(&name)).unwrap();
    }
    drop(writer);
    fs::rename(copy, &left).unwrap();
    left
}

#[test]
fn a_committed_directory_verifies_and_lists_its_files() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("above/that/model");
    let manifest = publish(&dir, "hello");
    assert_eq!(manifest.kind, "model");
    let listed: Vec<&str> = manifest
        .files
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(
        listed,
        ["extra.bin", "model.safetensors", "note.txt", "state.json"]
    );
    assert_eq!(manifest.files[2].bytes, 5);
    assert_eq!(manifest.files[2].blake3, blake3::hash(b"hello").to_string());
    let verified = verify(&dir).unwrap();
    assert_eq!(verified.manifest, manifest);
    assert!(verified.unlisted.is_empty());
    assert_eq!(names(dir.parent().unwrap()), ["model"]);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
    publish(&one, "same");
    let mut writer = DirWriter::begin(&two, "model").unwrap();
    fs::write(writer.file("extra.bin").unwrap(), b"by other means").unwrap();
    let weights = [0.5f32; 6];
    writer
        .write_tensors(
            "model.safetensors",
            &BTreeMap::new(),
            [TensorSource::f32("w", &[2, 3], &weights)],
        )
        .unwrap();
    writer
        .write_bytes("state.json", b"{\n  \"step\": 7,\n  \"note\": \"n\"\n}\n")
        .unwrap();
    writer.write_bytes("note.txt", b"same").unwrap();
    writer.commit().unwrap();
    assert_eq!(names(&one), names(&two));
    for name in names(&one) {
        assert_eq!(
            fs::read(one.join(&name)).unwrap(),
            fs::read(two.join(&name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_writer_dropped_midway_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    let mut writer = DirWriter::begin(&dir, "model").unwrap();
    fill(&mut writer, "never");
    assert_eq!(names(scratch.path()), [".tmp-model"]);
    drop(writer);
    assert!(names(scratch.path()).is_empty());
}

#[test]
fn a_failed_write_inside_leaves_nothing_under_the_final_name() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    publish(&dir, "old");
    let mut writer = DirWriter::begin(&dir, "model").unwrap();
    let weights = [0.5f32; 6];
    let wrong = writer.write_tensors(
        "w",
        &BTreeMap::new(),
        [TensorSource::f32("w", &[7], &weights)],
    );
    assert!(matches!(
        wrong,
        Err(Error::WrongSize {
            expected: 28,
            got: 24,
            ..
        })
    ));
    drop(writer);
    assert_eq!(names(scratch.path()), ["model"]);
    assert_eq!(note(&dir), "old");
    verify(&dir).unwrap();
}

#[test]
fn a_promised_file_that_never_came_stops_the_commit() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    let mut writer = DirWriter::begin(&dir, "model").unwrap();
    writer.file("tokenizer.json").unwrap();
    let message = writer.commit().unwrap_err().to_string();
    assert!(message.contains("tokenizer.json"), "{message}");
    assert!(names(scratch.path()).is_empty());
}

#[test]
fn a_replacement_takes_over_completely() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    publish(&dir, "old");
    let mut writer = DirWriter::begin(&dir, "model").unwrap();
    writer.write_bytes("note.txt", b"new").unwrap();
    assert_eq!(note(&dir), "old");
    writer.commit().unwrap();
    assert_eq!(names(&dir), ["manifest.json", "note.txt"]);
    assert_eq!(note(&dir), "new");
    assert_eq!(names(scratch.path()), ["model"]);
}

#[test]
fn what_a_killed_process_left_is_cleared() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    let left = killed_while_writing(&dir);
    fs::write(left.join("of-the-dead"), b"x").unwrap();
    publish(&dir, "new");
    assert_eq!(names(scratch.path()), ["model"]);
    assert!(!names(&dir).contains(&"of-the-dead".to_string()));
}

#[test]
fn a_replacement_cut_between_its_renames_is_undone() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    publish(&dir, "old");
    fs::rename(&dir, scratch.path().join(".old-model")).unwrap();
    let writer = DirWriter::begin(&dir, "model").unwrap();
    assert_eq!(
        note(&dir),
        "old",
        "back in place before anything else is written"
    );
    drop(writer);
    assert_eq!(names(scratch.path()), ["model"]);
}

#[test]
fn a_replacement_cut_before_its_clean_up_is_finished() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    publish(&dir, "old");
    fs::rename(&dir, scratch.path().join(".old-model")).unwrap();
    fs::create_dir(scratch.path().join("other")).unwrap();
    publish(&scratch.path().join("other/model"), "new");
    fs::rename(scratch.path().join("other/model"), &dir).unwrap();
    drop(DirWriter::begin(&dir, "model").unwrap());
    assert_eq!(note(&dir), "new");
    assert_eq!(names(scratch.path()), ["model", "other"]);
}

#[test]
fn a_damaged_version_never_costs_the_good_one_beside_it() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    publish(&dir, "old");
    fs::rename(&dir, scratch.path().join(".old-model")).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("manifest.json"), b"{}").unwrap();
    assert!(matches!(
        DirWriter::begin(&dir, "model"),
        Err(Error::Manifest { .. })
    ));
    verify(&scratch.path().join(".old-model")).unwrap();
    assert_eq!(names(scratch.path()), [".old-model", "model"]);
}

#[test]
fn what_others_put_there_is_never_deleted() {
    let scratch = tempfile::tempdir().unwrap();
    let foreign = scratch.path().join("home");
    fs::create_dir(&foreign).unwrap();
    drop(DirWriter::begin(&foreign, "model").unwrap());
    fs::write(foreign.join("thesis.tex"), b"x").unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, b"x").unwrap();
    let grown = scratch.path().join("model");
    publish(&grown, "mine");
    fs::write(grown.join("README.md"), b"x").unwrap();

    for (path, got) in [
        (&foreign, "a folder without"),
        (&file, "a file"),
        (&grown, "\"README.md\""),
    ] {
        let Err(error) = DirWriter::begin(path, "model") else {
            panic!("{} would be replaced", path.display())
        };
        let message = error.to_string();
        assert!(
            message.contains(got) && message.contains("choose another folder"),
            "{message}"
        );
    }
    assert_eq!(names(scratch.path()), ["file", "home", "model"]);
}

#[test]
fn what_appears_during_the_writing_is_not_deleted_either() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    let mut writer = DirWriter::begin(&dir, "model").unwrap();
    fill(&mut writer, "late");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("thesis.tex"), b"x").unwrap();
    assert!(matches!(writer.commit(), Err(Error::NotReplaceable { .. })));
    assert_eq!(names(scratch.path()), ["model"]);
    assert_eq!(names(&dir), ["thesis.tex"]);
}

#[cfg(unix)]
#[test]
fn two_writers_of_one_directory_do_not_mix() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("model");
    let mut first = DirWriter::begin(&dir, "model").unwrap();
    first.write_bytes("note.txt", b"first").unwrap();
    assert!(matches!(
        DirWriter::begin(&dir, "model"),
        Err(Error::Busy { .. })
    ));
    first.commit().unwrap();
    assert_eq!(note(&dir), "first");
    publish(&dir, "second");
    assert_eq!(note(&dir), "second");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = DirWriter::begin(&scratch.path().join("model"), "model").unwrap();
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc/x",
        ".hidden",
        "manifest.json",
        "c:x",
        "nul\0",
    ] {
        assert!(
            matches!(writer.write_bytes(name, b""), Err(Error::FileName { .. })),
            "{name:?}"
        );
        assert!(
            matches!(writer.file(name), Err(Error::FileName { .. })),
            "{name:?}"
        );
    }
    writer.write_bytes("twice", b"1").unwrap();
    assert!(matches!(
        writer.write_bytes("twice", b"2"),
        Err(Error::Io { .. })
    ));
    assert!(matches!(
        DirWriter::begin(Path::new("/"), "model"),
        Err(Error::NoFileName { .. })
    ));
    assert!(matches!(
        DirWriter::begin(Path::new(".."), "model"),
        Err(Error::NoFileName { .. })
    ));
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_with_path_and_help() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, b"x").unwrap();
    let Err(error) = DirWriter::begin(&file.join("model"), "model") else {
        panic!()
    };
    let message = error.to_string();
    assert!(
        message.contains("file") && message.contains("help:"),
        "{message}"
    );
    let message = write_atomic(&file.join("latest"), b"x")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("latest") && message.contains("a part of the path is a file"),
        "{message}"
    );
    if cfg!(target_os = "linux") {
        assert!(DirWriter::begin(Path::new("/proc/tokenformer/model"), "model").is_err());
    }
}

#[test]
fn a_lack_of_space_is_told_before_writing() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("not/there/yet");
    ensure_space(&path, 1).unwrap();
    let message = ensure_space(&path, u64::MAX).unwrap_err().to_string();
    assert!(
        message.contains("expected: 18446744073709551615 bytes\n  got:      "),
        "{message}"
    );

    let mut writer = DirWriter::begin(&scratch.path().join("model"), "model").unwrap();
    let mut never = |_: &mut dyn std::io::Write| -> std::io::Result<()> {
        panic!("refused before the first byte")
    };
    let huge = TensorSource::stream("w", tokenformer_store::Dtype::F32, &[1 << 58], &mut never);
    assert!(matches!(
        writer.write_tensors("w", &BTreeMap::new(), [huge]),
        Err(Error::NoSpace { .. })
    ));
}

#[test]
fn an_atomic_write_replaces_and_a_small_read_is_bounded() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("latest");
    write_atomic(&path, b"a longer first content").unwrap();
    fs::write(
        scratch.path().join(".tmp-latest"),
        b"left by a killed process, longer than what comes",
    )
    .unwrap();
    write_atomic(&path, b"short").unwrap();
    assert_eq!(tokenformer_store::read_small(&path, 5).unwrap(), b"short");
    assert!(matches!(
        tokenformer_store::read_small(&path, 4),
        Err(Error::TooLarge { max_bytes: 4, .. })
    ));
    assert_eq!(names(scratch.path()), ["latest"]);
    fs::create_dir(scratch.path().join("dir")).unwrap();
    assert!(write_atomic(&scratch.path().join("dir"), b"x").is_err());
    assert_eq!(names(scratch.path()), ["dir", "latest"]);
}

//! A directory that differs from its manifest in any byte is refused, with the name of the file.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tokenformer_store::{DirWriter, Error, Manifest, verify};

const FILES: [(&str, usize); 3] = [("a.bin", 1), ("b.bin", 3000), ("c.bin", 70_000)];

fn publish(dir: &Path) {
    let mut writer = DirWriter::begin(dir, "checkpoint").unwrap();
    for (name, length) in FILES {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
        writer.write_bytes(name, &bytes).unwrap();
    }
    writer.commit().unwrap();
}

fn is_about(error: &Error, file: &str) -> bool {
    match error {
        Error::Damaged { name, .. } => name == file,
        _ => false,
    }
}

#[test]
fn missing_and_odd_files_are_refused_and_others_are_listed() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("c");
    publish(&dir);
    fs::write(dir.join("z"), b"").unwrap();
    fs::write(dir.join("notes.txt"), b"mine").unwrap();
    assert_eq!(verify(&dir).unwrap().unlisted, ["notes.txt", "z"]);

    fs::remove_file(dir.join("b.bin")).unwrap();
    let error = verify(&dir).unwrap_err();
    assert!(is_about(&error, "b.bin"));
    assert!(
        error.to_string().contains("got:      no such file"),
        "{error}"
    );
    fs::create_dir(dir.join("b.bin")).unwrap();
    let message = verify(&dir).unwrap_err().to_string();
    assert!(
        message.contains("b.bin") && message.contains("not a regular file"),
        "{message}"
    );
}

#[test]
fn a_directory_without_a_manifest_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("c");
    assert!(matches!(verify(&dir), Err(Error::Io { .. })));
    publish(&dir);
    fs::remove_file(dir.join("manifest.json")).unwrap();
    assert!(matches!(verify(&dir), Err(Error::ManifestMissing { .. })));
}

#[test]
fn the_manifest_is_readable_json() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("c");
    let mut writer = DirWriter::begin(&dir, "checkpoint").unwrap();
    writer.write_bytes("a", b"abc").unwrap();
    writer.commit().unwrap();
    let expected = r#"{
  "format": "tokenformer-manifest",
  "version": 1,
  "kind": "checkpoint",
  "files": [
    {
      "name": "a",
      "bytes": 3,
      "blake3": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    }
  ],
  "blake3": ""#;
    let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn manifests_of_other_formats_and_versions_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("manifest.json");
    for (text, got) in [
        (
            r#"{"format":"tokenformer-manifest","version":2,"news":[]}"#,
            "\"tokenformer-manifest\" version 2",
        ),
        (r#"{"format":"other","version":1}"#, "\"other\" version 1"),
        (
            r#"{"format":"tokenformer-manifest","version":1}"#,
            "missing field `kind`",
        ),
        ("", "EOF"),
        ("[[[[", "invalid type"),
    ] {
        fs::write(&path, text).unwrap();
        let message = Manifest::read(scratch.path()).unwrap_err().to_string();
        assert!(message.contains(got), "{message}");
    }
}

#[test]
fn a_manifest_that_lists_a_path_outside_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("c");
    publish(&dir);
    fs::write(scratch.path().join("outside"), b"x").unwrap();
    let files = r#"[{"name":"../outside","bytes":1,"blake3":"00"}]"#;
    let own =
        blake3::hash(format!(r#"["tokenformer-manifest",1,"checkpoint",{files}]"#).as_bytes());
    let text = format!(
        r#"{{"format":"tokenformer-manifest","version":1,"kind":"checkpoint","files":{files},"blake3":"{own}"}}"#
    );
    fs::write(dir.join("manifest.json"), text).unwrap();
    assert!(matches!(verify(&dir), Err(Error::FileName { name, .. }) if name == "../outside"));
}

#[cfg(unix)]
#[test]
fn a_device_in_place_of_a_file_does_not_block() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("c");
    publish(&dir);
    fs::remove_file(dir.join("c.bin")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.join("c.bin")).unwrap();
    assert!(
        verify(&dir)
            .unwrap_err()
            .to_string()
            .contains("c.bin: cannot read it")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_flipped_bit_is_found(which in 0usize..4, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("c");
        publish(&dir);
        let name = FILES.get(which).map_or("manifest.json", |file| file.0);
        let mut bytes = fs::read(dir.join(name)).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(dir.join(name), bytes).unwrap();
        let error = verify(&dir).unwrap_err();
        prop_assert!(error.to_string().contains(name), "{}", error);
        prop_assert!(name == "manifest.json" || is_about(&error, name), "{}", error);
    }

    #[test]
    fn any_truncation_or_addition_is_found(
        which in 0usize..4,
        keep in any::<prop::sample::Index>(),
        added in prop::option::of(1usize..5),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("c");
        publish(&dir);
        let name = FILES.get(which).map_or("manifest.json", |file| file.0);
        let mut bytes = fs::read(dir.join(name)).unwrap();
        match added {
            Some(count) => bytes.resize(bytes.len() + count, b'x'),
            // The manifest's last byte is its line end, which says nothing.
            None => bytes.truncate(keep.index(bytes.len() - usize::from(name == "manifest.json"))),
        }
        fs::write(dir.join(name), bytes).unwrap();
        let error = verify(&dir).unwrap_err();
        prop_assert!(error.to_string().contains(name), "{}", error);
        prop_assert!(name == "manifest.json" || is_about(&error, name), "{}", error);
    }
}

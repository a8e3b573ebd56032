//! A study keeps the text that it began with.

use std::fs;
use std::path::Path;
use tokenformer_data::prepare;
use tokenformer_study::Profile;
use tokenformer_study::corpus::{Source, source};

fn write(folder: &Path, name: &str, words: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), words.repeat(400)).unwrap();
}

#[test]
fn a_folder_that_has_changed_is_no_longer_the_text_of_the_study() {
    let scratch = tempfile::tempdir().unwrap();
    let texts = scratch.path().join("texts");
    for name in ["a.txt", "b.txt", "c.txt", "d.txt"] {
        write(&texts, name, &format!("The words of {name} are few. "));
    }
    // A study may lie beside its text.
    let data = texts.join("study/data");
    let profile = Profile::named("smoke").unwrap();
    let find = |folder: &Path| source(&profile, Some(folder), &data);
    match find(&texts).unwrap() {
        Source::Prepare(options) => prepare(&options, |_| ()).unwrap(),
        Source::Ready(dir) => panic!("{} was there", dir.display()),
    };
    write(&texts.join("study/results"), "run.json", "{}");
    assert!(matches!(find(&texts), Ok(Source::Ready(dir)) if dir == data));

    let refused = |folder: &Path| match find(folder) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was taken"),
    };
    write(&texts, "e.txt", "One more text. ");
    let error = refused(&texts);
    assert!(
        error.contains("has changed since the study there began"),
        "{error}"
    );
    let others = scratch.path().join("others");
    write(&others, "a.txt", "Others. ");
    let error = refused(&others);
    assert!(error.contains("another corpus"), "{error}");
}

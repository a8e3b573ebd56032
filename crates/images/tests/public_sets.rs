//! Packages with pictures, as folders that look like them; nothing is downloaded.

mod common;

use std::path::Path;

use common::{numbered, png, write};
use tokenformer_images::fetch::{PublicSet, fetch};
use tokenformer_images::{PrepareOptions, Split, prepare};

fn refused(set: PublicSet, package: &Path) -> String {
    match fetch(set, Some(package), &package.with_file_name("out")) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn emoji_have_their_group_as_class() {
    let scratch = tempfile::tempdir().unwrap();
    let package = scratch.path().join("package");
    let mut entries = Vec::new();
    for number in 0..60 {
        let category = ["Flags", "Animals & Nature", "Component"][number % 3];
        let image = format!("{number:04x}.png");
        write(
            &package.join("img/twitter/64").join(&image),
            &png(&numbered(number, 64, 64, 3)),
        );
        let has_it = number != 3;
        entries.push(format!(
            r#"{{"image": "{image}", "category": "{category}", "has_img_twitter": {has_it}, "other": 1}}"#
        ));
    }
    write(
        &package.join("emoji.json"),
        format!("[{}]", entries.join(",")).as_bytes(),
    );
    let fetched = fetch(
        PublicSet::Emoji,
        Some(&package),
        &scratch.path().join("out"),
    )
    .unwrap();
    assert_eq!(fetched.source.classes(), ["Animals & Nature", "Flags"]);
    let mut options = PrepareOptions::new(scratch.path().join("out"));
    options.valid_share = 0.3;
    let summary = prepare(&fetched.source, &options, &mut |_| {}).unwrap();
    assert_eq!(summary.found, 39);
    let sizes = summary.split(Split::Train).unwrap();
    assert_eq!((sizes.smallest, sizes.largest), ([64, 64], [64, 64]));

    write(
        &package.join("emoji.json"),
        br#"[{"image": "../../x.png", "category": "a", "has_img_twitter": true}]"#,
    );
    assert!(refused(PublicSet::Emoji, &package).contains("not the package with the pictures"));
    write(&package.join("emoji.json"), b"[]");
    assert!(refused(PublicSet::Emoji, &package).contains("no pictures"));
}

#[test]
fn fashion_mnist_has_names_for_its_classes() {
    let scratch = tempfile::tempdir().unwrap();
    let package = scratch.path().join("unpacked");
    let dir = package.join("usr/share/datasets/fashion-mnist");
    for prefix in ["train", "t10k"] {
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 28, 0, 0, 0, 28];
        images.extend((0..40).flat_map(|n| numbered(n, 28, 28, 1).pixels().to_vec()));
        let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 40];
        labels.extend((0..40).map(|n| n % 10));
        write(&dir.join(format!("{prefix}-images-idx3-ubyte")), &images);
        write(&dir.join(format!("{prefix}-labels-idx1-ubyte")), &labels);
    }
    let fetched = fetch(
        PublicSet::FashionMnist,
        Some(&package),
        &scratch.path().join("out"),
    )
    .unwrap();
    assert_eq!(fetched.source.classes()[9], "Ankle boot");
    write(
        &scratch.path().join("tree/a/1.png"),
        &png(&numbered(1, 8, 8, 1)),
    );
    assert!(
        refused(PublicSet::FashionMnist, &scratch.path().join("tree")).contains("not the package")
    );
}

#[test]
fn another_file_is_no_package_of_digits() {
    let scratch = tempfile::tempdir().unwrap();
    write(&scratch.path().join("digits.xy"), b"words");
    assert!(
        refused(PublicSet::Digits, &scratch.path().join("digits.xy"))
            .contains("not the package with the pictures")
    );
}

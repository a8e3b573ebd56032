//! Folders of pictures to datasets, and back.

mod common;

use std::fs;
use std::path::Path;

use common::{bytes, fixture, numbered, png, prepared, write};
use tokenformer_images::source::SourceOptions;
use tokenformer_images::{
    Error, ImageSet, PrepareOptions, Source, Split, Storage, Summary, prepare,
};

fn open(dir: &Path) -> Source {
    Source::open(dir, &SourceOptions::default()).unwrap()
}

fn refused(dir: &Path, options: &SourceOptions) -> String {
    Source::open(dir, options).unwrap_err().to_string()
}

fn made(dir: &Path, change: impl Fn(&mut PrepareOptions)) -> Result<Summary, Error> {
    let mut options = PrepareOptions::new(dir.with_file_name("set"));
    change(&mut options);
    prepare(&open(dir), &options, &mut |_| {})
}

/// `count` pictures for each class of each split, from `start` on.
fn tree(dir: &Path, folders: &[&str], count: usize) {
    for (place, folder) in folders.iter().enumerate() {
        for number in 0..count {
            let picture = numbered(place * count + number, 12, 9, 3);
            write(
                &dir.join(folder).join(format!("{number:03}.png")),
                &png(&picture),
            );
        }
    }
}

#[test]
fn given_splits_come_back_as_they_are() {
    for storage in [Storage::Packed, Storage::Indexed] {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("tree");
        tree(&dir, &["train/b", "train/a", "val/a", "val/b", "test/b"], 5);
        let summary = made(&dir, |o| o.storage = Some(storage)).unwrap();
        assert_eq!(summary.classes, ["a", "b"]);
        assert_eq!(summary.valid_share, None);
        let set = ImageSet::open(&scratch.path().join("set")).unwrap();
        assert_eq!(set.summary(), &summary);
        let train = set.split(Split::Train).unwrap();
        assert_eq!(
            (train.len(), train.label(0), train.name(0)),
            (10, 0, "train/a/000.png")
        );
        assert_eq!(train.picture(5).unwrap(), numbered(0, 12, 9, 3));
        let test = set.split(Split::Test).unwrap();
        assert_eq!((test.len(), test.label(4)), (5, 1));
        assert_eq!(test.picture(4).unwrap(), numbered(24, 12, 9, 3));
        assert_eq!(set.split(Split::Valid).unwrap().len(), 10);
        assert!(
            summary
                .notes
                .iter()
                .any(|n| n == "1 classes have no folder for test."),
            "{:?}",
            summary.notes
        );
    }
}

#[test]
fn the_hash_splits_and_threads_change_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["x", "y"], 100);
    // An equal picture under another name goes to the same side.
    fs::copy(dir.join("x/007.png"), dir.join("x/zzz.png")).unwrap();
    let files = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let summary = pool.install(|| {
            made(&dir, |o| {
                o.valid_share = 0.3;
                o.force = true;
            })
        });
        let names = [
            "train.table",
            "train.pixels",
            "valid.table",
            "valid.pixels",
            "images.json",
            "manifest.json",
        ];
        let bytes = names.map(|name| fs::read(scratch.path().join("set").join(name)).unwrap());
        (summary.unwrap(), bytes)
    };
    let (summary, bytes) = files(1);
    assert!(files(4).1 == bytes);
    // 60 ± 4 · √(200 · 0.3 · 0.7).
    let valid = summary.split(Split::Valid).unwrap().images;
    assert!((35..86).contains(&valid), "{valid}");
    assert_eq!(summary.duplicates.within, 1);
    assert_eq!(summary.duplicates.across, 0);
    let other = made(&dir, |o| {
        o.valid_share = 0.3;
        o.force = true;
        o.seed = 1;
    });
    let names = |set: &Summary| set.split(Split::Valid).unwrap().per_class.clone();
    let set = ImageSet::open(&scratch.path().join("set")).unwrap();
    assert_eq!(names(set.summary()), names(&other.unwrap()));
    assert!(fs::read(scratch.path().join("set/valid.table")).unwrap() != bytes[2]);
}

#[test]
fn leaks_and_contradictions_are_counted() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["train/a", "train/b", "val/a", "val/b"], 4);
    fs::copy(dir.join("train/a/001.png"), dir.join("val/a/leak.png")).unwrap();
    fs::copy(dir.join("train/a/002.png"), dir.join("train/b/other.png")).unwrap();
    let summary = made(&dir, |_| {}).unwrap();
    let found = &summary.duplicates;
    assert_eq!((found.across, found.within, found.other_class), (1, 1, 1));
    assert_eq!(
        found.across_examples,
        [["val/a/leak.png", "train/a/001.png"]]
    );
    assert!(
        summary
            .to_string()
            .contains("val/a/leak.png is train/a/001.png")
    );
}

#[test]
fn unreadable_files_are_listed_up_to_a_limit() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["a", "b"], 50);
    let good = png(&numbered(900, 12, 9, 3));
    write(&dir.join("a/really-a-png.jpg"), &good);
    write(&dir.join("a/no-ending"), &good);
    write(
        &dir.join("a/deeper/one.png"),
        &png(&numbered(901, 12, 9, 3)),
    );
    write(&dir.join("a/empty.jpg"), b"");
    write(&dir.join("a/page.jpg"), b"<html>not found</html>");
    write(&dir.join("b/cut.png"), &good[..good.len() - 5]);
    write(&dir.join("b/animated.gif"), b"GIF89a");
    write(&dir.join("b/notes.txt"), b"words");
    write(&dir.join("b/.hidden.png"), b"");
    let error = made(&dir, |_| {}).unwrap_err().to_string();
    assert!(
        error.contains("too many unreadable pictures\n  expected: at most 1 of 107"),
        "{error}"
    );
    assert!(
        error.contains("a/empty.jpg: not a picture: an empty file"),
        "{error}"
    );
    assert!(!scratch.path().join("set").exists());
    let summary = made(&dir, |o| o.max_unreadable = 0.05).unwrap();
    let skipped: Vec<&str> = summary.skipped.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        skipped,
        ["a/empty.jpg", "a/page.jpg", "b/animated.gif", "b/cut.png"]
    );
    assert_eq!(summary.found, 107);
    let kept: usize = summary.splits.iter().map(|s| s.images).sum();
    assert_eq!(kept, 103);
    assert!(
        summary
            .notes
            .contains(&"1 other files were left out.".to_owned()),
        "{:?}",
        summary.notes
    );
}

#[cfg(unix)]
#[test]
fn links_in_circles_and_to_nowhere_are_listed() {
    use std::os::unix::fs::symlink;
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["a", "b"], 20);
    symlink(dir.join("a"), dir.join("a/again")).unwrap();
    symlink(dir.join("nowhere.png"), dir.join("b/gone.png")).unwrap();
    symlink(dir.join("b/000.png"), dir.join("b/linked.png")).unwrap();
    let summary = made(&dir, |o| o.max_unreadable = 0.5).unwrap();
    let skipped: Vec<&str> = summary.skipped.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(skipped, ["a/again", "b/gone.png"]);
    assert_eq!(summary.duplicates.within, 1);
    let name = std::os::unix::ffi::OsStrExt::from_bytes(&b"b/\xff.png"[..]);
    let name: &std::ffi::OsStr = name;
    write(&dir.join(name), b"");
    let summary = made(&dir, |o| {
        o.max_unreadable = 0.5;
        o.force = true;
    });
    let reasons: Vec<String> = summary
        .unwrap()
        .skipped
        .into_iter()
        .map(|s| s.reason)
        .collect();
    assert!(
        reasons.contains(&"the name is not UTF-8: other bytes".to_owned()),
        "{reasons:?}"
    );
}

/// A folder that cannot be read would hide pictures, so it is an error and not a note.
#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_read_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["a", "b"], 3);
    let closed = dir.join("a/closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&closed).is_ok() {
        // The superuser reads every folder: then it is one without pictures.
        eprintln!("run as the superuser: nothing is refused");
        assert_eq!(open(&dir).classes(), ["a", "b"]);
        return;
    }
    let error = refused(&dir, &SourceOptions::default());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(
        error.contains("closed") && error.contains("cannot read"),
        "{error}"
    );
}

#[test]
fn classes_are_those_of_training() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["train/a", "train/b", "val/a", "val/c"], 3);
    let none = SourceOptions::default();
    let error = refused(&dir, &none);
    assert!(
        error.contains("unknown classes\n  expected: classes that there are training pictures of"),
        "{error}"
    );
    fs::rename(dir.join("val/c"), dir.join("val/b")).unwrap();
    fs::create_dir(dir.join("train/empty")).unwrap();
    let summary = made(&dir, |_| {}).unwrap();
    assert_eq!(summary.classes, ["a", "b", "empty"]);
    let has = |note: &str| {
        assert!(
            summary.notes.iter().any(|n| n == note),
            "{:?}",
            summary.notes
        )
    };
    has("The class folder train/empty has no pictures.");
    has("1 classes have no folder for valid.");

    assert!(refused(&dir.join("train/a"), &none).contains("no class folders"));
    assert!(refused(&dir.join("train/a/000.png"), &none).contains("not a set of pictures"));
    assert!(refused(&dir.join("gone"), &none).contains("cannot read"));
    fs::create_dir(dir.join("validation")).unwrap();
    assert!(refused(&dir, &none).contains("two sets for one split"));
}

/// Pictures that lie elsewhere are held to the same classes as those in the tree.
#[test]
fn classes_elsewhere_are_those_of_training_too() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["one/a", "one/b", "two/a", "two/c"], 3);
    let map = scratch.path().join("classes.txt");
    fs::write(&map, "a\nb\n").unwrap();
    for split in ["valid", "test"] {
        let mut options = SourceOptions::default();
        match split {
            "valid" => options.valid = Some(dir.join("two")),
            _ => options.test = Some(dir.join("two")),
        }
        let error = refused(&dir.join("one"), &options);
        assert!(
            error.contains(
                "unknown classes\n  expected: classes that there are training pictures of"
            ) && error.contains("1 others, such as c"),
            "{error}"
        );
        // Whoever names the classes knows of the others; the note names the split, not the one that the folder would be alone.
        options.class_map = Some(map.clone());
        let source = Source::open(&dir.join("one"), &options).unwrap();
        let mut prepare_options = PrepareOptions::new(scratch.path().join(split));
        prepare_options.valid_share = 0.4;
        let summary = prepare(&source, &prepare_options, &mut |_| {}).unwrap();
        for note in [
            format!(
                "1 class folders of {split} that are not among the classes were left out, such as c."
            ),
            format!("1 classes have no folder for {split}."),
        ] {
            assert!(
                summary.notes.iter().any(|n| n.ends_with(&note)),
                "{note} is not in {:?}",
                summary.notes
            );
        }
        assert_eq!(summary.found, 9);
    }
}

#[test]
fn pictures_outside_of_class_folders_are_counted() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    let good = png(&numbered(900, 12, 9, 3));
    let left_out = |dir: &Path| -> Vec<String> {
        let made = made(dir, |o| {
            o.force = true;
            o.valid_share = 0.4;
        });
        let notes = made.unwrap().notes.into_iter();
        notes.filter(|note| note.contains("class folder")).collect()
    };
    tree(&dir, &["a", "b"], 20);
    write(&dir.join("readme.txt"), b"words");
    assert!(left_out(&dir).is_empty());
    write(&dir.join("one.png"), &good);
    write(&dir.join("two.jpg"), b"<html>");
    assert_eq!(
        left_out(&dir),
        ["2 pictures that lie in no class folder were left out, such as one.png."]
    );
    let dir = scratch.path().join("splits");
    tree(&dir, &["train/a", "val/a"], 20);
    write(&dir.join("top.png"), &good);
    write(&dir.join("val/held-out.png"), &good);
    assert_eq!(
        left_out(&dir),
        ["2 pictures that lie in no class folder were left out, such as top.png."]
    );
}

/// The size of a picture may come after a long profile or thumbnail.
#[test]
fn a_size_far_behind_the_start_of_a_file_counts() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["train/a", "val/a"], 2);
    let row = fixture("decode").into_iter();
    let row = row.into_iter().find(|row| row["name"] == "444.jpg");
    let mut jpeg = bytes(&row.unwrap(), "file");
    let frame = jpeg.windows(5).position(|at| at == [0xff, 0xc0, 0, 17, 8]);
    let at = frame.unwrap() + 5;
    jpeg[at..at + 4].copy_from_slice(&[1, 0, 1, 0]);
    // Comments behind the start of the image.
    let comment = [&[0xff, 0xfe, 0xff, 0xff][..], &[b'x'; 65_533]].concat();
    jpeg.splice(2..2, comment.repeat(5));
    write(&dir.join("train/a/large.jpg"), &jpeg);
    let summary = made(&dir, |o| o.max_unreadable = 0.5).unwrap();
    assert_eq!(summary.storage, Storage::Indexed);
}

#[test]
fn a_class_map_fixes_numbers() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["a", "b", "c"], 30);
    let map = scratch.path().join("classes.txt");
    let options = SourceOptions {
        class_map: Some(map.clone()),
        ..SourceOptions::default()
    };
    fs::write(&map, "c\n\nb \r\n").unwrap();
    let source = Source::open(&dir, &options).unwrap();
    assert_eq!(source.classes(), ["c", "b"]);
    let summary = prepare(
        &source,
        &PrepareOptions::new(scratch.path().join("set")),
        &mut |_| {},
    )
    .unwrap();
    assert!(
        summary.notes[0].contains("were left out, such as a."),
        "{:?}",
        summary.notes
    );
    let set = ImageSet::open(&scratch.path().join("set")).unwrap();
    let train = set.split(Split::Train).unwrap();
    assert_eq!((train.label(0), &train.name(0)[..2]), (1, "b/"));
    for (text, expected) in [
        (&b"a\na\n"[..], "a class twice"),
        (b"\n", "a wrong number of classes"),
        (b"\xff\n", "not a class map"),
    ] {
        fs::write(&map, text).unwrap();
        assert!(refused(&dir, &options).contains(expected));
    }
    let many: String = (0..65_536).map(|n| format!("{n}\n")).collect();
    fs::write(&map, many).unwrap();
    assert!(refused(&dir, &options).contains("a wrong number of classes"));
}

#[test]
fn held_out_pictures_may_lie_elsewhere() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["one/a", "one/b", "two/b", "two/a"], 3);
    let options = SourceOptions {
        valid: Some(dir.join("two")),
        ..SourceOptions::default()
    };
    for storage in [Storage::Packed, Storage::Indexed] {
        let source = Source::open(&dir.join("one"), &options).unwrap();
        let mut prepare_options = PrepareOptions::new(scratch.path().join(storage.name()));
        prepare_options.storage = Some(storage);
        prepare(&source, &prepare_options, &mut |_| {}).unwrap();
        let set = ImageSet::open(&scratch.path().join(storage.name())).unwrap();
        let valid = set.split(Split::Valid).unwrap();
        assert_eq!(
            (valid.len(), valid.label(0), valid.name(0)),
            (6, 0, "two/a/000.png")
        );
        assert_eq!(valid.picture(0).unwrap(), numbered(9, 12, 9, 3));
    }
}

/// What cannot be read is named from the same folder on as what can.
#[cfg(unix)]
#[test]
fn unreadable_pictures_elsewhere_are_named_with_their_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["one/a", "two/a"], 3);
    for folder in ["one", "two"] {
        let link = dir.join(folder).join("a/gone.png");
        std::os::unix::fs::symlink(dir.join("nowhere.png"), link).unwrap();
    }
    let options = SourceOptions {
        valid: Some(dir.join("two")),
        ..SourceOptions::default()
    };
    let source = Source::open(&dir.join("one"), &options).unwrap();
    let mut options = PrepareOptions::new(scratch.path().join("set"));
    options.max_unreadable = 0.5;
    let summary = prepare(&source, &options, &mut |_| {}).unwrap();
    let skipped: Vec<&str> = summary.skipped.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(skipped, ["one/a/gone.png", "two/a/gone.png"]);
}

#[test]
fn changed_files_of_an_index_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["train/a", "val/a"], 3);
    made(&dir, |o| o.storage = Some(Storage::Indexed)).unwrap();
    let set = ImageSet::open(&scratch.path().join("set")).unwrap();
    let train = set.split(Split::Train).unwrap();
    let path = dir.join("train/a/001.png");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = train.picture(1).unwrap_err().to_string();
    assert!(
        error.contains("001.png: the file changed since the dataset was made"),
        "{error}"
    );
    bytes.push(0);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        train.picture(1).unwrap_err(),
        Error::Changed { .. }
    ));
    fs::remove_file(&path).unwrap();
    let error = train.picture(1).unwrap_err().to_string();
    assert!(error.contains("001.png: cannot be read"), "{error}");
    assert!(error.contains("put the file back"), "{error}");
    assert!(train.picture(0).is_ok());
}

#[test]
fn large_pictures_are_indexed_and_reduced_ones_packed() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["train/a", "val/a"], 2);
    write(
        &dir.join("train/a/large.png"),
        &png(&numbered(1, 200, 150, 1)),
    );
    let force = |o: &mut PrepareOptions| o.force = true;
    assert_eq!(made(&dir, force).unwrap().storage, Storage::Indexed);
    let summary = made(&dir, |o| {
        o.force = true;
        o.resize = Some(10);
    });
    let summary = summary.unwrap();
    assert_eq!(summary.storage, Storage::Packed);
    let train = summary.split(Split::Train).unwrap();
    assert_eq!((train.smallest, train.largest), ([12, 9], [13, 10]));
}

#[test]
fn folders_in_use_are_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["train/a", "val/a"], 2);
    made(&dir, |_| {}).unwrap();
    let error = made(&dir, |_| {}).unwrap_err().to_string();
    assert!(error.contains("replace it with --force"), "{error}");
    made(&dir, |o| o.force = true).unwrap();
    write(&scratch.path().join("other/file"), b"");
    let error = made(&dir, |o| {
        o.force = true;
        o.out = scratch.path().join("other");
    });
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("the folder is not empty")
    );
    for change in [
        (|o| o.valid_share = 0.0) as fn(&mut PrepareOptions),
        |o| o.valid_share = f64::NAN,
        |o| o.max_unreadable = 1.5,
        |o| o.channels = Some(2),
        |o| o.resize = Some(0),
    ] {
        assert!(matches!(made(&dir, change), Err(Error::Option { .. })));
    }
}

#[test]
fn a_dataset_among_the_class_folders_is_no_class() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["a", "b"], 40);
    let inside = |o: &mut PrepareOptions| {
        o.out = dir.join("set");
        o.force = true;
    };
    let summary = made(&dir, inside).unwrap();
    assert_eq!(summary.classes, ["a", "b"]);
    let again = made(&dir, inside).unwrap();
    let notes = vec!["left out: set, a dataset".to_owned()];
    assert_eq!(again, Summary { notes, ..summary });
    // Without its manifest it still has the description of one.
    fs::remove_file(dir.join("set/manifest.json")).unwrap();
    assert_eq!(open(&dir).classes(), ["a", "b"]);
}

/// Other programs write files of that name, too: what lies beside them are pictures.
#[test]
fn a_class_folder_may_hold_any_images_json() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["a", "b"], 40);
    for content in ["[]", "{\"version\": 1, \"images\": []}", "no JSON"] {
        write(&dir.join("b/images.json"), content.as_bytes());
        let force = |o: &mut PrepareOptions| o.force = true;
        let summary = made(&dir, force).unwrap();
        assert_eq!(summary.classes, ["a", "b"], "{content}");
        assert_eq!(summary.found, 80, "{content}");
    }
}

/// Splits beside a further folder must not become classes called `train` and `val`.
#[test]
fn folders_beside_the_splits_are_refused_or_left_out() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("tree");
    tree(&dir, &["train/a", "train/b", "val/a", "val/b"], 3);
    write(&dir.join("docs/readme.txt"), b"words");
    write(&dir.join("__MACOSX/train/a/._000.png"), b"not a picture");
    write(&dir.join(".cache/one.png"), b"hidden");
    let summary = made(&dir, |_| {}).unwrap();
    assert_eq!(summary.classes, ["a", "b"]);
    assert_eq!(summary.found, 12);
    let left_out: Vec<&String> = summary
        .notes
        .iter()
        .filter(|n| n.starts_with("left out"))
        .collect();
    assert_eq!(
        left_out,
        [
            "left out: __MACOSX, which has no pictures",
            "left out: docs, which has no pictures"
        ]
    );

    tree(&dir, &["more/a", "masks"], 1);
    let error = refused(&dir, &SourceOptions::default());
    for part in [
        "got:      also masks, more\n",
        "move them away",
        "--valid-images",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // A class may be called like a split, alone or if it is named.
    let trees = scratch.path().join("vehicles");
    tree(&trees, &["train", "car", "test"], 3);
    let map = scratch.path().join("classes.txt");
    fs::write(&map, "train\ncar\ntest\n").unwrap();
    let options = SourceOptions {
        class_map: Some(map),
        ..SourceOptions::default()
    };
    let source = Source::open(&trees, &options).unwrap();
    assert_eq!(source.classes(), ["train", "car", "test"]);
    fs::remove_dir_all(trees.join("test")).unwrap();
    assert_eq!(open(&trees).classes(), ["car", "train"]);
}

/// Any byte of any file: changed, cut off, or the file gone.
#[test]
fn damaged_datasets_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    drop(prepared(scratch.path(), 30, 8));
    let dir = scratch.path().join("set");
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let good = fs::read(&path).unwrap();
        let refused = |what: &str| {
            let error = ImageSet::open(&dir)
                .err()
                .unwrap_or_else(|| panic!("{}: {what}", path.display()));
            let text = error.to_string();
            assert!(
                text.contains("expected: ") && text.contains("help: "),
                "{text}"
            );
        };
        for at in (0..good.len()).step_by(good.len() / 25 + 1) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            refused("a byte changed");
            fs::write(&path, &good[..at]).unwrap();
            refused("cut");
        }
        fs::remove_file(&path).unwrap();
        refused("gone");
        fs::write(&path, &good).unwrap();
    }
    ImageSet::open(&dir).unwrap();
    assert!(
        ImageSet::open(scratch.path())
            .unwrap_err()
            .to_string()
            .contains("a folder with images.json")
    );
}

//! IDX and CIFAR files, whole and damaged.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;

use common::{numbered, write};
use tokenformer_images::source::SourceOptions;
use tokenformer_images::{ImageSet, Picture, PrepareOptions, Source, Split, prepare};

fn idx(axes: &[u32], numbers: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, axes.len() as u8];
    bytes.extend(axes.iter().flat_map(|n| n.to_be_bytes()));
    bytes.extend(numbers);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn pictures(count: usize, width: usize, height: usize, channels: usize) -> Vec<Picture> {
    (0..count)
        .map(|n| numbered(n, width, height, channels))
        .collect()
}

fn pixels(pictures: &[Picture]) -> Vec<u8> {
    pictures.iter().flat_map(|p| p.pixels().to_vec()).collect()
}

fn open(path: &Path) -> Result<Source, String> {
    Source::open(path, &SourceOptions::default()).map_err(|error| error.to_string())
}

fn set(source: &Source, dir: &Path) -> ImageSet {
    let mut options = PrepareOptions::new(dir.join("set"));
    options.valid_share = 0.3;
    options.force = true;
    prepare(source, &options, &mut |_| {}).unwrap();
    ImageSet::open(&dir.join("set")).unwrap()
}

/// Every picture of the training and validation splits by its place in the source.
fn check(set: &ImageSet, expected: &[Picture], label: impl Fn(usize) -> u32) {
    let mut seen = 0;
    for split in [Split::Train, Split::Valid] {
        let pictures = set.split(split).unwrap();
        for index in 0..pictures.len() {
            let place = pictures.name(index).rsplit(':').next().unwrap();
            let place: usize = place.parse().unwrap();
            assert_eq!(pictures.picture(index).unwrap(), expected[place]);
            assert_eq!(pictures.label(index), label(place));
            seen += 1;
        }
    }
    assert_eq!(seen, expected.len());
}

#[test]
fn idx_files_are_read_plain_and_compressed() {
    for channels in [1, 3] {
        for compressed in [false, true] {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path().join("idx");
            let (train, test) = (pictures(40, 7, 5, channels), pictures(6, 7, 5, channels));
            let put = |name: &str, bytes: Vec<u8>| match compressed {
                true => write(&dir.join(format!("{name}.gz")), &gzip(&bytes)),
                false => write(&dir.join(name), &bytes),
            };
            let axes = |count: u32| match channels {
                1 => vec![count, 5, 7],
                _ => vec![count, 5, 7, 3],
            };
            let labels: Vec<u8> = (0..40).map(|n| n % 4).collect();
            put("train-images-idx3-ubyte", idx(&axes(40), &pixels(&train)));
            put("train-labels-idx1-ubyte", idx(&[40], &labels));
            put("t10k-images-idx3-ubyte", idx(&axes(6), &pixels(&test)));
            put("t10k-labels-idx1-ubyte", idx(&[6], &[3; 6]));
            let source = open(&dir).unwrap();
            assert_eq!(source.classes(), ["0", "1", "2", "3"]);
            let set = set(&source, scratch.path());
            assert_eq!(set.summary().channels, channels);
            check(&set, &train, |n| n as u32 % 4);
            let held = set.split(Split::Test).unwrap();
            assert_eq!((held.len(), held.label(0)), (6, 3));
            // One file of images finds its labels.
            let name = if compressed {
                "train-images-idx3-ubyte.gz"
            } else {
                "train-images-idx3-ubyte"
            };
            assert_eq!(open(&dir.join(name)).unwrap().classes().len(), 4);
        }
    }
}

/// A compressed file can hold a thousand times its bytes, so a limit of pixels holds for its pictures, too.
#[test]
fn a_limit_of_pixels_holds_for_idx_files() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("idx");
    for prefix in ["train", "t10k"] {
        let images = idx(&[20, 5, 7], &pixels(&pictures(20, 7, 5, 1)));
        write(&dir.join(format!("{prefix}-images-idx3-ubyte")), &images);
        write(
            &dir.join(format!("{prefix}-labels-idx1-ubyte")),
            &idx(&[20], &[0; 20]),
        );
    }
    let source = open(&dir).unwrap();
    let mut options = PrepareOptions::new(scratch.path().join("set"));
    options.valid_share = 0.3;
    options.decode.max_pixels = 34;
    let error = prepare(&source, &options, &mut |_| {}).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("train-images-idx3-ubyte:0: too large a picture: 7 x 5 pixels"),
        "{error}"
    );
    options.decode.max_pixels = 35;
    prepare(&source, &options, &mut |_| {}).unwrap();
}

#[test]
fn damaged_idx_files_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let (images, labels) = (
        dir.join("train-images-idx3-ubyte"),
        dir.join("train-labels-idx1-ubyte"),
    );
    let good = idx(&[4, 5, 7], &pixels(&pictures(4, 7, 5, 1)));
    write(&labels, &idx(&[4], &[0, 1, 0, 1]));
    let refused = |bytes: &[u8]| {
        write(&images, bytes);
        open(dir).unwrap_err()
    };
    let mut wrong = good.clone();
    wrong[2] = 9;
    assert!(refused(&wrong).contains("not an IDX file of bytes"));
    wrong[2] = 8;
    wrong[3] = 5;
    assert!(refused(&wrong).contains("not an IDX file of bytes"));
    assert!(
        refused(&[good.as_slice(), &[0]].concat()).contains("another length than the axes say")
    );
    for length in 0..good.len() {
        refused(&good[..length]);
        refused(&gzip(&good[..length]));
    }
    let packed = gzip(&good);
    for length in 0..packed.len() {
        refused(&packed[..length]);
    }
    assert!(refused(&gzip(&[good.as_slice(), &[0]].concat())).contains("got:      more"));
    // Axes that promise more than a file of this size can hold.
    assert!(
        refused(&gzip(&idx(&[u32::MAX, 65_535, 65_535], &[0; 100])))
            .contains("too short for its axes")
    );
    assert!(refused(&idx(&[u32::MAX; 3], &[])).contains("too short for its axes"));
    // A bomb: a gigabyte of zeros after the numbers is not read.
    assert!(refused(&gzip(&idx(&[1, 1, 1], &vec![0; 1 << 22]))).contains("another length"));
    assert!(refused(&idx(&[0, 5, 7], &[])).contains("another kind"));
    assert!(refused(&idx(&[4, 0, 7], &[])).contains("another kind"));
    assert!(refused(&idx(&[4], &[0; 4])).contains("another kind"));
    write(&images, &good);
    write(&labels, &idx(&[3], &[0, 1, 0]));
    assert!(
        open(dir)
            .unwrap_err()
            .contains("another number of labels than images")
    );
    fs::remove_file(&labels).unwrap();
    assert!(
        open(dir)
            .unwrap_err()
            .contains("train-labels-idx1-ubyte: cannot read")
    );
}

/// Records of CIFAR: labels, then planes.
fn cifar(pictures: &[Picture], labels: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let record = |(number, picture): (usize, &Picture)| {
        let planes = (0..3).flat_map(move |c| picture.pixels().iter().skip(c).step_by(3).copied());
        labels(number)
            .into_iter()
            .chain(planes)
            .collect::<Vec<u8>>()
    };
    pictures.iter().enumerate().flat_map(record).collect()
}

#[test]
fn both_kinds_of_cifar_are_read() {
    let scratch = tempfile::tempdir().unwrap();
    let train = pictures(30, 32, 32, 3);
    let ten = scratch.path().join("ten");
    let folder = ten.join("cifar-10-batches-bin");
    // Five files; the places are told apart by file, so only the first file has distinct pictures here.
    write(
        &folder.join("data_batch_1.bin"),
        &cifar(&train, |n| vec![n as u8 % 10]),
    );
    write(
        &folder.join("test_batch.bin"),
        &cifar(&train[..2], |_| vec![9]),
    );
    assert!(
        open(&ten)
            .unwrap_err()
            .contains("data_batch_2.bin: cannot read")
    );
    let only = open(&folder.join("data_batch_1.bin")).unwrap();
    assert_eq!(only.classes().len(), 10);
    check(&set(&only, scratch.path()), &train, |n| n as u32 % 10);
    for batch in 2..6 {
        write(
            &folder.join(format!("data_batch_{batch}.bin")),
            &cifar(&train[..1], |_| vec![0]),
        );
    }
    write(
        &folder.join("batches.meta.txt"),
        b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n",
    );
    let source = open(&ten).unwrap();
    assert_eq!(source.classes()[9], "truck");
    let made = set(&source, scratch.path());
    assert_eq!(made.split(Split::Test).unwrap().len(), 2);
    assert_eq!(made.summary().found, 36);

    let hundred = scratch.path().join("hundred");
    write(
        &hundred.join("train.bin"),
        &cifar(&train, |n| vec![7, 60 + n as u8]),
    );
    write(
        &hundred.join("test.bin"),
        &cifar(&train[..1], |_| vec![7, 99]),
    );
    let source = open(&hundred).unwrap();
    assert_eq!(source.classes().len(), 100);
    check(&set(&source, scratch.path()), &train, |n| 60 + n as u32);
}

#[test]
fn damaged_cifar_files_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("train.bin");
    let good = cifar(&pictures(2, 32, 32, 3), |_| vec![0, 0]);
    write(&scratch.path().join("test.bin"), &good);
    let refused = |bytes: &[u8]| {
        write(&file, bytes);
        open(scratch.path()).unwrap_err()
    };
    assert!(refused(&good[..good.len() - 1]).contains("not a CIFAR file of whole records"));
    assert!(refused(b"").contains("not a CIFAR file of whole records"));
    let mut wrong = good.clone();
    wrong[3074 + 1] = 100;
    assert!(refused(&wrong).contains("got:      100 in record 1"));
}

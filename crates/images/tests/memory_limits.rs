//! Files that promise more than they hold take no memory for it, and those that hold much take it a few at a time.

mod common;

use common::{bytes, fixture, numbered, png, write};
use tokenformer_images::source::SourceOptions;
use tokenformer_images::{
    DecodeOptions, Picture, PrepareOptions, Source, Split, Storage, decode, prepare,
};
use tokenformer_testing::{Watching, held};

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Far below the pixels that the headers promise.
const MOST_BYTES: usize = 1 << 20;

fn file(name: &str) -> Vec<u8> {
    let row = fixture("decode")
        .into_iter()
        .find(|row| row["name"] == name);
    bytes(&row.expect("a fixture"), "file")
}

fn refused(name: &str, file: &[u8]) {
    let (read, most_bytes) = held(|| decode(file, &DecodeOptions::default()));
    assert!(read.is_err(), "{name}");
    assert!(most_bytes < MOST_BYTES, "{name}: {most_bytes} bytes");
}

#[test]
fn sides_of_60_000_pixels_take_no_memory() {
    let sides = 60_000u16.to_be_bytes();
    let mut jpeg = file("444.jpg");
    // The frame header: marker, length of 17, bits, height, width.
    let frame = jpeg.windows(5).position(|at| at == [0xff, 0xc0, 0, 17, 8]);
    let at = frame.expect("a baseline frame") + 5;
    jpeg[at..at + 2].copy_from_slice(&sides);
    jpeg[at + 2..at + 4].copy_from_slice(&sides);
    refused("JPEG", &jpeg);

    let mut png = file("rgb.png");
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    refused("PNG", &png);

    // WebP has 14 bits a side.
    let mut webp = file("lossy.webp");
    let frame = webp.windows(3).position(|at| at == [0x9d, 0x01, 0x2a]);
    let at = frame.expect("a key frame") + 3;
    webp[at..at + 2].copy_from_slice(&16_383u16.to_le_bytes());
    webp[at + 2..at + 4].copy_from_slice(&16_383u16.to_le_bytes());
    refused("WebP", &webp);
}

/// A limit of pixels holds before a picture is unpacked, although its file has all of them.
#[test]
fn a_limit_of_pixels_holds_before_unpacking() {
    for name in ["444.jpg", "rgb.png", "lossless.webp"] {
        let file = file(name);
        let few = DecodeOptions {
            max_pixels: 4,
            ..DecodeOptions::default()
        };
        let (read, most_bytes) = held(|| decode(&file, &few));
        assert_eq!(read.unwrap_err().problem, "too large a picture", "{name}");
        assert!(most_bytes < MOST_BYTES, "{name}: {most_bytes} bytes");
    }
}

/// Ten small files of 48 MB of pixels each: an index needs none of them any more when the next one is decoded, and packed ones
/// are written before all are decoded.
#[test]
fn large_pictures_are_prepared_a_few_at_a_time() {
    const SIDE: usize = 4000;
    const PICTURE_BYTES: usize = 3 * SIDE * SIDE;
    let grey = Picture::new(SIDE, SIDE, 1, vec![90; SIDE * SIDE]).unwrap();
    let (file, small) = (png(&grey), png(&numbered(1, 12, 9, 3)));
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    for number in 0..10 {
        write(&tree.join(format!("train/a/{number}.png")), &file);
    }
    write(&tree.join("val/a/0.png"), &small);
    let source = Source::open(&tree, &SourceOptions::default()).unwrap();
    let alone = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    for (storage, most_pictures) in [(Storage::Indexed, 2), (Storage::Packed, 7)] {
        let mut options = PrepareOptions::new(scratch.path().join(storage.name()));
        options.storage = Some(storage);
        let (made, most_bytes) =
            alone.install(|| held(|| prepare(&source, &options, &mut |_| {}).unwrap()));
        let train = made.split(Split::Train).unwrap();
        assert_eq!((train.images, train.largest), (10, [SIDE, SIDE]));
        assert_eq!(train.pixel_bytes, 10 * PICTURE_BYTES as u64);
        assert!(
            (made.mean[0] - 90.0 / 255.0).abs() < 1e-12,
            "{:?}",
            made.mean
        );
        let most = most_pictures * PICTURE_BYTES;
        assert!(most_bytes < most, "{}: {most_bytes} bytes", storage.name());
    }
}

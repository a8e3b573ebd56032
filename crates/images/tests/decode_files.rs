//! Files of all kinds against Pillow, and damaged ones.

mod common;

use common::{bytes, fixture, number};
use tokenformer_images::{
    DecodeOptions, Preparation, Preprocess, Unreadable, decode, decode::dimensions,
};

fn read(bytes: &[u8]) -> Result<tokenformer_images::Picture, Unreadable> {
    decode(bytes, &DecodeOptions::default())
}

#[test]
fn files_decode_as_in_pillow() {
    for row in fixture("decode") {
        let name = &row["name"];
        let picture = read(&bytes(&row, "file")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let shape = [picture.width(), picture.height(), picture.channels()];
        let expected = ["width", "height", "channels"].map(|key| number(&row, key));
        assert_eq!(shape, expected, "{name}");
        let pixels = bytes(&row, "pixels");
        let differences = picture
            .pixels()
            .iter()
            .zip(&pixels)
            .map(|(a, b)| usize::from(a.abs_diff(*b)));
        let largest = differences.clone().max().unwrap();
        let mean = differences.sum::<usize>() as f64 / pixels.len() as f64;
        assert!(
            largest <= number(&row, "off") && mean < 0.5,
            "{name}: {largest}, mean {mean}"
        );
    }
}

/// A file that ends early is refused, wherever it ends.
#[test]
fn cut_files_are_refused() {
    for row in fixture("decode") {
        let file = bytes(&row, "file");
        for length in 0..file.len() {
            // The frames after the first are not needed, and not read.
            if row["name"] == "animated.png" && length > file.len() / 2 {
                continue;
            }
            assert!(
                read(&file[..length]).is_err(),
                "{}: {length} of {}",
                row["name"],
                file.len()
            );
        }
    }
}

/// Whatever is damaged, the answer is a picture or a reason.
#[test]
fn damaged_files_do_not_panic() {
    for row in fixture("decode") {
        let file = bytes(&row, "file");
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] ^= flip;
                if let Ok(picture) = read(&file) {
                    assert!(picture.width() > 0 && picture.height() > 0);
                }
            }
        }
    }
}

/// A PNG file at which its decoder panicked once.
/// Bytes between two headers of a JPEG are skipped where that is allowed, and then its size is known, too.
#[test]
fn what_is_decoded_leniently_has_a_size() {
    let rows = fixture("decode");
    let jpeg = rows.iter().map(|row| bytes(row, "file"));
    let jpeg = jpeg
        .into_iter()
        .find(|file| file.starts_with(&[0xff, 0xd8]))
        .expect("a JPEG");
    // The first segment follows the start of the image: its marker and its length.
    let end = 4 + usize::from(u16::from_be_bytes([jpeg[4], jpeg[5]])) - 2 + 2;
    let file = [&jpeg[..end], &[0; 3], &jpeg[end..]].concat();
    assert!(read(&file).is_err(), "a strict reader refuses it");
    let lenient = DecodeOptions {
        lenient: true,
        ..DecodeOptions::default()
    };
    let picture = decode(&file, &lenient).expect("a picture");
    let size = dimensions(&file).expect("a size");
    assert_eq!(size.0 * size.1, picture.width() * picture.height());
}

#[test]
fn a_panic_of_a_decoder_is_a_reason() {
    let digits = "89504e470d0a1a0a0000000d494844520000000d0000000904030000001b54bb5900000032504c54\
        45ece76cd9cd87d4b07af3954d7ae16a17de9489a96e32b583cc619e816c7843786b52b75b8ab238\
        b3a20b822c3e963f19657495711cf80000000474524e53ffffff00402aa9f4000000534944415478\
        9c014800b7ff005871bb1e8dc3000071da1ca6276a9000a0f941f1cb333002fce76ede2539a002ab\
        f356d75822c000";
    let row = serde_json::json!({ "file": digits });
    assert_eq!(
        read(&bytes(&row, "file")).unwrap_err().problem,
        "a damaged picture"
    );
}

#[test]
fn other_content_is_refused_with_its_name() {
    let got = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert_eq!(got(b""), "not a picture: an empty file");
    assert_eq!(
        got(b"<!doctype html>"),
        "not a picture: HTML, SVG or XML, which is not read"
    );
    assert_eq!(got(b"GIF89a"), "not a picture: GIF, which is not read");
}

/// 60,000 x 60,000 in the header of a file of a few bytes: refused before anything is allocated.
#[test]
fn sizes_are_bounded_before_allocation() {
    let row = fixture("decode")
        .into_iter()
        .find(|row| row["name"] == "rgb.png")
        .unwrap();
    let with_size = |width: u32, height: u32| {
        let mut file = bytes(&row, "file");
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&file[12..29]);
        file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        read(&file).unwrap_err()
    };
    assert_eq!(with_size(60_000, 60_000).problem, "too large a picture");
    // Below the limit, but more than a file of this size can hold.
    let short = with_size(9_000, 9_000);
    assert_eq!(short.problem, "the file ends early");
    assert_eq!(short.got, "9000 x 9000 pixels");
    assert!(with_size(0, 5).to_string().contains(':'));
    let limited = DecodeOptions {
        max_pixels: 100,
        ..DecodeOptions::default()
    };
    let error = decode(&bytes(&row, "file"), &limited).unwrap_err();
    assert_eq!(error.expected, "at most 100 pixels");
}

#[test]
fn options_change_background_and_orientation() {
    let row = |name: &str| {
        fixture("decode")
            .into_iter()
            .find(|row| row["name"] == name)
            .unwrap()
    };
    let black = DecodeOptions {
        background: [0; 3],
        ..DecodeOptions::default()
    };
    let file = bytes(&row("rgba.png"), "file");
    assert_ne!(decode(&file, &black), read(&file));
    let stored = DecodeOptions {
        orient: false,
        ..DecodeOptions::default()
    };
    let picture = decode(&bytes(&row("orientation-6.png"), "file"), &stored).unwrap();
    assert_eq!((picture.width(), picture.height()), (13, 9));
    let cut = bytes(&row("420.jpg"), "file");
    let lenient = DecodeOptions {
        lenient: true,
        ..DecodeOptions::default()
    };
    assert!(decode(&cut[..cut.len() - 2], &lenient).is_ok());
}

/// Zero would divide by nothing: a model that says so is refused before it is shown a picture.
#[test]
fn a_preparation_that_reduces_to_nothing_is_refused() {
    for (resized, is_possible) in [
        (None, true),
        (Some(1), true),
        (Some(65_535), true),
        (Some(0), false),
        (Some(65_536), false),
    ] {
        let preparation = Preparation {
            decode: DecodeOptions::default(),
            resized,
            input: Preprocess::imagenet(),
        };
        assert_eq!(preparation.check().is_ok(), is_possible, "{resized:?}");
    }
}

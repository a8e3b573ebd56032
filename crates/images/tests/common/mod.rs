//! Pictures by formula, and the fixtures that Pillow made of the same.

#![allow(dead_code)]

use serde_json::Value;
use tokenformer_images::{Filter, Picture};

/// The rows of `tests/fixtures/NAME.json`.
pub fn fixture(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn number(row: &Value, key: &str) -> usize {
    row[key].as_u64().unwrap() as usize
}

pub fn filter(row: &Value) -> Filter {
    match row["filter"].as_str().unwrap() {
        "box" => Filter::Box,
        "bilinear" => Filter::Bilinear,
        _ => Filter::Bicubic,
    }
}

pub fn bytes(row: &Value, key: &str) -> Vec<u8> {
    let digits = row[key].as_str().unwrap().as_bytes();
    let digit = |d: u8| (d as char).to_digit(16).unwrap() as u8;
    digits
        .chunks(2)
        .map(|pair| (digit(pair[0]) << 4) | digit(pair[1]))
        .collect()
}

/// A picture of a kind, as `make_fixtures.py` computes it.
pub fn picture(kind: &str, width: usize, height: usize, channels: usize) -> Picture {
    let mut pixels = Vec::new();
    for y in 0..height as u64 {
        for x in 0..width as u64 {
            for c in 0..channels as u64 {
                let mut h = ((x * 73_856_093) ^ (y * 19_349_663) ^ (c * 83_492_791)) & 0xffff_ffff;
                h ^= h >> 15;
                h = (h * 0x2c1b_3c6d) & 0xffff_ffff;
                h ^= h >> 12;
                let value = match kind {
                    "noise" => h,
                    "slopes" => x * 7 + y * 3 + c * 40,
                    "dull" => 100 + h % 40,
                    "flat" => 77 + c * 20,
                    _ if (x / 3 + y / 5) % 2 == 0 => 250 - c,
                    _ => 3 + c,
                };
                pixels.push(value as u8);
            }
        }
    }
    Picture::new(width, height, channels, pixels).unwrap()
}

/// The picture that a row names.
pub fn source(row: &Value) -> Picture {
    let [width, height, channels] = ["width", "height", "channels"].map(|key| number(row, key));
    picture(row["kind"].as_str().unwrap(), width, height, channels)
}

pub fn crc(picture: &Picture) -> usize {
    let mut crc = flate2::Crc::new();
    crc.update(picture.pixels());
    crc.sum() as usize
}

/// The bytes of a PNG file.
pub fn png(picture: &Picture) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder =
        png::Encoder::new(&mut bytes, picture.width() as u32, picture.height() as u32);
    encoder.set_color(match picture.channels() {
        1 => png::ColorType::Grayscale,
        _ => png::ColorType::Rgb,
    });
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(picture.pixels()).unwrap();
    writer.finish().unwrap();
    bytes
}

/// A different picture for each number.
pub fn numbered(number: usize, width: usize, height: usize, channels: usize) -> Picture {
    let mut pixels = picture("noise", width, height, channels).pixels().to_vec();
    for (at, byte) in number.to_le_bytes().into_iter().enumerate().take(3) {
        let place = at % pixels.len();
        pixels[place] = pixels[place]
            .wrapping_add(byte.wrapping_mul(37))
            .wrapping_add(at as u8);
    }
    Picture::new(width, height, channels, pixels).unwrap()
}

/// Writes a file and the folders above it.
pub fn write(path: &std::path::Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A set of `count` pictures for each of two classes in `dir`, prepared in `dir/../set`.
pub fn prepared(dir: &std::path::Path, count: usize, side: usize) -> tokenformer_images::ImageSet {
    use tokenformer_images::{ImageSet, PrepareOptions, Source, prepare, source::SourceOptions};
    for number in 0..2 * count {
        let class = ["cat", "dog"][number % 2];
        let file = png(&numbered(number, side, side, 3));
        write(
            &dir.join("tree")
                .join(class)
                .join(format!("{number:04}.png")),
            &file,
        );
    }
    let source = Source::open(&dir.join("tree"), &SourceOptions::default()).unwrap();
    let mut options = PrepareOptions::new(dir.join("set"));
    options.valid_share = 0.2;
    prepare(&source, &options, &mut |_| {}).unwrap();
    ImageSet::open(&dir.join("set")).unwrap()
}

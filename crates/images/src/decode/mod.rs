//! Decodes JPEG, PNG and WebP files.
//!
//! The content decides, not the name. Decoding is strict: a file that ends early is an error instead of a picture with
//! grey areas. Sides and pixels are limited before anything is allocated, and panics of a decoder on hostile bytes are
//! caught.
//!
//! Decoded pictures are upright (EXIF orientation is applied) and have 8 bits: 16-bit samples are scaled by 255/65535,
//! palettes and low bit depths are expanded, CMYK is converted by its decoder, and transparent pixels are blended with
//! a background colour. Of animations only the first frame is decoded.

mod exif;
mod jpeg;
mod png;
mod quiet;
mod webp;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::picture::Picture;
use crate::text::shown;
use exif::Orientation;

/// How files are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeOptions {
    /// The background colour of transparent pixels; default white.
    pub background: [u8; 3],
    /// Largest number of pixels of a picture; default 89,478,485, the limit at which Pillow warns of a decompression
    /// bomb.
    pub max_pixels: u64,
    /// Whether to turn pictures upright according to EXIF; default true.
    pub orient: bool,
    /// Whether to accept JPEG files that end early or have stray bytes; default false.
    pub lenient: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            background: [255; 3],
            max_pixels: 89_478_485,
            orient: true,
            lenient: false,
        }
    }
}

/// The reason why a file cannot be read as a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong.
    pub problem: &'static str,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub got: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem, self.got)
    }
}

impl Unreadable {
    pub(crate) fn new(problem: &'static str, expected: &str, got: impl fmt::Display) -> Self {
        Self {
            problem,
            expected: expected.into(),
            got: shown(&got.to_string()),
        }
    }

    fn damaged(format: &'static str, reason: impl fmt::Display) -> Self {
        Self::new(
            "a damaged picture",
            &format!("a whole {format} file"),
            reason,
        )
    }
}

/// Size limit of a picture file.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Reads a picture file, which must be a regular file, not empty and of limited size.
///
/// # Errors
/// The reason why the file cannot be read.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Unreadable> {
    let io = |error: std::io::Error| Unreadable::new("cannot be read", "a readable file", error);
    let found = std::fs::metadata(path).map_err(io)?;
    if !found.is_file() {
        let expected = "a regular file";
        return Err(Unreadable::new(
            "not a file",
            expected,
            "a folder, pipe or device",
        ));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let expected = format!("at most {MAX_FILE_BYTES} bytes");
        return Err(Unreadable::new("too large a file", &expected, "more"));
    }
    Ok(bytes)
}

/// Decodes the bytes of a file.
///
/// # Errors
/// The reason why the bytes cannot be decoded. No bytes cause a panic.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Picture, Unreadable> {
    let decoder = format_of(bytes)?;
    let decoded = quiet::caught(|| match decoder {
        Format::Jpeg => jpeg::decode(bytes, options),
        Format::Png => png::decode(bytes, options),
        Format::WebP => webp::decode(bytes, options),
    });
    decoded.unwrap_or_else(|| Err(Unreadable::damaged(decoder.name(), "the decoder gave up")))
}

/// Width and height in the header of a file, before it is turned upright.
///
/// # Errors
/// As [`decode`], for the header only.
pub fn dimensions(bytes: &[u8]) -> Result<(usize, usize), Unreadable> {
    let decoder = format_of(bytes)?;
    let read = quiet::caught(|| match decoder {
        Format::Jpeg => jpeg::dimensions(bytes),
        Format::Png => png::dimensions(bytes),
        Format::WebP => webp::dimensions(bytes),
    });
    read.unwrap_or_else(|| Err(Unreadable::damaged(decoder.name(), "the decoder gave up")))
}

/// Number of bytes at the start of a file that usually have its size.
const HEADER_BYTES: u64 = 256 << 10;

/// Width and height in the header of a file, before it is turned upright; `None` if it cannot be read as a picture.
pub(crate) fn file_dimensions(path: &Path) -> Option<(usize, usize)> {
    // Opening a pipe would block.
    let mut file = path.is_file().then(|| File::open(path).ok())??;
    let mut bytes = Vec::new();
    let mut start = (&mut file).take(HEADER_BYTES);
    start.read_to_end(&mut bytes).ok()?;
    if let Ok(found) = dimensions(&bytes) {
        return Some(found);
    }
    // Profiles and thumbnails may come first.
    let has_more = bytes.len() as u64 == HEADER_BYTES && format_of(&bytes).is_ok();
    let rest = if has_more { MAX_FILE_BYTES } else { 0 };
    file.take(rest).read_to_end(&mut bytes).ok()?;
    dimensions(&bytes).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    WebP,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
        }
    }
}

/// First bytes of known formats that are not supported.
const FOREIGN: [(&[u8], &str); 10] = [
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\x01\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"%PDF", "PDF"),
    (b"<", "HTML, SVG or XML"),
];

fn format_of(bytes: &[u8]) -> Result<Format, Unreadable> {
    if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        return Ok(Format::Jpeg);
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(Format::Png);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Ok(Format::WebP);
    }
    let foreign = |&(start, _): &(&[u8], &str)| bytes.trim_ascii_start().starts_with(start);
    let got = match FOREIGN.iter().find(|entry| foreign(entry)) {
        _ if bytes.is_empty() => "an empty file".to_string(),
        _ if bytes.get(4..8) == Some(b"ftyp") => "HEIF, AVIF or a film".to_string(),
        Some((_, name)) => format!("{name}, which is not read"),
        None => "other content".to_string(),
    };
    Err(Unreadable::new("not a picture", "JPEG, PNG or WebP", got))
}

/// Whether the content is a picture of any known format, supported or not.
pub(crate) fn looks_like_a_picture(first: &[u8]) -> bool {
    format_of(first).is_ok()
}

/// Returns an error for sides of 0, and for more pixels than accepted or than `most_pixels`, the most that a file of
/// this size can hold.
pub(crate) fn check_size(
    (width, height): (usize, usize),
    options: &DecodeOptions,
    most_pixels: u64,
) -> Result<(), Unreadable> {
    let got = format!("{width} x {height} pixels");
    if width == 0 || height == 0 {
        return Err(Unreadable::new(
            "a picture without pixels",
            "at least 1 x 1",
            got,
        ));
    }
    let pixels = width as u64 * height as u64;
    if pixels > options.max_pixels {
        let expected = format!("at most {} pixels", options.max_pixels);
        return Err(Unreadable::new("too large a picture", &expected, got));
    }
    if pixels > most_pixels {
        let expected = format!("at most {most_pixels} pixels in a file of this size");
        return Err(Unreadable::new("the file ends early", &expected, got));
    }
    Ok(())
}

/// Samples of a decoder: `channels` is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha).
struct Raw {
    width: usize,
    height: usize,
    channels: usize,
    samples: Vec<u8>,
}

impl Raw {
    /// Makes the upright picture without transparency.
    fn finish(
        self,
        orientation: Orientation,
        options: &DecodeOptions,
        format: &'static str,
    ) -> Result<Picture, Unreadable> {
        let Self {
            width,
            height,
            channels,
            samples,
        } = self;
        let background = options.background;
        let (channels, pixels) = match channels {
            // Grey blended with a coloured background has colours.
            2 => (
                3,
                samples
                    .chunks_exact(2)
                    .flat_map(|p| [0, 1, 2].map(|c| over(p[0], p[1], background[c])))
                    .collect(),
            ),
            4 => (
                3,
                samples
                    .chunks_exact(4)
                    .flat_map(|p| [0, 1, 2].map(|c| over(p[c], p[3], background[c])))
                    .collect(),
            ),
            _ => (channels, samples),
        };
        let picture = Picture::new(width, height, channels, pixels)
            .ok_or_else(|| Unreadable::damaged(format, "another number of pixels than it says"))?;
        Ok(match options.orient {
            true => orientation.apply(picture),
            false => picture,
        })
    }
}

/// Blends `value` with opacity `alpha` over `behind`, rounded to the nearest.
fn over(value: u8, alpha: u8, behind: u8) -> u8 {
    let alpha = u32::from(alpha);
    ((u32::from(value) * alpha + u32::from(behind) * (255 - alpha) + 127) / 255) as u8
}

/// Converts 0 to 65535 to 0 to 255, rounded to the nearest; `high` and `low` are the bytes of a sample.
fn from_16_bits(high: u8, low: u8) -> u8 {
    ((u32::from(u16::from_be_bytes([high, low])) * 255 + 32767) / 65535) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_are_scaled_and_not_cut() {
        let scaled = |v: u16| from_16_bits(v.to_be_bytes()[0], v.to_be_bytes()[1]);
        let cases = [
            (0, 0),
            (128, 0),
            (129, 1),
            (257, 1),
            (32768, 128),
            (65535, 255),
        ];
        for (value, expected) in cases {
            assert_eq!(scaled(value), expected, "{value}");
        }
    }

    #[test]
    fn transparency_lets_the_background_through() {
        assert_eq!(over(10, 255, 200), 10);
        assert_eq!(over(10, 0, 200), 200);
        assert_eq!(over(0, 128, 255), 127);
    }

    #[test]
    fn other_content_is_named() {
        let got = |bytes: &[u8]| format_of(bytes).unwrap_err().got;
        assert_eq!(got(b""), "an empty file");
        assert_eq!(got(b"GIF89a"), "GIF, which is not read");
        assert_eq!(got(b"\n<html>"), "HTML, SVG or XML, which is not read");
        assert_eq!(got(b"\0\0\0\x1cftypavif"), "HEIF, AVIF or a film");
        assert_eq!(got(b"plain words"), "other content");
    }
}

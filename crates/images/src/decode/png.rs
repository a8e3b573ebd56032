//! Decodes PNG.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Transformations};

use super::{DecodeOptions, Orientation, Raw, Unreadable, check_size, from_16_bits};
use crate::picture::Picture;

const FORMAT: &str = "PNG";
/// Deflate expands a byte to at most 1032, and a byte holds 8 pixels of 1 bit.
const MOST_PIXELS_PER_BYTE: u64 = 1032 * 8;
/// Memory limit for everything except the pixels: palettes, texts, profiles.
const MOST_METADATA_BYTES: usize = 16 << 20;

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Picture, Unreadable> {
    let damaged = |error: png::DecodingError| Unreadable::damaged(FORMAT, error);
    let mut decoder = opened(bytes);
    let header = decoder.read_header_info().map_err(damaged)?;
    let size = (header.width as usize, header.height as usize);
    check_size(size, options, bytes.len() as u64 * MOST_PIXELS_PER_BYTE)?;
    // A sample has at most 4 channels of 2 bytes.
    let most_bytes = MOST_METADATA_BYTES + size.0 * size.1 * 8;
    decoder.set_limits(png::Limits { bytes: most_bytes });
    decoder.set_transformations(Transformations::EXPAND);
    decoder.ignore_checksums(false);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let buffer_bytes = reader
        .output_buffer_size()
        .ok_or_else(|| Unreadable::damaged(FORMAT, "more bytes than a computer has"))?;
    let mut samples = vec![0; buffer_bytes];
    let frame = reader.next_frame(&mut samples).map_err(damaged)?;
    samples.truncate(frame.buffer_size());
    // Reads to the end of the file, which detects truncation and finds EXIF data at the end.
    let is_animated = reader.info().animation_control.is_some();
    if !is_animated {
        reader.finish().map_err(damaged)?;
    }
    let orientation = Orientation::of(reader.info().exif_metadata.as_deref());
    if (frame.width as usize, frame.height as usize) != size {
        return Err(Unreadable::damaged(FORMAT, "a first frame of another size"));
    }
    if frame.bit_depth == BitDepth::Sixteen {
        let pairs = samples.chunks_exact(2);
        samples = pairs.map(|pair| from_16_bits(pair[0], pair[1])).collect();
    }
    let channels = match frame.color_type {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb | ColorType::Indexed => 3,
        ColorType::Rgba => 4,
    };
    Raw {
        width: size.0,
        height: size.1,
        channels,
        samples,
    }
    .finish(orientation, options, FORMAT)
}

pub(super) fn dimensions(bytes: &[u8]) -> Result<(usize, usize), Unreadable> {
    let mut decoder = opened(bytes);
    let header = decoder.read_header_info();
    let header = header.map_err(|error| Unreadable::damaged(FORMAT, error))?;
    Ok((header.width as usize, header.height as usize))
}

fn opened(bytes: &[u8]) -> Decoder<Cursor<&[u8]>> {
    let limits = png::Limits {
        bytes: MOST_METADATA_BYTES,
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

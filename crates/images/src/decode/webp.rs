//! Decodes WebP.

use std::io::Cursor;

use image_webp::WebPDecoder;

use super::{DecodeOptions, Orientation, Raw, Unreadable, check_size};
use crate::picture::Picture;

const FORMAT: &str = "WebP";

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Picture, Unreadable> {
    let damaged = |error: image_webp::DecodingError| Unreadable::damaged(FORMAT, error);
    check_length(bytes)?;
    let mut decoder = opened(bytes)?;
    let size = decoder.dimensions();
    let size = (size.0 as usize, size.1 as usize);
    // A picture of one colour takes no bits per pixel, so the size of the file gives no limit.
    check_size(size, options, u64::MAX)?;
    decoder.set_memory_limit(size.0 * size.1 * 8 + (16 << 20));
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut samples = vec![0; size.0 * size.1 * channels];
    decoder.read_image(&mut samples).map_err(damaged)?;
    let exif = decoder.exif_metadata().map_err(damaged)?;
    Raw {
        width: size.0,
        height: size.1,
        channels,
        samples,
    }
    .finish(Orientation::of(exif.as_deref()), options, FORMAT)
}

pub(super) fn dimensions(bytes: &[u8]) -> Result<(usize, usize), Unreadable> {
    let (width, height) = opened(bytes)?.dimensions();
    Ok((width as usize, height as usize))
}

fn opened(bytes: &[u8]) -> Result<WebPDecoder<Cursor<&[u8]>>, Unreadable> {
    WebPDecoder::new(Cursor::new(bytes)).map_err(|error| Unreadable::damaged(FORMAT, error))
}

/// Checks the length in the container, because truncated lossy data would be decoded as zeros.
fn check_length(bytes: &[u8]) -> Result<(), Unreadable> {
    let length = bytes.get(4..8).and_then(|field| field.try_into().ok());
    let length = length.map_or(u64::MAX, |field| u64::from(u32::from_le_bytes(field)) + 8);
    if (bytes.len() as u64) < length {
        let expected = format!("{length} bytes");
        return Err(Unreadable::new(
            "the file ends early",
            &expected,
            bytes.len(),
        ));
    }
    Ok(())
}

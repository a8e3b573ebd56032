//! Decodes JPEG.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{DecodeOptions, Orientation, Raw, Unreadable, check_size};
use crate::picture::Picture;

const FORMAT: &str = "JPEG";
/// A block of 8 x 8 takes at least one bit of a scan, and chroma planes may have a sixteenth of the blocks.
const MOST_PIXELS_PER_BYTE: u64 = 1024;

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Picture, Unreadable> {
    if !options.lenient && !ends(bytes) {
        return Err(Unreadable::new(
            "the file ends early",
            "a whole JPEG file",
            "no end of image behind the last scan",
        ));
    }
    let mut decoder = opened(bytes, options)?;
    let size = decoder.dimensions().unwrap_or_default();
    check_size(size, options, bytes.len() as u64 * MOST_PIXELS_PER_BYTE)?;
    let (channels, colors) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (1, ColorSpace::Luma),
        Some(ColorSpace::RGB | ColorSpace::YCbCr | ColorSpace::CMYK | ColorSpace::YCCK) => {
            (3, ColorSpace::RGB)
        }
        other => {
            return Err(Unreadable::damaged(
                FORMAT,
                format!("the colours {other:?}"),
            ));
        }
    };
    let decoding = decoder.options().jpeg_set_out_colorspace(colors);
    decoder.set_options(decoding);
    let samples = decoder
        .decode()
        .map_err(|error| Unreadable::damaged(FORMAT, error))?;
    let orientation = Orientation::of(decoder.exif().map(Vec::as_slice));
    Raw {
        width: size.0,
        height: size.1,
        channels,
        samples,
    }
    .finish(orientation, options, FORMAT)
}

pub(super) fn dimensions(bytes: &[u8]) -> Result<(usize, usize), Unreadable> {
    // Whatever may be decoded has a size.
    let lenient = DecodeOptions {
        lenient: true,
        ..DecodeOptions::default()
    };
    let decoder = opened(bytes, &lenient)?;
    Ok(decoder.dimensions().unwrap_or_default())
}

/// A decoder that has read the headers, which does not allocate memory for the picture.
fn opened<'a>(
    bytes: &'a [u8],
    options: &DecodeOptions,
) -> Result<JpegDecoder<ZCursor<&'a [u8]>>, Unreadable> {
    let decoding = DecoderOptions::default()
        .set_strict_mode(!options.lenient)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), decoding);
    decoder
        .decode_headers()
        .map_err(|error| Unreadable::damaged(FORMAT, error))?;
    Ok(decoder)
}

/// Whether the end of the image follows the last start of a scan. In the data of a scan a byte 0xff is never followed by
/// 0xd9, and a thumbnail's end comes before the scans of its picture.
fn ends(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    last(0xd9) > last(0xda)
}

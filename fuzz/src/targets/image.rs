//! Pictures: JPEG, PNG, WebP.

use tokenformer_images::decode::{DecodeOptions, decode, dimensions};

use super::MIB;
use crate::memory::bounded;

/// A picture of more pixels would be slow to try.
const MAX_PIXELS: u64 = 1 << 16;

/// Decodes the input strictly, or leniently if its last byte is odd.
pub fn run(input: &[u8]) {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(crate::quiet_panics);
    let options = DecodeOptions {
        max_pixels: MAX_PIXELS,
        lenient: input.last().is_some_and(|byte| byte % 2 == 1),
        ..DecodeOptions::default()
    };
    // 16 MiB for what is beside the pixels of a PNG, and the buffers of the decoders.
    bounded(input, 40 * MIB, || match decode(input, &options) {
        Ok(picture) => {
            let pixels = picture.width() as u64 * picture.height() as u64;
            assert!((1..=MAX_PIXELS).contains(&pixels));
            let bytes = pixels as usize * picture.channels();
            assert_eq!(picture.pixels().len(), bytes);
            assert!(dimensions(input).is_ok());
        }
        Err(reason) => assert!(reason.to_string().len() < 2000, "{reason}"),
    });
}

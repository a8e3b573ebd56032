//! Decodes UTF-8, with advice for bytes that are not UTF-8.

use crate::error::{Error, Result};

/// Decodes `bytes`.
pub(super) fn text(bytes: Vec<u8>, location: impl FnOnce() -> String) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let offset_bytes = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        Error::NotUtf8 {
            location: location(),
            offset_bytes,
            // The error refers to one of these bytes; valid bytes would have caused no error.
            byte: *bytes
                .get(offset_bytes)
                .expect("an invalid byte follows the valid ones"),
            help: help(bytes),
        }
    })
}

/// Advice that does no harm: it suggests a conversion only for texts that are entirely in another encoding.
fn help(bytes: &[u8]) -> &'static str {
    let is_control = |byte: &&u8| **byte < b' ' && !byte.is_ascii_whitespace() && **byte != 0x1b;
    let controls = bytes.iter().filter(is_control).count();
    let is_multibyte = |chunk: std::str::Utf8Chunk| !chunk.valid().is_ascii();
    if bytes.contains(&0) || controls * 20 > bytes.len() {
        "this looks like binary data; leave it out"
    } else if bytes.utf8_chunks().any(is_multibyte) {
        "most of it is UTF-8: mend this place; converting the whole would spoil the rest"
    } else {
        "convert it from the encoding it is in: `iconv -f ENCODING -t UTF-8 FILE > NEW`, with LATIN1 or WINDOWS-1252 \
         where it comes from Western Europe"
    }
}

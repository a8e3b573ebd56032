//! What a token stands for inside a text, where the decoders of a file depend on the tokens beside it.

use tokenizers::{Decoder, DecoderWrapper};

use super::token_bytes::byte_of;
use super::words::BYTE_CHARS;

/// What a token stands for between other tokens.
#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) bytes: Vec<u8>,
    /// Whether it is the form of a single byte, `<0xNN>`.
    pub(super) is_byte: bool,
}

impl Inside {
    /// Applies the decoders of a file to a token as if it stood between others, so that what they do only at the ends
    /// of a text, such as removing a space in front of it, is left out.
    pub(super) fn new(decoder: Option<&DecoderWrapper>, token: &str) -> Self {
        let Some(decoder) = decoder else {
            // Tokens that nothing decodes are joined by spaces.
            return Self::plain(format!(" {token}"));
        };
        let mut text = token.to_owned();
        let mut is_joined = false;
        for part in parts(decoder) {
            match part {
                DecoderWrapper::ByteFallback(_) => {
                    if let Some(byte) = byte_of(&text) {
                        return Self {
                            bytes: vec![byte],
                            is_byte: true,
                        };
                    }
                }
                DecoderWrapper::ByteLevel(_) => return Self::plain(bytes_of(&text)),
                DecoderWrapper::Fuse(_) => is_joined = true,
                // It only concerns the ends of the joined text.
                DecoderWrapper::Strip(_) if is_joined => {}
                part => text = between(part, text),
            }
        }
        Self::plain(text)
    }

    pub(super) fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            is_byte: false,
        }
    }
}

/// A decoder as a flat list: sequences are replaced by the decoders inside them.
fn parts(decoder: &DecoderWrapper) -> Vec<&DecoderWrapper> {
    match decoder {
        DecoderWrapper::Sequence(inner) => inner.get_decoders().iter().flat_map(parts).collect(),
        part => vec![part],
    }
}

/// What a decoder makes of a token that stands between two others; the token itself if it fails.
fn between(part: &DecoderWrapper, token: String) -> String {
    let neighbour = || "x".to_owned();
    let tokens = vec![neighbour(), token.clone(), neighbour()];
    let decoded = part.decode_chain(tokens).ok();
    let decoded = decoded.and_then(|texts| <[String; 3]>::try_from(texts).ok());
    decoded.map_or(token, |[_, text, _]| text)
}

/// The bytes of a byte-level token; those of its characters if it is none.
fn bytes_of(token: &str) -> Vec<u8> {
    let byte = |c| (0..=255).zip(BYTE_CHARS.iter()).find(|&(_, &own)| own == c);
    let bytes: Option<Vec<u8>> = token.chars().map(|c| byte(c).map(|(b, _)| b)).collect();
    bytes.unwrap_or_else(|| token.into())
}

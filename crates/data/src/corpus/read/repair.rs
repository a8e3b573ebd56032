//! Repairs what Python's `json` writes but no JSON parser reads.
//!
//! Its `dumps` writes an unpaired surrogate as an escape, and NaN and the infinities as bare names. Here surrogates
//! become U+FFFD and the names become 0, with the same length, so that columns in messages stay right.

/// A line that was changed.
pub(super) struct Repaired {
    pub line: String,
    /// Number of unpaired surrogates replaced.
    pub surrogates: u64,
}

/// Replaces what no parser reads; `None` if there is nothing to replace. `replacement` is the four hexadecimal digits
/// that replace an unpaired surrogate.
pub(super) fn repair(line: &str, replacement: [u8; 4]) -> Option<Repaired> {
    const NAMES: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut bytes = line.as_bytes().to_vec();
    let mut surrogates = 0;
    let mut is_changed = false;
    let mut is_string = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let name = NAMES.iter().find(|name| bytes[at..].starts_with(name));
        at += match byte {
            b'"' => {
                is_string = !is_string;
                1
            }
            b'\\' if is_string => match surrogate(&bytes[at..]) {
                Some(High) if matches!(surrogate(&bytes[at + 6..]), Some(Low)) => 12,
                Some(High | Low) => {
                    bytes[at + 2..at + 6].copy_from_slice(&replacement);
                    surrogates += 1;
                    is_changed = true;
                    6
                }
                None => 2,
            },
            _ => match name {
                Some(name) if !is_string => {
                    bytes[at..at + name.len()].fill(b' ');
                    bytes[at] = b'0';
                    is_changed = true;
                    name.len()
                }
                _ => 1,
            },
        };
    }
    // Only ASCII characters were replaced, by ASCII characters.
    let line = String::from_utf8(bytes).ok()?;
    is_changed.then_some(Repaired { line, surrogates })
}

/// The two halves of a surrogate pair.
enum Half {
    High,
    Low,
}
use Half::{High, Low};

/// The half of a surrogate pair that an escape such as `\ud83d` encodes.
fn surrogate(escape: &[u8]) -> Option<Half> {
    let digits = escape.strip_prefix(b"\\u")?.get(..4)?;
    let mut code = 0_u32;
    for &digit in digits {
        code = code * 16 + char::from(digit).to_digit(16)?;
    }
    match code {
        0xd800..0xdc00 => Some(High),
        0xdc00..0xe000 => Some(Low),
        _ => None,
    }
}

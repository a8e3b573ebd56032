//! What Python's `json` writes and no JSON parser reads.
//!
//! Its `dumps` writes a lone half of a surrogate pair as an escape, and NaN and the infinities by these names. Here the
//! halves become U+FFFD and the names 0, each as long as it was, so that columns stay right.

/// A line that was changed.
pub(super) struct Repaired {
    pub line: String,
    /// Halves of surrogate pairs replaced.
    pub surrogates: u64,
}

/// Replaces what no parser reads; `None` if there is nothing of it. `replacement` is the four hexadecimal digits that a
/// half of a pair becomes.
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
    // Only ASCII was replaced, by ASCII.
    let line = String::from_utf8(bytes).ok()?;
    is_changed.then_some(Repaired { line, surrogates })
}

/// Halves of a surrogate pair.
enum Half {
    High,
    Low,
}
use Half::{High, Low};

/// The half of a surrogate pair that an escape such as `\ud83d` stands for.
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

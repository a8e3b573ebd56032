//! Literal values of instructions.

use super::input::Fault;
use super::value::Node;
use crate::error::shown;

/// A little-endian two's complement integer.
pub(super) fn long(bytes: &[u8]) -> Node {
    match bytes.len() {
        0 => Node::Int(0),
        length @ 1..=8 => {
            let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            if let Some(low) = wide.get_mut(..length) {
                low.copy_from_slice(bytes);
            }
            Node::Int(i64::from_le_bytes(wide))
        }
        _ => Node::BigInt,
    }
}

pub(super) fn decimal(line: &str) -> Result<Node, Fault> {
    let digits = line.strip_prefix('-').unwrap_or(line);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new("an integer cannot be read", shown(line)));
    }
    Ok(line.parse().map_or(Node::BigInt, Node::Int))
}

pub(super) fn unquote(line: &str) -> Option<&str> {
    ['"', '\'']
        .iter()
        .find_map(|&quote| line.strip_prefix(quote)?.strip_suffix(quote))
}

/// Decodes Python's `raw-unicode-escape`: Latin-1, with `\u` and four hexadecimal digits or `\U` and eight for other
/// characters; other backslashes are literal.
pub(super) fn raw_unicode(line: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let [byte, after @ ..] = rest {
        match escape(rest) {
            Some((escaped, length)) => {
                out.push(escaped);
                rest = rest.get(length..).unwrap_or_default();
            }
            None => {
                out.push(char::from(*byte));
                rest = after;
            }
        }
    }
    out
}

/// The character of an escape at the start, and the escape's length.
fn escape(rest: &[u8]) -> Option<(char, usize)> {
    let length = match rest {
        [b'\\', b'u', ..] => 6,
        [b'\\', b'U', ..] => 10,
        _ => return None,
    };
    let digits = std::str::from_utf8(rest.get(2..length)?).ok()?;
    let escaped = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
    Some((escaped, length))
}

//! Reading `metrics.jsonl`.

use std::path::Path;

use super::Record;
use crate::{Error, Result};

/// Longest line that is read: before its kind is known, a line is held as values, which take many times its length. A
/// sample of a model has a few thousand bytes.
const MAX_LINE_BYTES: usize = 4 << 20;

/// Reads every record of a `metrics.jsonl`.
///
/// A last line that has no line end and does not parse was left by a killed writer and is ignored.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::BadRecord`] with file and line for any other line that is not a
/// record.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        action: "read the records",
        path: path.to_owned(),
        source,
    })?;
    lines(&bytes)
        .map(|line| {
            line.record.map_err(|problem| Error::BadRecord {
                path: path.to_owned(),
                line: line.number,
                problem,
                got: excerpt(line.text),
            })
        })
        .collect()
}

/// A line of the file, without its end.
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub number: usize,
    pub text: &'a [u8],
    /// The record, or the parser's error.
    pub record: std::result::Result<Record, String>,
}

/// The lines in `bytes`; an incomplete last one, which has no line end and is not a record, is left out.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .enumerate()
        .filter_map(|(index, line)| {
            let (text, complete) = match line.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (line, false),
            };
            let record = match text.len() {
                ..=MAX_LINE_BYTES => serde_json::from_slice(text)
                    .map_err(|error| excerpt(error.to_string().as_bytes())),
                length => Err(format!("{length} bytes, at most {MAX_LINE_BYTES} are read")),
            };
            (complete || record.is_ok()).then_some(Line {
                number: index + 1,
                text,
                record,
            })
        })
}

/// The start of a text from outside, without control characters.
pub(super) fn excerpt(line: &[u8]) -> String {
    const MAX_CHARS: usize = 100;
    let text = String::from_utf8_lossy(line);
    let mut out: String = text
        .chars()
        .take(MAX_CHARS)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        out.push('…');
    }
    if out.is_empty() {
        out.push_str("an empty line");
    }
    out
}

//! Reading `metrics.jsonl`.

use std::path::Path;

use super::Record;
use crate::{Error, Result};

/// Longest line that is read: before its kind is known, a line is held as values, which take many times its length. A
/// sample of a model has a few thousand bytes.
const MAX_LINE_BYTES: usize = 4 << 20;

/// Reads every record of a `metrics.jsonl`.
///
/// A last line that has no line end and does not parse is what a killed writer leaves: it is ignored.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::BadRecord`] with file and line for any other line that is no record.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        action: "read the records",
        path: path.to_owned(),
        source,
    })?;
    lines(path, &bytes)
        .map(|line| line.map(|(record, _)| record))
        .collect()
}

/// The records in `bytes`, each with its line, without the line end.
pub(super) fn lines<'a>(
    path: &'a Path,
    bytes: &'a [u8],
) -> impl Iterator<Item = Result<(Record, &'a [u8])>> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .enumerate()
        .filter_map(move |(index, line)| {
            let (text, complete) = match line.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (line, false),
            };
            let parsed = match text.len() {
                ..=MAX_LINE_BYTES => serde_json::from_slice(text).map_err(|e| e.to_string()),
                length => Err(format!("{length} bytes, at most {MAX_LINE_BYTES} are read")),
            };
            match parsed {
                Ok(record) => Some(Ok((record, text))),
                Err(_) if !complete => None,
                Err(problem) => Some(Err(Error::BadRecord {
                    path: path.to_owned(),
                    line: index + 1,
                    problem,
                    got: excerpt(text),
                })),
            }
        })
}

fn excerpt(line: &[u8]) -> String {
    const MAX_CHARS: usize = 60;
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

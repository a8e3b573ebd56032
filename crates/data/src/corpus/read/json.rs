//! Decides by its content whether a file holds JSON Lines, unless its name already says so.

use std::io::{BufRead, Read};

use super::BYTE_ORDER_MARK;
use super::line::{self, Found};
use super::source::Source;
use crate::corpus::CorpusOptions;
use crate::error::Result;

/// The kind of JSON in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An object on each line.
    Lines,
    /// One JSON value that spans several lines, or a value that is not an object.
    Whole,
    None,
}

/// Extensions that always mean JSON Lines.
const LINES: [&str; 3] = ["jsonl", "ndjson", "jsonlines"];

/// Looks at the first lines of a file without consuming them.
pub(super) fn kind(source: &mut Source, options: &CorpusOptions) -> Result<Kind> {
    if source.has_extension(&LINES) {
        return Ok(Kind::Lines);
    }
    match first_byte(&source.head) {
        Some(b'{') => {}
        Some(b'[') => return Ok(Kind::Whole),
        _ => return Ok(Kind::None),
    }
    let limit_bytes = options.max_document_bytes;
    let [first, second] = first_lines(source, limit_bytes)?;
    // A file counts as JSON Lines if its lines have the wanted key. If its name says JSON or the user gave a key, any
    // two objects (or the user's request) are enough, and a missing key becomes an error that lists the existing keys.
    let is_json = source.has_extension(&["json"]) || options.text_key.is_some();
    let Some(found) = first.and_then(|line| object(&line, options.key())) else {
        return Ok(Kind::Whole);
    };
    let is_second_object = second
        .as_deref()
        .map(|line| object(line, options.key()).is_some());
    let is_lines = match (found, is_second_object) {
        (_, _) if options.text_key.is_some() => true,
        (Found::Text(_), None | Some(true)) => true,
        (Found::Text(_), Some(false)) => is_json,
        (_, is_second_object) => is_json && is_second_object == Some(true),
    };
    Ok(match is_lines {
        true => Kind::Lines,
        false => Kind::Whole,
    })
}

fn first_byte(head: &[u8]) -> Option<u8> {
    let mut mark = [0; 3];
    let mark = BYTE_ORDER_MARK.encode_utf8(&mut mark).as_bytes();
    let head = head.strip_prefix(mark).unwrap_or(head);
    head.iter()
        .copied()
        .find(|byte| !byte.is_ascii_whitespace())
}

/// The first two lines that are not blank, if they exist.
fn first_lines(source: &mut Source, limit_bytes: u64) -> Result<[Option<String>; 2]> {
    let mut read = Vec::new();
    let mut lines = [None, None];
    let mut found = 0;
    while found < lines.len() {
        let start = read.len();
        let left = limit_bytes.saturating_sub(start as u64);
        let result = source.reader().take(left).read_until(b'\n', &mut read);
        match result {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(source.error(error)),
        }
        let line = String::from_utf8_lossy(&read[start..]);
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line);
        if !line.trim_ascii().is_empty() {
            lines[found] = Some(line.to_owned());
            found += 1;
        }
    }
    source.put_back(read);
    Ok(lines)
}

fn object(line: &str, key: &str) -> Option<Found> {
    match line::read(line, key).ok()? {
        (Found::NoObject(_), _) => None,
        (found, _) => Some(found),
    }
}

//! Task files: JSON Lines, one row per question, plain or `.gz`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Longest line that is read. The longest rows in use have a few thousand bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Most bytes of one file, decompressed, and most rows: they bound what a small compressed file can claim. The largest
/// files in use have 50 MB and 40 thousand rows.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 26;
const MAX_ROWS: usize = 100_000;

/// The first bytes of a gzip file with any name; no text begins with them.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// One row of a task file.
#[derive(Clone, Debug)]
pub struct Row {
    /// `path:line`.
    pub location: String,
    /// Number of the row in its file, from 0.
    pub index: usize,
    fields: Map<String, Value>,
}

impl Row {
    /// Reads one line.
    ///
    /// # Errors
    /// If it is not a JSON object.
    pub fn parse(line: &str, location: String, index: usize) -> Result<Self> {
        let malformed = |got: String| Error::Malformed {
            location: location.clone(),
            problem: "not a row".into(),
            expected: "a JSON object".into(),
            got: got.into(),
            help: "a task file has one JSON object per line".into(),
        };
        match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => Ok(Self {
                location,
                index,
                fields,
            }),
            Ok(other) => Err(malformed(kind(&other).into())),
            Err(error) => Err(malformed(error.to_string())),
        }
    }

    /// Puts a value at `key`.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.fields.insert(key.to_owned(), value);
    }

    /// Whether the value at `key` is an object.
    pub(crate) fn is_object(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(Value::is_object)
    }

    /// Whether there is such a key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// The string at `key`.
    pub(crate) fn text(&self, key: &str) -> Result<&str> {
        match self.fields.get(key) {
            Some(Value::String(text)) => Ok(text),
            other => Err(self.wrong(key, "a string", other)),
        }
    }

    /// The strings at `key`, at least one.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&str>> {
        strings(self.fields.get(key))
            .ok_or_else(|| self.wrong(key, "a list of strings", self.fields.get(key)))
    }

    /// The string at `key` of the object at `outer`.
    pub(crate) fn inner_text(&self, outer: &str, key: &str) -> Result<&str> {
        let found = self.inner(outer, key);
        found.and_then(Value::as_str).ok_or_else(|| {
            let place = format!("{outer}.{key}");
            self.wrong(&place, "a string", found.or(self.fields.get(outer)))
        })
    }

    /// The strings at `key` of the object at `outer`, at least one.
    pub(crate) fn inner_texts(&self, outer: &str, key: &str) -> Result<Vec<&str>> {
        let found = self.inner(outer, key);
        strings(found).ok_or_else(|| {
            let place = format!("{outer}.{key}");
            let got = found.or(self.fields.get(outer));
            self.wrong(&place, "a list of strings", got)
        })
    }

    /// The strings at `field` of each object in the list at `key` of the object at `outer`, at least one.
    pub(crate) fn listed_texts(&self, outer: &str, key: &str, field: &str) -> Result<Vec<&str>> {
        let found = self.inner(outer, key);
        let objects = found.and_then(Value::as_array).into_iter().flatten();
        let texts: Option<Vec<&str>> = objects.map(|o| o.get(field)?.as_str()).collect();
        texts.filter(|texts| !texts.is_empty()).ok_or_else(|| {
            let place = format!("{outer}.{key}");
            let expected = format!("a list of objects with the string {field:?}");
            self.wrong(&place, &expected, found.or(self.fields.get(outer)))
        })
    }

    fn inner(&self, outer: &str, key: &str) -> Option<&Value> {
        self.fields.get(outer)?.get(key)
    }

    /// The number at `key`, written as one or as a string; `first` is subtracted, and the rest has to be
    /// below `count`.
    pub(crate) fn choice(&self, key: &str, first: u64, count: usize) -> Result<usize> {
        let found = self.fields.get(key);
        let number = match found {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        number
            .and_then(|number| usize::try_from(number.checked_sub(first)?).ok())
            .filter(|&index| index < count)
            .ok_or_else(|| {
                let last = first.saturating_add(count as u64).saturating_sub(1);
                self.wrong(key, &format!("a number from {first} to {last}"), found)
            })
    }

    /// An error about the value at `key`.
    pub(crate) fn wrong(&self, key: &str, expected: &str, got: Option<&Value>) -> Error {
        let (problem, got) = match got {
            None => (format!("the key {key:?} is missing"), self.keys()),
            Some(value) => (
                format!("the key {key:?} has a wrong value"),
                shortened(value),
            ),
        };
        Error::Malformed {
            location: self.location.clone(),
            problem: problem.into(),
            expected: expected.into(),
            got: got.into(),
            help: "is this a file of another task, or of a split without answers?".into(),
        }
    }

    fn keys(&self) -> String {
        let keys: Vec<_> = (self.fields.keys().take(8))
            .map(|key| shortened(&Value::String(key.clone())))
            .collect();
        match keys.is_empty() {
            true => "an object without keys".into(),
            false => format!("keys {}", keys.join(", ")),
        }
    }
}

fn strings(value: Option<&Value>) -> Option<Vec<&str>> {
    let texts: Option<Vec<_>> = value?.as_array()?.iter().map(Value::as_str).collect();
    texts.filter(|texts| !texts.is_empty())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value on one short line.
fn shortened(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Reads the first `limit` rows of a file, all if there is none. Blank lines are skipped.
///
/// # Errors
/// If the file cannot be read, has no row, or a line is not a JSON object.
pub fn read(path: &Path, limit: Option<usize>) -> Result<Vec<Row>> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io("open", path))?);
    let start = file.fill_buf().map_err(Error::io("read", path))?;
    let is_gzip = start.starts_with(&GZIP_MAGIC);
    let reader: Box<dyn Read> = match is_gzip {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut rows = Vec::new();
    let name = path.display().to_string();
    lines(reader, &name, MAX_FILE_BYTES, &mut |number, line| {
        if limit.is_some_and(|limit| rows.len() >= limit) {
            return Ok(false);
        }
        if rows.len() == MAX_ROWS {
            return Err(Error::Malformed {
                location: format!("{name}:{number}"),
                problem: "too many rows".into(),
                expected: format!("at most {MAX_ROWS} rows").into(),
                got: "more".into(),
                help: "is this a task file?".into(),
            });
        }
        rows.push(Row::parse(line, format!("{name}:{number}"), rows.len())?);
        Ok(true)
    })?;
    if rows.is_empty() && limit != Some(0) {
        return Err(Error::Malformed {
            location: name,
            problem: "no rows".into(),
            expected: "one JSON object per line".into(),
            got: "an empty file".into(),
            help: crate::fetch::HELP.into(),
        });
    }
    Ok(rows)
}

/// Calls `visit` with the number and text of each line that is not blank, until it says `false`. More than `most_bytes` are
/// an error.
pub(crate) fn lines(
    reader: impl Read,
    name: &str,
    most_bytes: u64,
    visit: &mut dyn FnMut(u64, &str) -> Result<bool>,
) -> Result<()> {
    let mut reader = BufReader::new(reader.take(most_bytes + 1));
    let (mut line, mut read_bytes) = (Vec::new(), 0u64);
    for number in 1u64.. {
        line.clear();
        let mut limited = (&mut reader).take(MAX_LINE_BYTES + 1);
        let got = limited
            .read_until(b'\n', &mut line)
            .map_err(Error::io("read", Path::new(name)))?;
        if got == 0 {
            break;
        }
        read_bytes = read_bytes.saturating_add(got as u64);
        let malformed = |problem: &str, expected: String, got: String| Error::Malformed {
            location: format!("{name}:{number}"),
            problem: problem.into(),
            expected: expected.into(),
            got: got.into(),
            help: "is this a task file?".into(),
        };
        if got as u64 > MAX_LINE_BYTES {
            let expected = format!("at most {MAX_LINE_BYTES} bytes");
            return Err(malformed("a line is too long", expected, "more".into()));
        }
        if read_bytes > most_bytes {
            let expected = format!("at most {most_bytes} bytes");
            return Err(malformed("the file is too long", expected, "more".into()));
        }
        let text = std::str::from_utf8(&line).map_err(|error| {
            let offset = format!("an invalid byte at offset {}", error.valid_up_to());
            malformed("not UTF-8 text", "UTF-8".into(), offset)
        })?;
        let text = if number == 1 {
            text.trim_start_matches('\u{feff}')
        } else {
            text
        };
        if !text.trim_ascii().is_empty() && !visit(number, text)? {
            break;
        }
    }
    Ok(())
}

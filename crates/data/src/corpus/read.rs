//! The documents of one file: decompression, lines, UTF-8.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::walk::InputFile;
use super::{CorpusOptions, Document};
use crate::error::{Error, Result};
use line::Found;

mod line;
mod zstd;

/// What a file turned out to be.
pub(super) enum Outcome {
    /// Text; its documents went to the visitor.
    Read,
    /// Not one byte.
    Empty,
    /// Not text. Only for files met in a folder; a named one is an error.
    Binary,
}

/// Calls `visitor` with each document of `file`, the empty ones too.
pub(super) fn documents(
    file: &InputFile,
    options: &CorpusOptions,
    visitor: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<Outcome> {
    let source = Source::open(&file.path)?;
    if source.is_lines {
        json_lines(source, options, visitor)
    } else {
        whole(source, file.is_named, options, visitor)
    }
}

/// An open file, decompressed while it is read.
struct Source<'a> {
    path: &'a Path,
    reader: Box<dyn BufRead>,
    /// The compression, for messages.
    format: Option<&'static str>,
    is_lines: bool,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let file_bytes = file.metadata().map_err(Error::io("read", path))?.len();
        let file = BufReader::new(file);
        let (reader, format): (Box<dyn BufRead>, _) = match extension(path).as_str() {
            "gz" => {
                let decoder = MultiGzDecoder::new(file);
                (Box::new(BufReader::new(decoder)), Some("gzip"))
            }
            "zst" => {
                let decoder = zstd::Decoder::new(file, file_bytes);
                (Box::new(BufReader::new(decoder)), Some("zstd"))
            }
            _ => (Box::new(file), None),
        };
        let inner = match format {
            Some(_) => extension(Path::new(path.file_stem().unwrap_or_default())),
            None => extension(path),
        };
        Ok(Self {
            path,
            reader,
            format,
            is_lines: inner == "jsonl" || inner == "ndjson",
        })
    }

    fn error(&self, source: io::Error) -> Error {
        match self.format {
            // The operating system's own errors carry its code; the others are the decoder's.
            Some(format) if source.raw_os_error().is_none() => Error::Decompress {
                path: self.path.to_owned(),
                format,
                reason: source.to_string(),
            },
            _ => Error::Io {
                action: "read",
                path: self.path.to_owned(),
                source,
            },
        }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn extension(path: &Path) -> String {
    path.extension()
        .map(|extension| extension.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default()
}

/// Bytes of a file looked at before all of it is read, to leave binary files alone early.
const SNIFF_BYTES: u64 = 8 << 10;

fn whole(
    mut source: Source,
    is_named: bool,
    options: &CorpusOptions,
    visitor: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<Outcome> {
    let limit_bytes = options.max_document_bytes;
    let mut bytes = Vec::new();
    let mut reader = (&mut source.reader).take(SNIFF_BYTES);
    if let Err(error) = reader.read_to_end(&mut bytes) {
        return Err(source.error(error));
    }
    if !is_named && bytes.contains(&0) {
        return Ok(Outcome::Binary);
    }
    let rest = limit_bytes
        .saturating_add(1)
        .saturating_sub(bytes.len() as u64);
    if let Err(error) = (&mut source.reader).take(rest).read_to_end(&mut bytes) {
        return Err(source.error(error));
    }
    if bytes.is_empty() {
        return Ok(Outcome::Empty);
    }
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::DocumentTooLarge {
            location: source.name(),
            limit_bytes,
        });
    }
    if !is_named && bytes.contains(&0) {
        return Ok(Outcome::Binary);
    }
    let mut text = match utf8(bytes, || source.name()) {
        Err(Error::NotUtf8 { .. }) if !is_named => return Ok(Outcome::Binary),
        text => text?,
    };
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    visitor(Document {
        source: source.name(),
        text,
    })?;
    Ok(Outcome::Read)
}

/// Editors of some systems put it in front of UTF-8; it is no part of the text.
const BYTE_ORDER_MARK: char = '\u{feff}';

fn json_lines(
    mut source: Source,
    options: &CorpusOptions,
    visitor: &mut dyn FnMut(Document) -> Result<()>,
) -> Result<Outcome> {
    let limit_bytes = options.max_document_bytes;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let mut reader = (&mut source.reader).take(limit_bytes.saturating_add(1));
        match reader.read_until(b'\n', &mut line) {
            Ok(0) if number == 1 => return Ok(Outcome::Empty),
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(source.error(error)),
        }
        let location = || format!("{}:{number}", source.name());
        if line.len() as u64 > limit_bytes {
            return Err(Error::DocumentTooLarge {
                location: location(),
                limit_bytes,
            });
        }
        let text = utf8(std::mem::take(&mut line), location)?;
        let mut object = text.as_str();
        if number == 1 {
            object = object.strip_prefix(BYTE_ORDER_MARK).unwrap_or(object);
        }
        if object.trim_ascii().is_empty() {
            continue;
        }
        let location = location();
        let text = json_text(object, &location, &options.text_key)?;
        visitor(Document {
            source: location,
            text,
        })?;
    }
    Ok(Outcome::Read)
}

fn json_text(line: &str, location: &str, key: &str) -> Result<String> {
    let found = line::read(line, key).map_err(|error| Error::JsonLine {
        location: location.to_owned(),
        column: error.column(),
        reason: without_position(&error),
    })?;
    let problem = |problem, got| Error::JsonText {
        location: location.to_owned(),
        key: key.to_owned(),
        problem,
        got,
    };
    match found {
        Found::Text(text) => Ok(text),
        Found::Other(kind) => Err(problem("is not a string", kind.to_owned())),
        Found::NoObject(kind) => Err(problem("is missing", kind.to_owned())),
        Found::Missing(keys) if keys.is_empty() => {
            Err(problem("is missing", "an object without keys".to_owned()))
        }
        Found::Missing(keys) => {
            let shown: Vec<_> = keys.iter().map(|key| format!("{key:?}")).collect();
            Err(problem("is missing", format!("keys {}", shown.join(", "))))
        }
    }
}

/// serde_json ends its messages with " at line 1 column N"; the line is ours to say.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

fn utf8(bytes: Vec<u8>, location: impl FnOnce() -> String) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let offset_bytes = error.utf8_error().valid_up_to();
        Error::NotUtf8 {
            location: location(),
            offset_bytes,
            byte: error
                .as_bytes()
                .get(offset_bytes)
                .copied()
                // The error is of these bytes: were all of them valid, there would be none.
                .expect("an invalid byte follows the valid ones"),
        }
    })
}

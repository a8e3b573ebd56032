//! Reads the documents of one file: detects its kind, splits lines and checks UTF-8.

use std::io::{BufRead, Read};

use super::walk::InputFile;
use super::{CorpusOptions, CorpusStats, Document};
use crate::error::{Error, Result};
use line::Found;
use source::Source;

mod format;
mod gzip;
mod json;
mod line;
mod parts;
mod repair;
mod source;
mod utf8;
mod zstd;

/// The result of reading a file.
pub(super) enum Outcome {
    /// Text; its documents were passed to the visitor.
    Read,
    /// An empty file.
    Empty,
    /// Not text. Only for files found in a folder; for a named file it is an error.
    Binary,
    /// A file in this format, which is not supported. Only for files found in a folder.
    Foreign(&'static str),
    /// Not JSON Lines, though a key was given. Only for files found in a folder.
    NotLines,
}

/// The receiver of documents, including empty ones.
pub(super) struct Sink<'a> {
    pub options: &'a CorpusOptions,
    pub stats: &'a mut CorpusStats,
    pub visitor: &'a mut dyn FnMut(Document) -> Result<()>,
}

impl Sink<'_> {
    /// Counts a document and passes it on, split into parts if there is a marker.
    fn put(&mut self, document: Document) -> Result<()> {
        match &self.options.split_on {
            None => self.put_whole(document),
            Some(marker) => {
                let Document { source, text } = document;
                let pieces = text.split(marker.as_str());
                for (number, piece) in (1_u64..).zip(pieces) {
                    self.stats.markers += u64::from(number > 1);
                    self.put_part(&source, number, piece)?;
                }
                Ok(())
            }
        }
    }

    /// Passes on part `number` of a source that is split at a marker, without the line ends around the marker.
    fn put_part(&mut self, source: &str, number: u64, text: &str) -> Result<()> {
        let text = text.trim_matches(['\r', '\n']);
        if text.trim().is_empty() {
            return Ok(());
        }
        self.put_whole(Document {
            source: format!("{source}, part {number}"),
            text: text.to_owned(),
        })
    }

    fn put_whole(&mut self, document: Document) -> Result<()> {
        if document.text.is_empty() {
            self.stats.skipped_empty_documents += 1;
            return Ok(());
        }
        self.stats.documents += 1;
        self.stats.text_bytes += document.text.len() as u64;
        (self.visitor)(document)
    }
}

/// Passes each document of `file` to `sink`.
pub(super) fn documents(file: &InputFile, sink: &mut Sink) -> Result<Outcome> {
    let mut source = Source::open(&file.path)?;
    if source.head.is_empty() {
        return Ok(Outcome::Empty);
    }
    if let Some(foreign) = source.foreign {
        return match file.is_named {
            true => Err(Error::Foreign {
                path: file.path.clone(),
                format: foreign.name,
                help: foreign.help,
            }),
            false => Ok(Outcome::Foreign(foreign.name)),
        };
    }
    let kind = json::kind(&mut source, sink.options)?;
    if kind == json::Kind::Lines {
        sink.stats.json_lines_files += 1;
        return json_lines(source, sink);
    }
    if let Some(key) = &sink.options.text_key {
        return match file.is_named {
            true => Err(Error::KeyWithoutLines {
                location: source.name(),
                key: key.clone(),
                got: match kind {
                    json::Kind::Whole => "one JSON value over several lines, or an array",
                    _ => "other text",
                },
            }),
            false => Ok(Outcome::NotLines),
        };
    }
    if kind == json::Kind::Whole && source.has_extension(&["json"]) {
        sink.stats.whole_json_files += 1;
    }
    let options = sink.options;
    match &options.split_on {
        Some(marker) => parts::read(source, file.is_named, marker, sink),
        None => whole(source, file.is_named, sink),
    }
}

fn whole(mut source: Source, is_named: bool, sink: &mut Sink) -> Result<Outcome> {
    if !is_named && source.head.contains(&0) {
        return Ok(Outcome::Binary);
    }
    let limit_bytes = sink.options.max_document_bytes;
    let mut bytes = Vec::new();
    let mut reader = source.reader().take(limit_bytes.saturating_add(1));
    if let Err(error) = reader.read_to_end(&mut bytes) {
        return Err(source.error(error));
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
    let mut text = match utf8::text(bytes, || source.name()) {
        Err(Error::NotUtf8 { .. }) if !is_named => return Ok(Outcome::Binary),
        text => text?,
    };
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    let source = source.name();
    sink.put(Document { source, text })?;
    Ok(Outcome::Read)
}

/// Some editors write it at the start of UTF-8 files; it is not part of the text.
const BYTE_ORDER_MARK: char = '\u{feff}';

fn json_lines(mut source: Source, sink: &mut Sink) -> Result<Outcome> {
    let limit_bytes = sink.options.max_document_bytes;
    let key = sink.options.key().to_owned();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let mut reader = source.reader().take(limit_bytes.saturating_add(1));
        match reader.read_until(b'\n', &mut line) {
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
        let text = utf8::text(std::mem::take(&mut line), location)?;
        let mut object = text.as_str();
        if number == 1 {
            object = object.strip_prefix(BYTE_ORDER_MARK).unwrap_or(object);
        }
        if object.trim_ascii().is_empty() {
            continue;
        }
        let location = location();
        let (text, replaced) = json_text(object, &location, &key)?;
        sink.stats.replaced_surrogates += replaced;
        sink.put(Document {
            source: location,
            text,
        })?;
    }
    Ok(Outcome::Read)
}

/// The text of a line, and the number of unpaired surrogates that were replaced in it.
fn json_text(line: &str, location: &str, key: &str) -> Result<(String, u64)> {
    let (found, replaced) = line::read(line, key).map_err(|error| Error::JsonLine {
        location: location.to_owned(),
        column: error.column(),
        reason: without_position(&error),
        help: match error.is_eof() {
            true => CUT_LINE,
            false => ODD_LINE,
        },
    })?;
    let problem = |problem, got| Error::JsonText {
        location: location.to_owned(),
        key: key.to_owned(),
        problem,
        got,
    };
    match found {
        Found::Text(text) => Ok((text, replaced)),
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

const CUT_LINE: &str = "the line ends inside a value: the file was cut short, or a value goes over several lines, which \
                        `jq -c . FILE > NEW` puts into one each";
const ODD_LINE: &str = "look at this line: mend it, or take it out";

/// serde_json ends its messages with " at line 1 column N"; our message gives the position itself.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

//! Reads one file as several documents separated by a marker, part by part.

use std::io::BufRead;

use memchr::memmem::Finder;

use super::source::Source;
use super::{BYTE_ORDER_MARK, Outcome, Sink, utf8};
use crate::error::{Error, Result};

/// Passes the parts of a file to `sink`; memory is bounded by the largest part.
pub(super) fn read(
    mut source: Source,
    is_named: bool,
    marker: &str,
    sink: &mut Sink,
) -> Result<Outcome> {
    if !is_named && !is_text(&source.head) {
        return Ok(Outcome::Binary);
    }
    let limit_bytes = sink.options.max_document_bytes;
    let finder = Finder::new(marker);
    let mut pending = Vec::new();
    let mut number = 1;
    loop {
        let bytes = match source.reader().fill_buf() {
            Ok(bytes) => bytes,
            Err(error) => return Err(source.error(error)),
        };
        let (read, is_end) = (bytes.len(), bytes.is_empty());
        // A marker may begin in earlier bytes and end in these.
        let mut searched = (pending.len() + 1).saturating_sub(marker.len());
        pending.extend_from_slice(bytes);
        source.reader().consume(read);
        let mut start = 0;
        while let Some(at) = finder.find(&pending[searched..]) {
            let end = searched + at;
            put(&source, number, &pending[start..end], sink)?;
            sink.stats.markers += 1;
            number += 1;
            start = end + marker.len();
            searched = start;
        }
        if is_end {
            put(&source, number, &pending[start..], sink)?;
            return Ok(Outcome::Read);
        }
        pending.drain(..start);
        if pending.len() as u64 > limit_bytes {
            return Err(Error::DocumentTooLarge {
                location: format!("{}, part {number}", source.name()),
                limit_bytes,
            });
        }
    }
}

/// Whether the first bytes of a file are text; the last character may be incomplete.
fn is_text(head: &[u8]) -> bool {
    let is_utf8 = |head| match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    !head.contains(&0) && is_utf8(head)
}

fn put(source: &Source, number: u64, bytes: &[u8], sink: &mut Sink) -> Result<()> {
    let location = || format!("{}, part {number}", source.name());
    let text = utf8::text(bytes.to_vec(), location)?;
    let text = match number {
        1 => text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text),
        _ => &text,
    };
    sink.put_part(&source.name(), number, text)
}

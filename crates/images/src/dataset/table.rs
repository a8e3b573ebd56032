//! The table of a split, with one record per picture.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `tf-image` |
//! | 4, 4 | version 1; channels |
//! | 8, 8 | number of records; bytes of names |
//! | 104 each | records |
//! | | names, UTF-8, one after the other |
//!
//! A record: label, width, height, bytes of its name (4 bytes each), start of its name, start of its pixels in
//! `SPLIT.pixels` (0 if it is a file), bytes of pixels or of the file (8 each), hash of the picture, hash of the file
//! (32 each; 0 if packed). Numbers are little-endian.

use std::path::Path;

use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"tf-image";
const HEADER_BYTES: usize = 32;
const RECORD_BYTES: usize = 104;
const FILE_VERSION: u32 = 1;

/// The record of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) label: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    pub(crate) content: [u8; 32],
    pub(crate) file: [u8; 32],
}

/// A table that is being written.
#[derive(Default)]
pub(crate) struct TableWriter {
    records: Vec<u8>,
    names: String,
}

impl TableWriter {
    pub(crate) fn push(&mut self, record: &Record) {
        let name_start = self.names.len() as u64;
        self.names.push_str(&record.name);
        let name_bytes = record.name.len() as u32;
        for number in [record.label, record.width, record.height, name_bytes] {
            self.records.extend(number.to_le_bytes());
        }
        for number in [name_start, record.start, record.bytes] {
            self.records.extend(number.to_le_bytes());
        }
        self.records.extend(record.content);
        self.records.extend(record.file);
    }

    pub(crate) fn finish(self, channels: usize) -> Vec<u8> {
        let count = (self.records.len() / RECORD_BYTES) as u64;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FILE_VERSION.to_le_bytes());
        bytes.extend((channels as u32).to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend((self.names.len() as u64).to_le_bytes());
        bytes.extend(self.records);
        bytes.extend(self.names.into_bytes());
        bytes
    }
}

/// A table that was read and checked: every record is inside the file, and every label, size and range is valid.
#[derive(Debug)]
pub(crate) struct Table {
    bytes: Vec<u8>,
    count: usize,
}

/// The values that a table is checked against.
pub(crate) struct Limits {
    pub(crate) channels: usize,
    pub(crate) classes: usize,
    /// Length of the file of pixels; `None` if pictures stay in their files.
    pub(crate) pixel_bytes: Option<u64>,
}

impl Table {
    pub(crate) fn parse(path: &Path, bytes: Vec<u8>, limits: &Limits) -> Result<Self> {
        let invalid = |expected: &str, got: String| Error::Dataset {
            path: path.to_owned(),
            problem: "not a valid table of pictures",
            expected: expected.into(),
            got,
        };
        if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
            return Err(invalid(
                "a file that begins with \"tf-image\"",
                format!("{} bytes", bytes.len()),
            ));
        }
        let (version, channels) = (u32_at(&bytes, 8), u32_at(&bytes, 12));
        if version != FILE_VERSION || channels as usize != limits.channels {
            let expected = format!("version {FILE_VERSION}, {} channels", limits.channels);
            return Err(invalid(
                &expected,
                format!("version {version}, {channels} channels"),
            ));
        }
        let (count, names) = (u64_at(&bytes, 16), u64_at(&bytes, 24));
        let expected = count
            .checked_mul(RECORD_BYTES as u64)
            .and_then(|n| n.checked_add(HEADER_BYTES as u64)?.checked_add(names));
        if expected != Some(bytes.len() as u64) {
            let expected = format!("{count} records and {names} bytes of names");
            return Err(invalid(&expected, format!("{} bytes in all", bytes.len())));
        }
        let table = Self {
            bytes,
            count: count as usize,
        };
        // All names are checked at once, because a large table has many.
        let Ok(names) = std::str::from_utf8(table.names()) else {
            return Err(invalid("names in UTF-8", "other bytes".into()));
        };
        for index in 0..table.count {
            if let Some(problem) = table.problem(index, names, limits) {
                return Err(invalid(
                    "possible records",
                    format!("{problem} in record {index}"),
                ));
            }
        }
        Ok(table)
    }

    fn problem(&self, index: usize, names: &str, limits: &Limits) -> Option<&'static str> {
        let field = |number: usize| u32_at(&self.bytes, self.place(index) + 4 * number);
        let wide = |number: usize| u64_at(&self.bytes, self.place(index) + 16 + 8 * number);
        if field(0) as usize >= limits.classes {
            return Some("a label without a class");
        }
        let sides = u64::from(field(1)).checked_mul(u64::from(field(2)));
        let pixels = sides.and_then(|n| n.checked_mul(limits.channels as u64));
        let Some(pixels) = pixels.filter(|n| *n > 0) else {
            return Some("an impossible size");
        };
        if let Some(pixel_bytes) = limits.pixel_bytes {
            let end = wide(1).checked_add(wide(2));
            if wide(2) != pixels || end.is_none_or(|end| end > pixel_bytes) {
                return Some("pixels outside the file");
            }
        }
        match self.name_range(index).and_then(|range| names.get(range)) {
            Some(_) => None,
            None => Some("a name outside the file"),
        }
    }

    fn place(&self, index: usize) -> usize {
        HEADER_BYTES + index * RECORD_BYTES
    }

    fn names(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES + self.count * RECORD_BYTES..]
    }

    fn name_range(&self, index: usize) -> Option<std::ops::Range<usize>> {
        let place = self.place(index);
        let start = usize::try_from(u64_at(&self.bytes, place + 16)).ok()?;
        Some(start..start.checked_add(u32_at(&self.bytes, place + 12) as usize)?)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn label(&self, index: usize) -> u32 {
        u32_at(&self.bytes, self.place(index))
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        // The range and the text were checked when the table was read.
        let name = self
            .name_range(index)
            .and_then(|range| self.names().get(range));
        std::str::from_utf8(name.unwrap_or_default()).unwrap_or_default()
    }

    pub(crate) fn record(&self, index: usize) -> Record {
        let place = self.place(index);
        let hash = |start: usize| std::array::from_fn(|byte| self.bytes[place + start + byte]);
        Record {
            label: self.label(index),
            width: u32_at(&self.bytes, place + 4),
            height: u32_at(&self.bytes, place + 8),
            name: self.name(index).to_owned(),
            start: u64_at(&self.bytes, place + 24),
            bytes: u64_at(&self.bytes, place + 32),
            content: hash(40),
            file: hash(72),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(label: u32, name: &str, start: u64) -> Record {
        Record {
            label,
            width: 2,
            height: 3,
            name: name.into(),
            start,
            bytes: 6,
            content: [1; 32],
            file: [2; 32],
        }
    }

    fn limits() -> Limits {
        Limits {
            channels: 1,
            classes: 3,
            pixel_bytes: Some(12),
        }
    }

    fn table() -> Vec<u8> {
        let mut writer = TableWriter::default();
        writer.push(&record(0, "a/\u{e9}.png", 0));
        writer.push(&record(2, "b.png", 6));
        writer.finish(1)
    }

    fn parse(bytes: Vec<u8>) -> Result<Table> {
        Table::parse(Path::new("t"), bytes, &limits())
    }

    #[test]
    fn records_come_back() {
        let table = parse(table()).unwrap();
        assert_eq!(table.len(), 2);
        assert_eq!(table.record(0), record(0, "a/\u{e9}.png", 0));
        assert_eq!(table.record(1), record(2, "b.png", 6));
    }

    #[test]
    fn impossible_records_are_refused() {
        let refused = |record: Record| {
            let mut writer = TableWriter::default();
            writer.push(&record);
            parse(writer.finish(1)).unwrap_err().to_string()
        };
        let good = record(0, "a", 0);
        assert!(
            refused(Record {
                label: 3,
                ..good.clone()
            })
            .contains("a label without a class")
        );
        assert!(
            refused(Record {
                width: 0,
                ..good.clone()
            })
            .contains("an impossible size")
        );
        assert!(
            refused(Record {
                start: 7,
                ..good.clone()
            })
            .contains("pixels outside the file")
        );
        assert!(
            refused(Record {
                start: u64::MAX,
                ..good.clone()
            })
            .contains("pixels outside the file")
        );
        assert!(refused(Record { bytes: 5, ..good }).contains("pixels outside the file"));
    }

    proptest! {
        /// For any bytes, a table gives an error or can be read to its end.
        #[test]
        fn damage_does_not_panic(at in 0_usize..300, value in any::<u8>(), length in 0_usize..300) {
            let mut bytes = table();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(length);
            if let Ok(table) = parse(bytes) {
                for index in 0..table.len() {
                    table.record(index);
                }
            }
        }
    }
}

//! A streaming writer of stored entries; its bytes do not depend on time or host.

use std::io::{self, Write};

use super::{
    CENTRAL, DESCRIPTOR, END, END_64, END_64_BYTES, EXTRA_64, LOCAL, LOCAL_BYTES, LOCATOR_64,
};

/// Flags: sizes and checksum follow the data, so that it can be streamed; names are UTF-8.
const FLAGS: u16 = 0x0808;
/// 1980-01-01, the first date of the format.
const DATE: u16 = 0x0021;
/// The version that a reader must support: ZIP64.
const VERSION: u16 = 45;
const WIDE_32: u32 = u32::MAX;
const WIDE_16: u16 = u16::MAX;
/// The padding field that PyTorch uses, "FB".
const EXTRA_PADDING: u16 = 0x4246;
const ALIGNMENT_BYTES: u64 = 64;

struct Written {
    name: String,
    crc: u32,
    bytes: u64,
    local: u64,
}

/// An archive being written to `W`.
pub(crate) struct ZipWriter<W> {
    to: W,
    at: u64,
    entries: Vec<Written>,
    /// The open entry: checksum so far and first byte of its data.
    open: Option<(crc32fast::Hasher, u64)>,
}

impl<W: Write> ZipWriter<W> {
    pub(crate) fn new(to: W) -> Self {
        ZipWriter {
            to,
            at: 0,
            entries: Vec::new(),
            open: None,
        }
    }

    /// Starts an entry whose data begins at a multiple of 64 bytes.
    pub(crate) fn start(&mut self, name: &str) -> io::Result<()> {
        let name_bytes = u16::try_from(name.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "an entry's name is too long")
        })?;
        let local = self.at;
        let unpadded = local + LOCAL_BYTES as u64 + u64::from(name_bytes) + 4;
        let padding = (unpadded.next_multiple_of(ALIGNMENT_BYTES) - unpadded) as u16;
        let mut header = Vec::new();
        put32(&mut header, LOCAL);
        put16(&mut header, &[VERSION, FLAGS, 0, 0, DATE]);
        header.extend([0; 12]);
        put16(&mut header, &[name_bytes, 4 + padding]);
        header.extend_from_slice(name.as_bytes());
        put16(&mut header, &[EXTRA_PADDING, padding]);
        header.extend(std::iter::repeat_n(b'Z', padding.into()));
        self.put(&header)?;
        self.entries.push(Written {
            name: name.into(),
            crc: 0,
            bytes: 0,
            local,
        });
        self.open = Some((crc32fast::Hasher::new(), self.at));
        Ok(())
    }

    /// Adds data to the open entry.
    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        if let Some((crc, _)) = &mut self.open {
            crc.update(data);
        }
        self.put(data)
    }

    /// Ends the open entry.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        let (Some((crc, start)), Some(entry)) = (self.open.take(), self.entries.last_mut()) else {
            return Ok(());
        };
        entry.crc = crc.finalize();
        entry.bytes = self.at - start;
        let mut descriptor = Vec::new();
        put32(&mut descriptor, DESCRIPTOR);
        put32(&mut descriptor, entry.crc);
        for _ in 0..2 {
            match u32::try_from(entry.bytes) {
                Ok(bytes) if bytes != WIDE_32 => put32(&mut descriptor, bytes),
                _ => descriptor.extend_from_slice(&entry.bytes.to_le_bytes()),
            }
        }
        self.put(&descriptor)
    }

    /// Writes the directory.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let start = self.at;
        for entry in std::mem::take(&mut self.entries) {
            let wide = entry.bytes >= WIDE_32.into() || entry.local >= WIDE_32.into();
            let narrow = |number: u64| if wide { WIDE_32 } else { number as u32 };
            let mut record = Vec::new();
            put32(&mut record, CENTRAL);
            put16(&mut record, &[VERSION, VERSION, FLAGS, 0, 0, DATE]);
            put32(&mut record, entry.crc);
            put32(&mut record, narrow(entry.bytes));
            put32(&mut record, narrow(entry.bytes));
            put16(
                &mut record,
                &[entry.name.len() as u16, if wide { 28 } else { 0 }],
            );
            record.extend([0; 10]);
            put32(&mut record, narrow(entry.local));
            record.extend_from_slice(entry.name.as_bytes());
            if wide {
                put16(&mut record, &[EXTRA_64, 24]);
                for number in [entry.bytes, entry.bytes, entry.local] {
                    record.extend_from_slice(&number.to_le_bytes());
                }
            }
            self.put(&record)?;
            self.entries.push(entry);
        }
        self.end_records(start)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn end_records(&mut self, start: u64) -> io::Result<()> {
        let end = self.at;
        let count = self.entries.len() as u64;
        let wide = count >= WIDE_16.into() || end >= WIDE_32.into();
        let mut records = Vec::new();
        if wide {
            put32(&mut records, END_64);
            records.extend_from_slice(&(END_64_BYTES as u64 - 12).to_le_bytes());
            put16(&mut records, &[VERSION, VERSION]);
            records.extend([0; 8]);
            for number in [count, count, end - start, start] {
                records.extend_from_slice(&number.to_le_bytes());
            }
            put32(&mut records, LOCATOR_64);
            put32(&mut records, 0);
            records.extend_from_slice(&end.to_le_bytes());
            put32(&mut records, 1);
        }
        put32(&mut records, END);
        put16(&mut records, &[0, 0]);
        let short = if wide { WIDE_16 } else { count as u16 };
        put16(&mut records, &[short, short]);
        for number in [end - start, start] {
            put32(&mut records, if wide { WIDE_32 } else { number as u32 });
        }
        put16(&mut records, &[0]);
        self.put(&records)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

fn put16(to: &mut Vec<u8>, numbers: &[u16]) {
    to.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn put32(to: &mut Vec<u8>, number: u32) {
    to.extend_from_slice(&number.to_le_bytes());
}

//! Reads and checks the directory of an archive: no entry may be outside the file, overlap another, be repeated or
//! compressed.

use std::collections::HashSet;
use std::ops::Range;

use super::{
    CENTRAL, CENTRAL_BYTES, END, END_64, END_64_BYTES, END_BYTES, EXTRA_64, LOCAL, LOCAL_BYTES,
    LOCATOR_64, LOCATOR_64_BYTES,
};
use crate::error::shown;
use crate::{Error, Result};

/// One stored file of an archive.
pub(crate) struct Entry {
    /// Its path in the archive.
    pub(crate) name: String,
    /// The range of its bytes, always inside the archive.
    pub(crate) range: Range<usize>,
    /// The checksum of its bytes in the directory; it is not compared here.
    pub(crate) crc: u32,
}

/// The archive's entries, in the order of its directory.
pub(crate) fn entries(location: &str, bytes: &[u8]) -> Result<Vec<Entry>> {
    Archive { location, bytes }.entries()
}

/// The range of the directory and its number of entries.
struct Directory {
    range: Range<usize>,
    count: u64,
}

struct Archive<'a> {
    location: &'a str,
    bytes: &'a [u8],
}

impl Archive<'_> {
    fn entries(&self) -> Result<Vec<Entry>> {
        let directory = self.directory()?;
        // Checked before anything is allocated: a directory of this length cannot hold more entries.
        if directory.count > (directory.range.len() / CENTRAL_BYTES) as u64 {
            return Err(self.damaged(
                "the directory is too short for its entries",
                format!(
                    "{} entries of {CENTRAL_BYTES} bytes or more",
                    directory.count
                ),
                format!("{} bytes", directory.range.len()),
            ));
        }
        let mut entries = Vec::new();
        let mut occupied = Vec::new();
        let mut at = directory.range.start;
        for _ in 0..directory.count {
            let (entry, whole, next) = self.entry(at, &directory)?;
            entries.push(entry);
            occupied.push(whole);
            at = next;
        }
        self.check_overlap(occupied, &directory)?;
        self.check_names(&entries)?;
        Ok(entries)
    }

    /// Reads the end record, and its 64-bit form if it exists.
    fn directory(&self) -> Result<Directory> {
        const LONGEST_COMMENT: usize = 0xffff;
        let first = self.bytes.len().saturating_sub(END_BYTES + LONGEST_COMMENT);
        let end = (first..=self.bytes.len().saturating_sub(END_BYTES))
            .rev()
            .find(|&at| {
                self.u32(at) == Some(END)
                    && self.u16(at + 20).map(usize::from)
                        == self.bytes.len().checked_sub(at + END_BYTES)
            })
            .ok_or_else(|| {
                self.damaged(
                    "the archive has no end",
                    "a ZIP archive as torch.save writes it".into(),
                    format!("{} bytes without an end record", self.bytes.len()),
                )
            })?;
        let cut = || {
            self.damaged(
                "the end record is cut short",
                "a whole record".into(),
                "less".into(),
            )
        };
        let (count, length, start, records) = match self.locator(end) {
            None => (
                u64::from(self.u16(end + 10).ok_or_else(cut)?),
                u64::from(self.u32(end + 12).ok_or_else(cut)?),
                u64::from(self.u32(end + 16).ok_or_else(cut)?),
                end,
            ),
            Some(record) => {
                let record = usize::try_from(record)
                    .ok()
                    .filter(|&at| {
                        self.u32(at) == Some(END_64)
                            && at
                                .checked_add(END_64_BYTES + LOCATOR_64_BYTES)
                                .is_some_and(|next| next <= end)
                    })
                    .ok_or_else(|| {
                        self.damaged(
                            "the 64-bit end record is not where its locator says",
                            "an end record".into(),
                            format!("other bytes at offset {record}"),
                        )
                    })?;
                (
                    self.u64(record + 32).ok_or_else(cut)?,
                    self.u64(record + 40).ok_or_else(cut)?,
                    self.u64(record + 48).ok_or_else(cut)?,
                    record,
                )
            }
        };
        let range = self.range(start, length, records).ok_or_else(|| {
            self.damaged(
                "the directory is outside the archive",
                format!("it ends at or before offset {records}"),
                format!("{length} bytes from offset {start}"),
            )
        })?;
        Ok(Directory { range, count })
    }

    /// The offset of the 64-bit end record, if a locator precedes the end record at `end`.
    fn locator(&self, end: usize) -> Option<u64> {
        let locator = end.checked_sub(LOCATOR_64_BYTES)?;
        (self.u32(locator)? == LOCATOR_64).then_some(())?;
        self.u64(locator + 8)
    }

    /// The directory record at `at`: the entry, the range that it occupies, and the next record's offset.
    fn entry(&self, at: usize, directory: &Directory) -> Result<(Entry, Range<usize>, usize)> {
        let record = self.record(at, directory.range.end).ok_or_else(|| {
            self.damaged(
                "a directory record is cut short",
                "a whole record".into(),
                format!("the directory ends at offset {}", directory.range.end),
            )
        })?;
        let name = std::str::from_utf8(record.name).map_err(|_| {
            self.damaged(
                "an entry's name is not UTF-8",
                "UTF-8".into(),
                shown(&String::from_utf8_lossy(record.name)),
            )
        })?;
        if record.method != 0 {
            return Err(Error::Unsupported {
                location: self.location.into(),
                what: format!(
                    "the entry {} is compressed; nothing was decompressed",
                    shown(name)
                ),
                help: "torch.save stores entries as they are; save the file again with PyTorch, or pack it with zip -0",
            });
        }
        const ENCRYPTED: u16 = 1;
        if record.flags & ENCRYPTED != 0 || record.packed_bytes != record.bytes {
            return Err(self.damaged(
                &format!("the entry {} is not stored as it is", shown(name)),
                format!("{} bytes, not encrypted", record.bytes),
                format!("{} bytes, flags {:#06x}", record.packed_bytes, record.flags),
            ));
        }
        let outside = || {
            self.damaged(
                &format!("the entry {} is outside the archive", shown(name)),
                format!(
                    "it ends at or before the directory at offset {}",
                    directory.range.start
                ),
                format!("{} bytes from offset {}", record.bytes, record.local),
            )
        };
        let start = usize::try_from(record.local).map_err(|_| outside())?;
        if self.u32(start) != Some(LOCAL) {
            return Err(self.damaged(
                &format!("the entry {} is not where the directory says", shown(name)),
                "a local header".into(),
                format!("other bytes at offset {start}"),
            ));
        }
        let name_bytes = self.u16(start + 26).ok_or_else(outside)?;
        let extra_bytes = self.u16(start + 28).ok_or_else(outside)?;
        let local_name = start + LOCAL_BYTES;
        if self
            .bytes
            .get(local_name..local_name + usize::from(name_bytes))
            != Some(record.name)
        {
            return Err(self.damaged(
                "the directory and an entry disagree about its name",
                shown(name),
                format!("another name at offset {start}"),
            ));
        }
        let data = local_name + usize::from(name_bytes) + usize::from(extra_bytes);
        let range = self
            .range(data as u64, record.bytes, directory.range.start)
            .ok_or_else(outside)?;
        let whole = start..range.end;
        let entry = Entry {
            name: name.to_string(),
            range,
            crc: record.crc,
        };
        Ok((entry, whole, record.next))
    }

    fn record(&self, at: usize, end: usize) -> Option<Record<'_>> {
        (self.u32(at)? == CENTRAL).then_some(())?;
        let name_start = at.checked_add(CENTRAL_BYTES)?;
        let extra_start = name_start.checked_add(self.u16(at + 28)?.into())?;
        let comment_start = extra_start.checked_add(self.u16(at + 30)?.into())?;
        let next = comment_start.checked_add(self.u16(at + 32)?.into())?;
        (next <= end).then_some(())?;
        let mut record = Record {
            flags: self.u16(at + 8)?,
            method: self.u16(at + 10)?,
            crc: self.u32(at + 16)?,
            packed_bytes: self.u32(at + 20)?.into(),
            bytes: self.u32(at + 24)?.into(),
            local: self.u32(at + 42)?.into(),
            name: self.bytes.get(name_start..extra_start)?,
            next,
        };
        record.widen(self.bytes.get(extra_start..comment_start)?)?;
        Some(record)
    }

    /// Returns an error for entries that share bytes, with which a small file could unpack to a huge one.
    fn check_overlap(&self, mut occupied: Vec<Range<usize>>, directory: &Directory) -> Result<()> {
        occupied.sort_unstable_by_key(|range| range.start);
        let overlap = occupied.windows(2).find_map(|pair| match pair {
            [a, b] if a.end > b.start => Some((a.end, b.start)),
            _ => None,
        });
        match overlap {
            None => Ok(()),
            Some((end, start)) => Err(self.damaged(
                "two entries overlap",
                format!(
                    "entries one after the other, before offset {}",
                    directory.range.start
                ),
                format!("one ends at offset {end}, the next starts at {start}"),
            )),
        }
    }

    fn check_names(&self, entries: &[Entry]) -> Result<()> {
        let mut names = HashSet::with_capacity(entries.len());
        match entries
            .iter()
            .find(|entry| !names.insert(entry.name.as_str()))
        {
            None => Ok(()),
            Some(entry) => Err(self.damaged(
                "two entries have the same name",
                "each name once".into(),
                shown(&entry.name),
            )),
        }
    }

    /// A range that ends at or before `limit`, which is inside the archive.
    fn range(&self, start: u64, length: u64, limit: usize) -> Option<Range<usize>> {
        let end = start.checked_add(length)?;
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        (range.end <= limit).then_some(range)
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        array(self.bytes, at)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn damaged(&self, what: &str, expected: String, got: String) -> Error {
        Error::Damaged {
            location: self.location.into(),
            what: what.into(),
            expected,
            got,
            help: "the file is incomplete or damaged; copy or download it again",
        }
    }
}

struct Record<'a> {
    flags: u16,
    method: u16,
    crc: u32,
    packed_bytes: u64,
    bytes: u64,
    local: u64,
    name: &'a [u8],
    next: usize,
}

impl Record<'_> {
    /// Reads the numbers that did not fit from the extra fields; `None` if they are missing.
    fn widen(&mut self, mut extra: &[u8]) -> Option<()> {
        const WIDE: u64 = 0xffff_ffff;
        let mut wide: &[u8] = &[];
        while let (Some(id), Some(length)) = (array(extra, 0), array(extra, 2)) {
            let field = extra.get(4..)?.get(..u16::from_le_bytes(length).into())?;
            if u16::from_le_bytes(id) == EXTRA_64 {
                wide = field;
            }
            extra = extra.get(4 + field.len()..)?;
        }
        let mut numbers = wide
            .as_chunks::<8>()
            .0
            .iter()
            .copied()
            .map(u64::from_le_bytes);
        // The format fixes the order; only numbers at their maximum are present.
        for number in [&mut self.bytes, &mut self.packed_bytes, &mut self.local] {
            if *number == WIDE {
                *number = numbers.next()?;
            }
        }
        Some(())
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

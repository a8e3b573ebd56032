//! Archives beyond 4 GiB, written as sparse files.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use super::{ZipWriter, entries};

/// A writer that turns zeros into holes of a sparse file.
struct Sparse(File);

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.iter().all(|&byte| byte == 0) {
            self.0.seek(SeekFrom::Current(bytes.len() as i64))?;
            return Ok(bytes.len());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn entries_beyond_4_gib_are_found_again() {
    const MIB: usize = 1 << 20;
    const LARGE_MIB: usize = 4097;
    let file = tempfile::tempfile().unwrap();
    let mut zip = ZipWriter::new(Sparse(file.try_clone().unwrap()));
    let zeros = vec![0; MIB];
    zip.start("a/large").unwrap();
    for _ in 0..LARGE_MIB {
        zip.write(&zeros).unwrap();
    }
    zip.end().unwrap();
    zip.start("a/after").unwrap();
    zip.write(b"after").unwrap();
    zip.end().unwrap();
    zip.finish().unwrap();
    // SAFETY: no other code accesses the file.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    let found = entries("large.zip", &map).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].range.len(), LARGE_MIB * MIB);
    assert_eq!(found[1].name, "a/after");
    assert!(found[1].range.start > u32::MAX as usize);
    assert_eq!(map[found[1].range.clone()], *b"after");
}

//! Hashes of data while it is written and of files on disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use tokenformer_base::files;

use crate::{Error, Result};

/// Large enough for blake3 to work on many chunks at once, small enough for the cache.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;

/// Size and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Size in bytes.
    pub bytes: u64,
    /// blake3 of the content, 64 lower-case hexadecimal digits.
    pub blake3: String,
}

impl Written {
    pub(crate) fn of(bytes: &[u8]) -> Written {
        Written {
            bytes: bytes.len() as u64,
            blake3: blake3::hash(bytes).to_string(),
        }
    }
}

/// A writer that counts and hashes the bytes that it passes to `inner`.
pub(crate) struct HashingWriter<W> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(inner: W) -> HashingWriter<W> {
        HashingWriter {
            inner,
            hasher: blake3::Hasher::new(),
            bytes: 0,
        }
    }

    pub(crate) fn written(&self) -> Written {
        Written {
            bytes: self.bytes,
            blake3: self.hasher.finalize().to_string(),
        }
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        let passed = buffer.get(..count).ok_or(io::ErrorKind::InvalidData)?;
        self.hasher.update(passed);
        self.bytes += passed.len() as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Opens a regular file for reading.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64)> {
    files::open_regular(path).map_err(Error::io("read it", path))
}

/// Hashes the first `limit_bytes` of a file through a fixed buffer.
pub(crate) fn hash_opened(path: &Path, file: &File, limit_bytes: u64) -> Result<Written> {
    let mut hashing = HashingWriter::new(io::sink());
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut limited = file.take(limit_bytes);
    loop {
        let count = match limited.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.map_err(Error::io("read it", path))?,
        };
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            return Ok(hashing.written());
        };
        hashing
            .write_all(read)
            .map_err(Error::io("hash it", path))?;
    }
}

/// Size and hash of a whole file.
///
/// # Errors
/// [`Error::Io`], also for anything but a regular file.
pub fn hash_file(path: &Path) -> Result<Written> {
    let (file, _) = open_regular(path)?;
    hash_opened(path, &file, u64::MAX)
}

//! Memory maps for reading files, temporary files for writing them.

use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use tempfile::NamedTempFile;
use tokenformer_base::files;

use crate::{Error, Result};

/// Maps a regular file. If another program changes or shortens it in place while it is mapped, the bytes change under
/// the reader, or the process is killed.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let (file, _) = files::open_regular(path).map_err(Error::io("read it", path))?;
    // SAFETY: the map is only read, as bytes, for which every value is valid. This crate never writes into a file under
    // its final name; the crate's documentation requires the same of other programs while a file is mapped.
    unsafe { Mmap::map(&file) }.map_err(Error::io("map it into memory", path))
}

/// Releases the memory pages of a range that was read; until then they count as memory of this process. They are read
/// again when they are needed.
pub(crate) fn release(map: &Mmap, range: &Range<usize>) {
    #[cfg(unix)]
    {
        // SAFETY: this is a read-only map of a file, so released pages are read again with the same bytes, and slices of
        // them stay valid.
        let advised = unsafe {
            map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len())
        };
        // This is only advice: if the system ignores it, the process just uses more memory.
        let _ = advised;
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}

/// Reads a file that should be small.
pub(crate) fn read_small(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let read = files::read_small(path, max_bytes).map_err(Error::io("read it", path))?;
    read.ok_or_else(|| Error::Damaged {
        location: path.display().to_string(),
        what: "the file is too large".into(),
        expected: format!("at most {max_bytes} bytes"),
        got: "more".into(),
        help: "check that this is the file you mean",
    })
}

/// A new file next to `path`; it is removed unless [`publish`] is called.
pub(crate) fn stage(path: &Path) -> Result<NamedTempFile> {
    files::stage(files::parent(path), ".tokenformer-")
        .map_err(Error::io("create a file beside it", path))
}

/// Syncs a staged file and renames it over `path`.
pub(crate) fn publish(staged: NamedTempFile, path: &Path) -> Result<()> {
    files::publish(staged, path).map_err(Error::io("replace it", path))
}

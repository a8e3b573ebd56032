//! The manifest: the list of a published directory's files with their sizes and hashes.
//!
//! It is written last, so a directory without a manifest is incomplete. It contains its own hash, so that a changed
//! manifest is detected.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic_file::read_small;
use crate::error::{shown, shown_json};
use crate::hash::{Written, hash_opened, open_regular};
use crate::{Error, Result};

/// The manifest's file name.
pub const MANIFEST_NAME: &str = "manifest.json";

const FORMAT: &str = "tokenformer-manifest";
const VERSION: u32 = 1;
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// The content of a published directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the directory is, such as `checkpoint`.
    pub kind: String,
    /// Its files, sorted by name.
    pub files: Vec<FileEntry>,
}

/// One file of a published directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its plain name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// blake3 of its content, 64 lower-case hexadecimal digits.
    pub blake3: String,
}

/// A directory whose listed files were all read and match its manifest.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The directory.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Names in the directory that the manifest does not list, sorted.
    pub unlisted: Vec<String>,
}

/// The manifest as it is stored; the hash covers the other fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    kind: String,
    files: Vec<FileEntry>,
    blake3: String,
}

#[derive(Deserialize)]
struct Version {
    format: String,
    version: u32,
}

impl Manifest {
    /// Reads and checks `manifest.json` of `dir`, but not the files it lists.
    ///
    /// # Errors
    /// [`Error::ManifestMissing`], [`Error::Manifest`], [`Error::FileName`], [`Error::TooLarge`], [`Error::Io`].
    pub fn read(dir: &Path) -> Result<Manifest> {
        let path = dir.join(MANIFEST_NAME);
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("look at it", &path)(error));
            }
            _ => {
                // A missing directory gets another error than a missing manifest.
                fs::read_dir(dir).map_err(Error::io("open the folder", dir))?;
                return Err(Error::ManifestMissing {
                    dir: dir.to_path_buf(),
                });
            }
        }
        let bytes = read_small(&path, MAX_MANIFEST_BYTES)?;
        Manifest::parse(&path, &bytes)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest> {
        let invalid = |expected: &str, got: String| Error::Manifest {
            path: path.to_path_buf(),
            expected: expected.to_string(),
            got,
        };
        // The version is read first, so that a newer format is reported as such instead of as an unknown key.
        let found: Version = serde_json::from_slice(bytes)
            .map_err(|error| invalid("JSON with \"format\" and \"version\"", shown_json(&error)))?;
        if found.format != FORMAT || found.version != VERSION {
            let got = format!("{} version {}", shown(&found.format), found.version);
            return Err(invalid(&format!("{FORMAT:?} version {VERSION}"), got));
        }
        let Document {
            kind,
            files,
            blake3,
            ..
        } = serde_json::from_slice(bytes)
            .map_err(|error| invalid("the fields of version 1", shown_json(&error)))?;

        let manifest = Manifest { kind, files };
        let own = manifest.own_hash(path)?;
        if blake3 != own {
            return Err(invalid(
                &format!("a content with the hash {}", shown(&blake3)),
                own,
            ));
        }
        let mut names = BTreeSet::new();
        for file in &manifest.files {
            check_file_name(path, &file.name)?;
            if !names.insert(&file.name) {
                return Err(invalid(
                    "each file once",
                    format!("{} twice", shown(&file.name)),
                ));
            }
        }
        Ok(manifest)
    }

    /// The bytes of `manifest.json` in `dir`, the same for the same manifest.
    pub(crate) fn to_bytes(&self, dir: &Path) -> Result<Vec<u8>> {
        let path = dir.join(MANIFEST_NAME);
        let document = Document {
            format: FORMAT.to_string(),
            version: VERSION,
            kind: self.kind.clone(),
            files: self.files.clone(),
            blake3: self.own_hash(&path)?,
        };
        let mut bytes =
            serde_json::to_vec_pretty(&document).map_err(|source| Error::Json { path, source })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// blake3 of `[format, version, kind, files]` as compact JSON.
    fn own_hash(&self, path: &Path) -> Result<String> {
        let json =
            serde_json::to_vec(&(FORMAT, VERSION, &self.kind, &self.files)).map_err(|source| {
                Error::Json {
                    path: path.to_path_buf(),
                    source,
                }
            })?;
        Ok(Written::of(&json).blake3)
    }
}

/// Reads every file that the manifest of `dir` lists and compares size and hash.
///
/// Files that it does not list are reported and are not an error. Memory stays at one buffer for files of any size.
///
/// # Errors
/// [`Error::Damaged`] with the file's name and what differs, and those of [`Manifest::read`].
pub fn verify(dir: &Path) -> Result<Verified> {
    let manifest = Manifest::read(dir)?;
    for entry in &manifest.files {
        verify_file(dir, entry)?;
    }
    let unlisted = unlisted(dir, &manifest)?;
    Ok(Verified {
        dir: dir.to_path_buf(),
        manifest,
        unlisted,
    })
}

fn verify_file(dir: &Path, entry: &FileEntry) -> Result<()> {
    let damaged = |expected: String, got: String| Error::Damaged {
        dir: dir.to_path_buf(),
        name: entry.name.clone(),
        expected,
        got,
    };
    let path = dir.join(&entry.name);
    let (file, bytes) = match open_regular(&path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(
                format!("a file of {} bytes", entry.bytes),
                "no such file".into(),
            ));
        }
        result => result?,
    };
    if bytes != entry.bytes {
        return Err(damaged(
            format!("{} bytes", entry.bytes),
            format!("{bytes} bytes"),
        ));
    }
    let found = hash_opened(&path, &file, entry.bytes)?;
    if found.bytes != entry.bytes {
        return Err(damaged(
            format!("{} bytes", entry.bytes),
            format!("{} bytes", found.bytes),
        ));
    }
    if found.blake3 != entry.blake3 {
        return Err(damaged(
            format!("blake3 {}", shown(&entry.blake3)),
            format!("blake3 {:?}", found.blake3),
        ));
    }
    Ok(())
}

/// Names in `dir` that the manifest does not list, sorted.
pub(crate) fn unlisted(dir: &Path, manifest: &Manifest) -> Result<Vec<String>> {
    let listed: BTreeSet<&str> = manifest
        .files
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    let mut names: Vec<String> = entry_names(dir)?
        .into_iter()
        .filter(|name| name != MANIFEST_NAME && !listed.contains(name.as_str()))
        .collect();
    names.sort();
    Ok(names)
}

/// All names in `dir`, in no order.
pub(crate) fn entry_names(dir: &Path) -> Result<Vec<String>> {
    fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
                .collect()
        })
        .map_err(Error::io("list the folder", dir))
}

/// Returns an error for names that would lead out of their directory or that have a special meaning.
pub(crate) fn check_file_name(path: &Path, name: &str) -> Result<()> {
    let plain =
        !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0']);
    if plain && name != MANIFEST_NAME {
        return Ok(());
    }
    Err(Error::FileName {
        path: path.to_path_buf(),
        name: name.to_string(),
    })
}

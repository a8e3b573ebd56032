//! Opens a dataset folder and verifies it completely.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::Deserialize;
use tokenformer_store::{Manifest, read_small, verify};

use super::summary::VERSION;
use super::table::{Limits, Record, Table};
use super::{SplitSummary, Storage, Summary};
use crate::decode::{DecodeOptions, decode, read_file};
use crate::error::{Error, Result};
use crate::layout::{KIND, file_names, is_image_dataset};
use crate::picture::Picture;
use crate::resize::SIDES;
use crate::source::MAX_CLASSES;
use crate::split::Split;

/// Size limit of `images.json`, most of which are names of classes and of unreadable files.
const MAX_SUMMARY_BYTES: u64 = 1 << 30;
/// Size limit of a table: about a hundred million pictures.
const MAX_TABLE_BYTES: u64 = 16 << 30;

/// A dataset as [`prepare`](super::prepare) wrote it.
#[derive(Debug)]
pub struct ImageSet {
    summary: Summary,
    splits: Vec<(Split, Pictures)>,
}

/// The pictures of a split.
#[derive(Debug)]
pub struct Pictures {
    table: Table,
    channels: usize,
    from: From,
}

#[derive(Debug)]
enum From {
    Packed(Mmap),
    Files {
        root: PathBuf,
        decode: DecodeOptions,
    },
}

impl ImageSet {
    /// Opens a dataset folder: every file is hashed against the manifest and every record checked. The files of an
    /// indexed dataset are checked when they are read.
    ///
    /// # Errors
    /// A file is missing, damaged, of another version or from another dataset.
    pub fn open(dir: &Path) -> Result<Self> {
        let summary_path = dir.join(file_names::SUMMARY);
        let invalid = |problem, expected: String, got: String| Error::Dataset {
            path: summary_path.clone(),
            problem,
            expected,
            got,
        };
        if !is_image_dataset(dir) {
            let expected = "a folder with images.json".into();
            return Err(invalid(
                "not a dataset of pictures",
                expected,
                "none there".into(),
            ));
        }
        let manifest = verify(dir).map_err(|error| damaged(dir, error))?.manifest;
        if manifest.kind != KIND {
            return Err(invalid(
                "another kind of folder",
                KIND.into(),
                manifest.kind,
            ));
        }
        let summary = parse(
            &summary_path,
            &read_small(&summary_path, MAX_SUMMARY_BYTES)?,
        )?;
        let mut splits = Vec::new();
        for split in &summary.splits {
            splits.push((split.split, Pictures::open(dir, &summary, split)?));
        }
        Ok(Self { summary, splits })
    }

    /// The description of the dataset.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// A hash of what a split teaches: its classes, pixels and labels in their order; nothing if there is no such split.
    /// Where the pictures lie is not in it.
    pub fn identity(&self, split: Split) -> Option<String> {
        let pictures = self.split(split)?;
        let mut hasher = blake3::Hasher::new();
        for class in &self.summary.classes {
            hasher.update(&(class.len() as u64).to_le_bytes());
            hasher.update(class.as_bytes());
        }
        for index in 0..pictures.len() {
            hasher.update(&pictures.label(index).to_le_bytes());
            hasher.update(&pictures.content_hash(index));
        }
        Some(hasher.finalize().to_hex().to_string())
    }

    /// The pictures of a split, if it exists.
    pub fn split(&self, split: Split) -> Option<&Pictures> {
        let found = self.splits.iter().find(|(name, _)| *name == split);
        found.map(|(_, pictures)| pictures)
    }
}

/// Whether a folder is a dataset that this program made: its manifest says so, or its `images.json` is the description of one.
/// The name alone is no evidence, because other programs write files of that name, too.
pub(crate) fn is_published(dir: &Path) -> bool {
    let path = dir.join(file_names::SUMMARY);
    is_image_dataset(dir)
        && (Manifest::read(dir).is_ok_and(|manifest| manifest.kind == KIND)
            || read_small(&path, MAX_SUMMARY_BYTES).is_ok_and(|json| parse(&path, &json).is_ok()))
}

fn damaged(dir: &Path, error: tokenformer_store::Error) -> Error {
    use tokenformer_store::Error as Store;
    match error {
        Store::Damaged {
            name,
            expected,
            got,
            ..
        } => Error::Dataset {
            path: dir.join(name),
            problem: "the file is damaged",
            expected,
            got,
        },
        Store::ManifestMissing { dir } => Error::Dataset {
            path: dir,
            problem: "not a whole dataset",
            expected: "a manifest.json, which is written last".into(),
            got: "none".into(),
        },
        Store::Manifest {
            path,
            expected,
            got,
        } => Error::Dataset {
            path,
            problem: "the manifest is damaged",
            expected,
            got,
        },
        other => other.into(),
    }
}

fn parse(path: &Path, json: &[u8]) -> Result<Summary> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let invalid = |problem, expected: String, got: String| Error::Dataset {
        path: path.to_owned(),
        problem,
        expected,
        got,
    };
    let not_json = |error: serde_json::Error| {
        let expected = "JSON as `tokenformer data prepare --images` writes it".into();
        invalid(
            "not the description of a dataset",
            expected,
            error.to_string(),
        )
    };
    let Version { version } = serde_json::from_slice(json).map_err(not_json)?;
    if version != VERSION {
        return Err(invalid(
            "unknown version",
            VERSION.to_string(),
            version.to_string(),
        ));
    }
    let summary: Summary = serde_json::from_slice(json).map_err(not_json)?;
    let classes = summary.classes.len();
    let names: Vec<Split> = summary.splits.iter().map(|split| split.split).collect();
    let problem = if !(1..=MAX_CLASSES).contains(&classes) {
        format!("{classes} classes")
    } else if !matches!(summary.channels, 1 | 3) {
        format!("{} channels", summary.channels)
    } else if names != [Split::Train, Split::Valid] && names != Split::ALL {
        format!("the splits {names:?}")
    } else if [summary.mean.len(), summary.std.len()] != [summary.channels; 2] {
        "moments of other channels".into()
    } else if summary
        .splits
        .iter()
        .any(|split| split.images == 0 || split.per_class.len() != classes)
    {
        "a split without pictures, or of other classes".into()
    } else if let Some(side) = summary.resized.filter(|side| !SIDES.contains(side)) {
        format!("pictures reduced to {side} pixels")
    } else if (summary.storage == Storage::Indexed) != summary.root.is_some() {
        "a folder of files with packed pixels, or none without".into()
    } else {
        return Ok(summary);
    };
    Err(invalid(
        "an impossible dataset",
        "what `data prepare` writes".into(),
        problem,
    ))
}

impl Pictures {
    fn open(dir: &Path, summary: &Summary, split: &SplitSummary) -> Result<Self> {
        let from = match (summary.storage, &summary.root) {
            (Storage::Indexed, Some(root)) => From::Files {
                root: root.into(),
                decode: summary.decode,
            },
            _ => {
                let path = dir.join(file_names::pixels(split.split));
                let file = File::open(&path).map_err(Error::io("open", &path))?;
                // SAFETY: the map is only read. The dataset's files are never written to after they were renamed to
                // their final names: a new dataset replaces the folder, and the mapped pages do not change. If another
                // program truncates a file, the process ends by SIGBUS, which is not an access outside the map.
                let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", &path))?;
                From::Packed(map)
            }
        };
        let path = dir.join(file_names::table(split.split));
        let limits = Limits {
            channels: summary.channels,
            classes: summary.classes.len(),
            pixel_bytes: match &from {
                From::Packed(map) => Some(map.len() as u64),
                From::Files { .. } => None,
            },
        };
        let table = Table::parse(&path, read_small(&path, MAX_TABLE_BYTES)?, &limits)?;
        if table.len() != split.images {
            return Err(Error::Dataset {
                path,
                problem: "not the table of the dataset",
                expected: format!("{} pictures", split.images),
                got: table.len().to_string(),
            });
        }
        Ok(Self {
            table,
            channels: summary.channels,
            from,
        })
    }

    /// Number of pictures, at least 1.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Always false, because a split has pictures.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of a picture.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len). This holds for all methods with an index.
    pub fn label(&self, index: usize) -> u32 {
        self.table.label(index)
    }

    /// The file of a picture, relative to the set's folder, or its place in a file.
    pub fn name(&self, index: usize) -> &str {
        self.table.name(index)
    }

    /// A hash of the pixels of a picture.
    pub fn content_hash(&self, index: usize) -> [u8; 32] {
        self.table.record(index).content
    }

    /// A picture.
    ///
    /// # Errors
    /// Its file is missing, has changed or cannot be read. Packed pixels cause no error.
    pub fn picture(&self, index: usize) -> Result<Picture> {
        let record = self.table.record(index);
        let (width, height) = (record.width as usize, record.height as usize);
        match &self.from {
            From::Packed(map) => {
                let start = record.start as usize;
                let pixels = map[start..start + record.bytes as usize].to_vec();
                Ok(Picture::from_parts(width, height, self.channels, pixels))
            }
            From::Files { root, decode } => self.read(&root.join(&record.name), &record, decode),
        }
    }

    fn read(&self, path: &Path, record: &Record, options: &DecodeOptions) -> Result<Picture> {
        let unreadable = |reason| Error::Picture {
            location: path.display().to_string(),
            reason,
        };
        let changed = |expected: String, got: String| Error::Changed {
            path: path.to_owned(),
            expected,
            got,
        };
        let bytes = read_file(path).map_err(unreadable)?;
        if bytes.len() as u64 != record.bytes {
            return Err(changed(
                format!("{} bytes", record.bytes),
                bytes.len().to_string(),
            ));
        }
        let (expected, got) = (blake3::Hash::from_bytes(record.file), blake3::hash(&bytes));
        if expected != got {
            return Err(changed(
                expected.to_hex().to_string(),
                got.to_hex().to_string(),
            ));
        }
        let picture = decode(&bytes, options).map_err(unreadable)?;
        Ok(picture.into_channels(self.channels))
    }
}

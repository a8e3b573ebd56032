//! The sources of pictures and their classes.
//!
//! | source | what |
//! |---|---|
//! | a folder | a folder per class, its pictures in it or below it; or folders `train`, `val` (`valid`, `validation`) and `test` of such folders |
//! | IDX | the format of MNIST and Fashion-MNIST, also gzipped: a folder of `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same of `t10k`, or one file of images |
//! | CIFAR | the binary versions of CIFAR-10 and CIFAR-100 |
//!
//! Classes come from the training pictures, in byte order of their folders' names, or from a class map. Folders of other classes
//! are an error; beside a class map they are left out, with a note.

mod cifar;
mod class_map;
mod folder;
pub mod fractals;
mod idx;

pub use folder::{Listed, list};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::decode::{DecodeOptions, Unreadable, check_size, decode, file_dimensions, read_file};
use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::split::Split;
use crate::text::shown;
use fractals::System;

/// Most classes of a dataset.
pub const MAX_CLASSES: usize = 65_535;

/// A list of pictures with their classes, which are not decoded.
#[derive(Debug)]
pub struct Source {
    /// A description for messages and summaries.
    pub(crate) location: String,
    /// The folder to which the names of files are relative, if the pictures are files.
    pub(crate) root: Option<PathBuf>,
    /// Default number of channels of the pictures.
    pub(crate) channels: usize,
    pub(crate) classes: Vec<String>,
    pub(crate) parts: Vec<Part>,
    /// Notes for the user.
    pub(crate) notes: Vec<String>,
    /// Files that are counted as unreadable without being opened.
    pub(crate) unreadable: Vec<(String, Unreadable)>,
}

/// The pictures of a split of the source; the training split may later be divided by hash.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) split: Split,
    pub(crate) items: Vec<Item>,
}

#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) label: u32,
    /// The file relative to the root, or a place in a file.
    pub(crate) name: String,
    pub(crate) data: Data,
}

/// The place of the pixels of an item.
#[derive(Debug)]
pub(crate) enum Data {
    /// The file `name` of the root.
    File,
    /// An entry of a block of pictures of one shape.
    Block { block: Arc<Block>, index: usize },
    /// The pixels are computed.
    Fractal {
        systems: Arc<Vec<System>>,
        seed: u64,
        number: u64,
        side: usize,
    },
}

/// Pictures of one shape, one after the other.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) bytes: Vec<u8>,
    /// Bytes before the pixels of each picture.
    pub(crate) before: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    /// `[channels, height, width]` instead of `[height, width, channels]`.
    pub(crate) is_planar: bool,
}

impl Block {
    fn picture(&self, index: usize) -> Option<Picture> {
        let (width, height, channels) = (self.width, self.height, self.channels);
        let plane = width * height;
        let start = index * (self.before + plane * channels) + self.before;
        let pixels = self.bytes.get(start..start + plane * channels)?;
        Some(match self.is_planar {
            true => Picture::from_fn((width, height, channels), |x, y, channel| {
                pixels[channel * plane + y * width + x]
            }),
            false => Picture::from_parts(width, height, channels, pixels.to_vec()),
        })
    }
}

/// A picture that was read.
pub(crate) struct Loaded {
    pub(crate) picture: Picture,
    /// Size and hash of its file, if each picture is a file.
    pub(crate) file: Option<(u64, [u8; 32])>,
}

/// The classes that the pictures of a set may have.
#[derive(Debug, Clone, Copy)]
enum Classes<'a> {
    /// Its own.
    Own,
    /// The classes of the pictures to train on; other classes are an error.
    Trained(&'a [String]),
    /// The classes of the user's class map; other classes are left out.
    Map(&'a [String]),
}

impl<'a> Classes<'a> {
    /// Their names by number, if they are known.
    fn names(self) -> Option<&'a [String]> {
        match self {
            Self::Own => None,
            Self::Trained(names) | Self::Map(names) => Some(names),
        }
    }
}

/// Optional parts of a source.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// Validation pictures.
    pub valid: Option<PathBuf>,
    /// Test pictures.
    pub test: Option<PathBuf>,
    /// A text file with one class per line, in the order of class numbers.
    pub class_map: Option<PathBuf>,
}

impl Source {
    /// Lists the pictures at `path`, a folder or a file.
    ///
    /// # Errors
    /// There is no known kind of source, the classes do not match, or a file of an IDX or CIFAR set is damaged.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Self> {
        let class_map = options
            .class_map
            .as_deref()
            .map(class_map::read)
            .transpose()?;
        let classes = class_map.as_deref().map_or(Classes::Own, Classes::Map);
        let mut source = Self::open_one(path, Split::Train, classes)?;
        let others = [(&options.valid, Split::Valid), (&options.test, Split::Test)];
        for (path, split) in others {
            let Some(path) = path else { continue };
            source.join(path, split, class_map.as_deref())?;
        }
        let found: usize = source.parts.iter().map(|part| part.items.len()).sum();
        if found == 0 {
            return Err(Error::Source {
                location: source.location,
                problem: "no pictures",
                expected: "JPEG, PNG or WebP files in a folder for each class".into(),
                got: "none".into(),
                help: "check that this is the folder you mean".into(),
            });
        }
        Ok(source)
    }

    /// The set at a path; a folder without splits, or with a single one, has the pictures of `split`.
    fn open_one(path: &Path, split: Split, classes: Classes<'_>) -> Result<Self> {
        std::fs::metadata(path).map_err(Error::io("read", path))?;
        if let Some(files) = idx::find(path)? {
            return idx::open(path, files, classes.names());
        }
        if let Some(files) = cifar::find(path)? {
            return cifar::open(path, &files, classes.names());
        }
        if !path.is_dir() {
            return Err(Error::Source {
                location: path.display().to_string(),
                problem: "not a set of pictures",
                expected: "a folder of class folders, or an IDX or CIFAR file".into(),
                got: "a file of another kind".into(),
                help: "name the folder that holds a folder for each class".into(),
            });
        }
        folder::open(path, split, classes)
    }

    /// Adds the pictures at another path as `split`; the classes stay those of the training pictures.
    fn join(&mut self, path: &Path, split: Split, class_map: Option<&[String]>) -> Result<()> {
        let invalid = |problem, expected: String, got: String| {
            Error::Source {
            location: path.display().to_string(),
            problem,
            expected,
            got,
            help: "classes are those of the training pictures; give the same folders, or a --class-map".into(),
        }
        };
        if self.has(split) {
            let expected = format!("pictures for {} named once", split.name());
            let got = format!("they are in {} too", self.location);
            return Err(invalid("two sets for one split", expected, got));
        }
        let classes = class_map.map_or(Classes::Trained(&self.classes), Classes::Map);
        let mut other = Self::open_one(path, split, classes)?;
        if self.root.is_some() != other.root.is_some() || self.channels != other.channels {
            let expected = format!("the kind of {}", self.location);
            return Err(invalid("another kind of set", expected, "another".into()));
        }
        if let (Some(mine), Some(theirs)) = (&self.root, &other.root) {
            let (root, [below, other_below]) = folder::common_root(mine, theirs)?;
            self.put_below(&below);
            other.put_below(&other_below);
            self.root = Some(root);
        }
        let [part]: [Part; 1] = other.parts.try_into().map_err(|parts: Vec<Part>| {
            invalid("more than one split", "one".into(), parts.len().to_string())
        })?;
        self.parts.push(Part { split, ..part });
        self.unreadable.extend(other.unreadable);
        // Each of both sources has its notes on folders and files.
        let place = shown(&path.display().to_string());
        let notes = other.notes.into_iter();
        self.notes
            .extend(notes.map(|note| format!("{place}: {note}")));
        Ok(())
    }

    /// Puts folders in front of the names of all files, read or not.
    fn put_below(&mut self, folders: &str) {
        let items = self.parts.iter_mut().flat_map(|part| &mut part.items);
        let items = items.map(|item| &mut item.name);
        let unreadable = self.unreadable.iter_mut().map(|(name, _)| name);
        items
            .chain(unreadable)
            .for_each(|name| name.insert_str(0, folders));
    }

    /// Width and height of an item, which is not decoded for it; `None` if its file has none, since it is no picture then.
    pub(crate) fn dimensions(&self, item: &Item) -> Option<(usize, usize)> {
        match &item.data {
            Data::File => file_dimensions(&self.path(item)),
            Data::Block { block, .. } => Some((block.width, block.height)),
            Data::Fractal { side, .. } => Some((*side, *side)),
        }
    }

    /// The file of an item that is one.
    fn path(&self, item: &Item) -> PathBuf {
        let root = self.root.as_deref().unwrap_or(Path::new("."));
        root.join(&item.name)
    }

    /// Reads and decodes an item.
    pub(crate) fn load(&self, item: &Item, options: &DecodeOptions) -> Result<Loaded, Unreadable> {
        match &item.data {
            Data::File => {
                let bytes = read_file(&self.path(item))?;
                let hash = *blake3::hash(&bytes).as_bytes();
                Ok(Loaded {
                    picture: decode(&bytes, options)?,
                    file: Some((bytes.len() as u64, hash)),
                })
            }
            Data::Block { block, index } => {
                // Bytes of a block need not be those of its file, which may be compressed.
                check_size((block.width, block.height), options, u64::MAX)?;
                let missing = || Unreadable::new("a missing picture", "one more", "the end");
                Ok(Loaded {
                    picture: block.picture(*index).ok_or_else(missing)?,
                    file: None,
                })
            }
            Data::Fractal {
                systems,
                seed,
                number,
                side,
            } => {
                let missing = || Unreadable::new("no such class", "a class of the set", item.label);
                let system = systems.get(item.label as usize).ok_or_else(missing)?;
                Ok(Loaded {
                    picture: fractals::draw(system, *seed, item.label, *number, *side),
                    file: None,
                })
            }
        }
    }

    /// Every picture that is not in a file of its own, with its label.
    #[cfg(feature = "fuzzing")]
    pub fn each_picture(&self, mut see: impl FnMut(u32, Result<Picture, Unreadable>)) {
        for item in self.parts.iter().flat_map(|part| &part.items) {
            let loaded = self.load(item, &DecodeOptions::default());
            see(item.label, loaded.map(|loaded| loaded.picture));
        }
    }

    /// Whether it has pictures of its own for a split.
    pub fn has(&self, split: Split) -> bool {
        self.parts.iter().any(|part| part.split == split)
    }

    /// Names of the classes, by number.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }
}

/// Names for numbered classes: from the class map, `names`, or the numbers themselves.
fn named_classes(
    location: &str,
    count: usize,
    names: Option<Vec<String>>,
    class_map: Option<&[String]>,
) -> Result<Vec<String>> {
    let names = match class_map {
        Some(map) => map.to_vec(),
        None => names.unwrap_or_else(|| (0..count).map(|n| n.to_string()).collect()),
    };
    if names.len() < count {
        return Err(Error::Source {
            location: location.into(),
            problem: "a label without a class",
            expected: format!("labels below {}, the number of names", names.len()),
            got: format!("the label {}", count - 1),
            help: "give a name for each label, one a line, with --class-map".into(),
        });
    }
    Ok(names)
}

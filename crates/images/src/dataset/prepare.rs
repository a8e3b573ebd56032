//! Makes a dataset folder from a source.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tokenformer_store::DirWriter;

use super::gather::{Moments, Tally, Twins};
use super::summary::VERSION;
use super::table::{Record, TableWriter};
use super::{Skipped, Storage, Summary};
use crate::decode::{DecodeOptions, Unreadable};
use crate::error::{Error, Result};
use crate::layout::{KIND, file_names, is_image_dataset};
use crate::picture::Picture;
use crate::resize::{SIDES, reduce};
use crate::source::{Data, Item, Loaded, Source};
use crate::split::Split;

/// Options for making a dataset.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// The dataset folder to make.
    pub out: PathBuf,
    /// Whether to replace an existing dataset in `out`; default false.
    pub force: bool,
    /// Share of the training pictures for validation, above 0 and below 1, if there is no validation folder; default
    /// 0.05.
    pub valid_share: f64,
    /// Seed that decides which pictures these are; default 0.
    pub seed: u64,
    /// Share of the pictures that may be unreadable, 0 to 1; default 0.01.
    pub max_unreadable: f64,
    /// Where the pixels are stored; by default packed if no picture has more than 128 x 128 pixels.
    pub storage: Option<Storage>,
    /// 1 or 3; by default grey for IDX files and RGB for all others.
    pub channels: Option<usize>,
    /// Larger pictures are reduced to this short side, bicubic, and packed. Default: not reduced.
    pub resize: Option<usize>,
    /// How files are decoded.
    pub decode: DecodeOptions,
}

impl PrepareOptions {
    /// The defaults for a dataset in `out`.
    pub fn new(out: PathBuf) -> Self {
        Self {
            out,
            force: false,
            valid_share: 0.05,
            seed: 0,
            max_unreadable: 0.01,
            storage: None,
            channels: None,
            resize: None,
            decode: DecodeOptions::default(),
        }
    }

    fn check(&self) -> Result<()> {
        let error = |option, expected, got: String| {
            Err(Error::Option {
                option,
                expected,
                got,
            })
        };
        if !(self.valid_share > 0.0 && self.valid_share < 1.0) {
            return error(
                "--valid",
                "above 0 and below 1",
                self.valid_share.to_string(),
            );
        }
        if !(0.0..=1.0).contains(&self.max_unreadable) {
            return error(
                "--max-unreadable",
                "0 to 1",
                self.max_unreadable.to_string(),
            );
        }
        match self.resize {
            Some(side) if !SIDES.contains(&side) => {
                return error("--resize", "1 to 65535 pixels", side.to_string());
            }
            Some(_) if self.storage == Some(Storage::Indexed) => {
                return error("--resize", "packed storage", "indexed".into());
            }
            _ => {}
        }
        match self.channels {
            None | Some(1 | 3) => Ok(()),
            Some(channels) => error("channels", "1 or 3", channels.to_string()),
        }
    }
}

/// The progress of a preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Pictures read.
    pub done: usize,
    /// Pictures found.
    pub total: usize,
}

/// Pictures with more pixels stay in their files by default.
const MOST_PACKED_PIXELS: usize = 128 * 128;
/// Most pictures that are decoded in parallel at a time.
const BATCH: usize = 64;
/// Most bytes of their pixels; a larger picture is decoded alone. Decoders need up to four times as much meanwhile.
const BATCH_BYTES: u64 = 256 << 20;

/// Reads, checks and hashes every picture of `source` and writes the dataset folder. A picture depends only on its file
/// and the options, and its split only on the picture and the seed, so any number of threads gives the same bytes.
///
/// # Errors
/// Options out of range, a folder in use, too many unreadable pictures, a split without pictures, file system errors.
pub fn prepare(
    source: &Source,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary> {
    options.check()?;
    check_free(&options.out, options.force)?;
    let storage = choose_storage(source, options)?;
    let mut writer = DirWriter::begin(&options.out, KIND)?;
    let channels = options.channels.unwrap_or(source.channels);
    let mut work = Work {
        source,
        options,
        storage,
        channels,
        given: source.parts.iter().map(|part| part.split).collect(),
        writers: Vec::new(),
        moments: Moments::new(channels),
        twins: Twins::default(),
        skipped: Vec::new(),
        found: source.unreadable.len()
            + source
                .parts
                .iter()
                .map(|part| part.items.len())
                .sum::<usize>(),
    };
    for (name, reason) in &source.unreadable {
        work.skip(name, reason)?;
    }
    work.run(&mut writer, progress)?;
    let summary = work.finish(&mut writer)?;
    writer.commit()?;
    Ok(summary)
}

fn check_free(out: &Path, force: bool) -> Result<()> {
    let used = |found: String, help| {
        Err(Error::OutputNotEmpty {
            path: out.to_owned(),
            found,
            help,
        })
    };
    match std::fs::read_dir(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("read", out)(error)),
        Ok(_) if is_image_dataset(out) => match force {
            true => Ok(()),
            false => used(
                "a dataset of pictures".into(),
                "replace it with --force, or choose another folder",
            ),
        },
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(entry) => {
                let entry = entry.map_err(Error::io("read", out))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                used(name, "choose another folder")
            }
        },
    }
}

fn choose_storage(source: &Source, options: &PrepareOptions) -> Result<Storage> {
    if options.resize.is_some() || source.root.is_none() {
        if options.storage == Some(Storage::Indexed) {
            return Err(Error::Option {
                option: "--storage",
                expected: "packed: these pictures are not files of their own",
                got: "indexed".into(),
            });
        }
        return Ok(Storage::Packed);
    }
    if let Some(storage) = options.storage {
        return Ok(storage);
    }
    // What has no size cannot be read, which is reported later.
    let is_large = |item: &Item| {
        let size = source.dimensions(item);
        size.is_some_and(|(width, height)| width.saturating_mul(height) > MOST_PACKED_PIXELS)
    };
    let items = source.parts.iter().flat_map(|part| &part.items);
    let items: Vec<&Item> = items
        .filter(|item| matches!(item.data, Data::File))
        .collect();
    Ok(match items.into_par_iter().any(is_large) {
        true => Storage::Indexed,
        false => Storage::Packed,
    })
}

/// What is kept of a picture that was read.
struct Ready {
    /// Width and height.
    sides: [usize; 2],
    pixel_bytes: u64,
    content: [u8; 32],
    file: Option<(u64, [u8; 32])>,
    moments: Moments,
    /// The picture itself, if pixels are packed.
    packed: Option<Picture>,
}

/// The files of a split while they are written.
struct SplitWriter {
    split: Split,
    table: TableWriter,
    tally: Tally,
    /// Path, file and bytes so far, if pixels are packed.
    pixels: Option<(PathBuf, BufWriter<File>, u64)>,
}

struct Work<'a> {
    source: &'a Source,
    options: &'a PrepareOptions,
    storage: Storage,
    channels: usize,
    /// Splits that the source already has.
    given: Vec<Split>,
    writers: Vec<SplitWriter>,
    moments: Moments,
    twins: Twins,
    skipped: Vec<Skipped>,
    found: usize,
}

impl Work<'_> {
    fn run(&mut self, writer: &mut DirWriter, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let splits = Split::ALL
            .into_iter()
            .filter(|split| *split != Split::Test || self.given.contains(split));
        for split in splits {
            self.writers.push(SplitWriter::begin(split, self, writer)?);
        }
        let mut parts: Vec<_> = self.source.parts.iter().collect();
        parts.sort_by_key(|part| part.split);
        let mut done = self.skipped.len();
        for part in parts {
            for items in part.items.chunks(BATCH) {
                let items: Vec<_> = (items.par_iter())
                    .map(|item| (item, self.decoded_bytes(item)))
                    .collect();
                for items in batches(&items) {
                    let ready: Vec<_> =
                        items.par_iter().map(|(item, _)| self.ready(item)).collect();
                    for ((item, _), ready) in items.iter().zip(ready) {
                        match ready {
                            Ok(ready) => self.keep(part.split, item, &ready)?,
                            Err(reason) => self.skip(&item.name, &reason)?,
                        }
                    }
                    done += items.len();
                    progress(Progress {
                        done,
                        total: self.found,
                    });
                }
            }
        }
        Ok(())
    }

    /// Bytes of the pixels of an item by its header, before it is reduced or made grey.
    fn decoded_bytes(&self, item: &Item) -> u64 {
        const MOST_CHANNELS: u64 = 3;
        let (width, height) = self.source.dimensions(item).unwrap_or_default();
        (width as u64)
            .saturating_mul(height as u64)
            .saturating_mul(MOST_CHANNELS)
    }

    fn ready(&self, item: &Item) -> Result<Ready, Unreadable> {
        let Loaded { picture, file } = self.source.load(item, &self.options.decode)?;
        let picture = picture.into_channels(self.channels);
        let picture = match self.options.resize {
            Some(side) => reduce(picture, side),
            None => picture,
        };
        Ok(Ready {
            sides: [picture.width(), picture.height()],
            pixel_bytes: picture.pixels().len() as u64,
            content: picture.content_hash(),
            file,
            moments: Moments::of(&picture),
            packed: (self.storage == Storage::Packed).then_some(picture),
        })
    }

    fn keep(&mut self, given: Split, item: &Item, ready: &Ready) -> Result<()> {
        let split = match given {
            Split::Train if self.validates(&ready.content) => Split::Valid,
            split => split,
        };
        if split == Split::Train {
            self.moments.add(&ready.moments);
        }
        self.twins.add(ready.content, split, item.label, &item.name);
        let missing = || Error::Option {
            option: "split",
            expected: "train, valid or test",
            got: split.name().into(),
        };
        let writer = self.writers.iter_mut().find(|writer| writer.split == split);
        writer.ok_or_else(missing)?.add(item, ready)
    }

    /// Whether a training picture goes to validation according to its hash. Equal pictures go to the same split,
    /// independent of the rest of the set.
    fn validates(&self, content: &[u8; 32]) -> bool {
        if self.given.contains(&Split::Valid) {
            return false;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.options.seed.to_le_bytes());
        hasher.update(content);
        let hash = hasher.finalize();
        let start: [u8; 8] = std::array::from_fn(|byte| hash.as_bytes()[byte]);
        let place = (u64::from_le_bytes(start) >> 11) as f64 / (1_u64 << 53) as f64;
        place < self.options.valid_share
    }

    fn skip(&mut self, name: &str, reason: &Unreadable) -> Result<()> {
        self.skipped.push(Skipped {
            name: name.to_owned(),
            reason: reason.to_string(),
        });
        let limit = (self.options.max_unreadable * self.found as f64) as usize;
        if self.skipped.len() <= limit {
            return Ok(());
        }
        let first = self.skipped.iter().take(10);
        Err(Error::TooManyUnreadable {
            location: self.source.location.clone(),
            found: self.found,
            limit,
            count: self.skipped.len(),
            first: first.map(|s| format!("{}: {}", s.name, s.reason)).collect(),
        })
    }

    fn finish(self, writer: &mut DirWriter) -> Result<Summary> {
        let mut splits = Vec::new();
        for split in self.writers {
            splits.push(split.finish(self.channels, writer)?);
        }
        if let Some(empty) = splits.iter().find(|split| split.images == 0) {
            return Err(Error::Source {
                location: self.source.location.clone(),
                problem: "a split without pictures",
                expected: format!("pictures for {}", empty.split.name()),
                got: format!("none of {}", self.found),
                help: "add pictures, or hold out another share with --valid SHARE".into(),
            });
        }
        let is_indexed = self.storage == Storage::Indexed;
        let root = self.source.root.as_deref().filter(|_| is_indexed);
        let root = root.map(|root| match root.to_str() {
            Some(root) => Ok(root.to_owned()),
            None => Err(Error::Source {
                location: root.display().to_string(),
                problem: "a folder name that is not UTF-8",
                expected: "UTF-8, since the dataset names the folder".into(),
                got: "other bytes".into(),
                help: "rename the folder, or pack the pictures with --storage packed".into(),
            }),
        });
        let root = root.transpose()?;
        let (mean, std) = self.moments.finish();
        let is_split_by_hash = !self.given.contains(&Split::Valid);
        let summary = Summary {
            version: VERSION,
            source: self.source.location.clone(),
            root,
            storage: self.storage,
            channels: self.channels,
            classes: self.source.classes.clone(),
            notes: notes(self.source, &splits),
            splits,
            mean,
            std,
            decode: self.options.decode,
            resized: self.options.resize,
            seed: self.options.seed,
            valid_share: is_split_by_hash.then_some(self.options.valid_share),
            found: self.found,
            skipped: self.skipped,
            duplicates: self.twins.finish(),
        };
        writer.write_json(file_names::SUMMARY, &summary)?;
        Ok(summary)
    }
}

/// Cuts items, each with the bytes of its pixels, into parts that may be in memory together.
fn batches<'i, 'a>(items: &'i [(&'a Item, u64)]) -> impl Iterator<Item = &'i [(&'a Item, u64)]> {
    let mut sum = items.first().map_or(0, |(_, bytes)| *bytes);
    items.chunk_by(move |_, (_, bytes)| {
        sum = sum.saturating_add(*bytes);
        let is_within = sum <= BATCH_BYTES;
        if !is_within {
            sum = *bytes;
        }
        is_within
    })
}

/// The source's notes, and notes on classes that are missing in a split.
fn notes(source: &Source, splits: &[super::SplitSummary]) -> Vec<String> {
    let mut notes = source.notes.clone();
    for split in splits {
        let empty = split.per_class.iter().filter(|&&count| count == 0).count();
        if empty > 0 {
            notes.push(format!(
                "{empty} classes have no picture in {}.",
                split.split.name()
            ));
        }
    }
    notes
}

impl SplitWriter {
    fn begin(split: Split, work: &Work<'_>, writer: &mut DirWriter) -> Result<Self> {
        let pixels = match work.storage {
            Storage::Indexed => None,
            Storage::Packed => {
                let path = writer.file(&file_names::pixels(split))?;
                let file = File::create(&path).map_err(Error::io("create", &path))?;
                Some((path, BufWriter::with_capacity(1 << 20, file), 0))
            }
        };
        Ok(Self {
            split,
            table: TableWriter::default(),
            tally: Tally::new(split, work.source.classes.len()),
            pixels,
        })
    }

    fn add(&mut self, item: &Item, ready: &Ready) -> Result<()> {
        self.tally.add(ready.sides, ready.pixel_bytes, item.label);
        let (start, bytes, file) = match (&mut self.pixels, &ready.packed) {
            (Some((path, writer, written)), Some(picture)) => {
                let start = *written;
                let pixels = picture.pixels();
                writer.write_all(pixels).map_err(Error::io("write", path))?;
                *written += pixels.len() as u64;
                (start, pixels.len() as u64, [0; 32])
            }
            _ => {
                let (bytes, hash) = ready.file.unwrap_or_default();
                (0, bytes, hash)
            }
        };
        self.table.push(&Record {
            label: item.label,
            width: ready.sides[0] as u32,
            height: ready.sides[1] as u32,
            name: item.name.clone(),
            start,
            bytes,
            content: ready.content,
            file,
        });
        Ok(())
    }

    fn finish(self, channels: usize, writer: &mut DirWriter) -> Result<super::SplitSummary> {
        if let Some((path, mut file, _)) = self.pixels {
            file.flush().map_err(Error::io("write", &path))?;
        }
        writer.write_bytes(&file_names::table(self.split), &self.table.finish(channels))?;
        Ok(self.tally.finish())
    }
}

//! The description of a dataset, in `images.json` and for the user.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::decode::DecodeOptions;
use crate::split::Split;

/// Version of `images.json` and the tables.
pub(crate) const VERSION: u32 = 1;

/// The storage of the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// The pixels are in the dataset, decoded.
    Packed,
    /// The pictures stay in their files.
    Indexed,
}

impl Storage {
    /// `packed` or `indexed`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Indexed => "indexed",
        }
    }
}

/// The description of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Version of the format.
    pub version: u32,
    /// The source of the pictures.
    pub source: String,
    /// The folder to which the names of an indexed dataset are relative.
    pub root: Option<String>,
    /// The storage of the pixels.
    pub storage: Storage,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Names of the classes, indexed by class.
    pub classes: Vec<String>,
    /// The splits, `train` first.
    pub splits: Vec<SplitSummary>,
    /// Mean of each channel over all training pixels, on the scale 0 to 1.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, on the same scale.
    pub std: Vec<f64>,
    /// How files were decoded; an indexed dataset decodes them with the same options.
    pub decode: DecodeOptions,
    /// Short side that larger pictures were reduced to, if any were.
    pub resized: Option<usize>,
    /// Seed that decided which training pictures are for validation, if there was no validation folder.
    pub seed: u64,
    /// Share of the training pictures for validation, if there was no validation folder.
    pub valid_share: Option<f64>,
    /// Number of pictures found, including unreadable ones.
    pub found: usize,
    /// Pictures that could not be read.
    pub skipped: Vec<Skipped>,
    /// Equal pictures.
    pub duplicates: Duplicates,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// The description of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSummary {
    /// The split.
    pub split: Split,
    /// Number of pictures.
    pub images: usize,
    /// Pictures of each class.
    pub per_class: Vec<usize>,
    /// Bytes of pixels, decoded.
    pub pixel_bytes: u64,
    /// Smallest width and smallest height, possibly of different pictures.
    pub smallest: [usize; 2],
    /// Largest width and largest height, possibly of different pictures.
    pub largest: [usize; 2],
}

/// A picture that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// The file.
    pub name: String,
    /// The reason.
    pub reason: String,
}

/// Pictures with the same pixels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Duplicates {
    /// Pictures that occurred earlier in the same split.
    pub within: usize,
    /// Pictures that are also in an earlier split, which is a leak.
    pub across: usize,
    /// The first of those, each with the picture that it equals.
    pub across_examples: Vec<[String; 2]>,
    /// Pictures that also occur in another class.
    pub other_class: usize,
}

impl Summary {
    /// The description of a split, if it exists.
    pub fn split(&self, split: Split) -> Option<&SplitSummary> {
        self.splits.iter().find(|s| s.split == split)
    }
}

/// Number of unreadable files that are printed; the file lists all of them.
const SHOWN: usize = 10;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} pictures of {} classes, {}",
            self.images(),
            self.classes.len(),
            self.storage.name()
        )?;
        for split in &self.splits {
            let [[small_w, small_h], [large_w, large_h]] = [split.smallest, split.largest];
            let size = match (small_w, small_h) == (large_w, large_h) {
                true => format!("{large_w} x {large_h}"),
                false => format!("{small_w} x {small_h} to {large_w} x {large_h}"),
            };
            writeln!(
                f,
                "  {:5} {:>9} of {size}",
                split.split.name(),
                split.images
            )?;
        }
        let list = |numbers: &[f64]| {
            let texts: Vec<String> = numbers.iter().map(|n| format!("{n:.4}")).collect();
            texts.join(" ")
        };
        writeln!(
            f,
            "  mean  {}, deviation {}",
            list(&self.mean),
            list(&self.std)
        )?;
        if !self.skipped.is_empty() {
            writeln!(
                f,
                "  {} of {} pictures could not be read:",
                self.skipped.len(),
                self.found
            )?;
            for skipped in self.skipped.iter().take(SHOWN) {
                writeln!(f, "    {}: {}", skipped.name, skipped.reason)?;
            }
            if self.skipped.len() > SHOWN {
                writeln!(
                    f,
                    "    and {} more, which images.json names",
                    self.skipped.len() - SHOWN
                )?;
            }
        }
        let Duplicates {
            within,
            across,
            other_class,
            ..
        } = self.duplicates;
        if within > 0 {
            writeln!(f, "  {within} pictures are in their split more than once")?;
        }
        if across > 0 {
            writeln!(
                f,
                "  {across} held-out pictures are in an earlier split, too: results on them say little"
            )?;
            for [held_out, first] in self.duplicates.across_examples.iter().take(SHOWN) {
                writeln!(f, "    {held_out} is {first}")?;
            }
        }
        if other_class > 0 {
            writeln!(f, "  {other_class} pictures are in another class, too")?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

impl Summary {
    fn images(&self) -> usize {
        self.splits.iter().map(|split| split.images).sum()
    }
}

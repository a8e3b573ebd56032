//! A dataset folder, which is published atomically and verified when it is read.
//!
//! | file | content |
//! |---|---|
//! | `images.json` | the [`Summary`]: classes, splits, mean and deviation, skipped pictures |
//! | `SPLIT.table` | a record per picture: label, size, hashes, name |
//! | `SPLIT.pixels` | the pixels of all pictures, if they are packed |
//! | `manifest.json` | sizes and hashes of all files |
//!
//! Small pictures are packed: they are decoded once and stored one after the other as bytes `[height, width,
//! channels]`. For large pictures the dataset is an index: the files stay where they are, and a file whose hash has
//! changed is an error.

mod gather;
mod prepare;
mod read;
mod summary;
mod table;

pub use prepare::{PrepareOptions, Progress, prepare};
pub use read::{ImageSet, Pictures};
pub use summary::{Duplicates, Skipped, Split, SplitSummary, Storage, Summary};

/// Names of the files in a dataset folder.
pub(crate) mod file_names {
    use super::Split;

    pub(crate) const SUMMARY: &str = "images.json";

    pub(crate) fn table(split: Split) -> String {
        format!("{}.table", split.name())
    }

    pub(crate) fn pixels(split: Split) -> String {
        format!("{}.pixels", split.name())
    }
}

/// The kind of a dataset folder in its manifest.
pub(crate) const KIND: &str = "images";

/// Whether a folder is a dataset of pictures, also an incomplete one.
pub fn is_image_dataset(dir: &std::path::Path) -> bool {
    dir.join(file_names::SUMMARY).is_file()
}

//! A dataset folder: written whole or not at all, read strictly.
//!
//! | file | content |
//! |---|---|
//! | `images.json` | the [`Summary`]: classes, splits, moments, what was left out |
//! | `SPLIT.table` | a record per picture: label, size, hashes, name |
//! | `SPLIT.pixels` | the pixels of all pictures, if they are packed |
//! | `manifest.json` | sizes and hashes of all files |
//!
//! Small pictures are packed: decoded once, `[height, width, channels]` of bytes, one after the other. Of large ones the
//! dataset is an index: the files stay where they are, and a file that is not the one seen here, by its hash, is an error.

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

/// What the manifest of a dataset folder says that it is.
pub(crate) const KIND: &str = "images";

/// Whether a folder is, or was meant as, a dataset of pictures.
pub fn is_image_dataset(dir: &std::path::Path) -> bool {
    dir.join(file_names::SUMMARY).is_file()
}

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

pub use crate::layout::is_image_dataset;
pub use prepare::{PrepareOptions, Progress, prepare};
pub(crate) use read::is_published;
pub use read::{ImageSet, Pictures};
pub use summary::{Duplicates, Skipped, SplitSummary, Storage, Summary};

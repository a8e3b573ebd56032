//! What a dataset folder looks like from outside.

use std::path::Path;

/// Names of the files in a dataset folder.
pub(crate) mod file_names {
    use crate::split::Split;

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

/// Whether a folder has the form of a dataset of pictures, also of a damaged one: [`ImageSet::open`](super::dataset::ImageSet::open)
/// says what is wrong with it. A folder of something else may look the same.
pub fn is_image_dataset(dir: &Path) -> bool {
    dir.join(file_names::SUMMARY).is_file()
}

//! From pictures to training batches.
//!
//! | module           | concern |
//! |------------------|---------|
//! | [`picture`]      | 8-bit pictures, grey or RGB |
//! | [`mod@decode`]   | JPEG, PNG and WebP, strictly, upright and in 8 bits |
//! | [`mod@resize`]   | Pillow's resampling, to the bit |
//! | [`augment`]      | random crops, flips, RandAugment, erasing, mixup and cutmix |
//! | [`preprocess`]   | what happens to every picture: size, crop, normalisation |
//! | [`preparation`]  | from a file to an input, as a model keeps it |
//! | [`source`]       | pictures and classes from folders, IDX and CIFAR files |
//! | [`fractals`]     | a coloured set out of a seed |
//! | [`fetch`]        | public sets out of package registries |
//! | [`dataset`]      | a dataset folder: written whole, read strictly |
//! | [`loader`]       | batches for a position, prepared ahead |
//!
//! Everything is deterministic: a sample is a function of dataset, recipe, seed and position, whatever the number of
//! workers, so the position is all that a resumed run needs.

pub mod augment;
pub mod dataset;
pub mod decode;
mod error;
pub mod fetch;
pub mod fractals;
pub mod loader;
pub mod picture;
pub mod preparation;
pub mod preprocess;
mod random;
pub mod resize;
pub mod source;

pub use augment::Augment;
pub use dataset::{ImageSet, PrepareOptions, Split, Storage, Summary, prepare};
pub use decode::{DecodeOptions, Unreadable, decode};
pub use error::{Error, Result};
pub use loader::{Batch, Loader, LoaderOptions, Target};
pub use picture::Picture;
pub use preparation::Preparation;
pub use preprocess::Preprocess;
pub use resize::{Filter, resize};
pub use source::Source;

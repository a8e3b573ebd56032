//! Prepares pictures as training batches.
//!
//! | module           | concern |
//! |------------------|---------|
//! | [`picture`]      | 8-bit pictures, grey or RGB |
//! | [`mod@decode`]   | strict decoding of JPEG, PNG and WebP to upright pictures of 8 bits |
//! | [`mod@resize`]   | Pillow's resampling, to the bit |
//! | [`augment`]      | random crops, flips, RandAugment, erasing, mixup and cutmix |
//! | [`preprocess`]   | preprocessing of every picture: size, crop, normalisation |
//! | [`preparation`]  | from a file to an input, as a model keeps it |
//! | [`source`]       | pictures and classes from folders, IDX and CIFAR files |
//! | [`source::fractals`] | a set of coloured fractals, computed from a seed |
//! | [`fetch`]        | public sets from package registries |
//! | [`dataset`]      | dataset folders: published atomically, verified when read |
//! | [`loader`]       | batches for a position, prefetched by workers |
//!
//! Everything is deterministic: a sample depends only on dataset, recipe, seed and position, not on the number of
//! workers, so a resumed run needs only the position.

pub mod augment;
pub mod dataset;
pub mod decode;
mod error;
pub mod fetch;
mod layout;
pub mod loader;
pub mod picture;
pub mod preparation;
pub mod preprocess;
mod random;
pub mod resize;
pub mod source;
mod split;
mod text;
mod transpose;
mod weighted;

pub use augment::Augment;
pub use dataset::{ImageSet, PrepareOptions, Storage, Summary, prepare};
pub use decode::{DecodeOptions, Unreadable, decode};
pub use error::{Error, Result};
pub use loader::{Batch, Loader, LoaderOptions, Target};
pub use picture::Picture;
pub use preparation::Preparation;
pub use preprocess::Preprocess;
pub use resize::{Filter, resize};
pub use source::{Source, fractals};
pub use split::Split;

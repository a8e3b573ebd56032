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
//!
//! ```
//! use tokenformer_images::fractals::{self, FractalOptions};
//! use tokenformer_images::{ImageSet, PrepareOptions, Preprocess, Split, prepare};
//!
//! let folder = tempfile::tempdir()?;
//! let few = FractalOptions { classes: 3, per_class: 8, test_per_class: 2, ..FractalOptions::default() };
//! prepare(&fractals::source(&few)?, &PrepareOptions::new(folder.path().join("set")), &mut |_| ())?;
//!
//! let set = ImageSet::open(&folder.path().join("set"))?;
//! let test = set.split(Split::Test).expect("every set of fractals has one");
//! let preprocess = Preprocess::small(28, vec![0.5; 3], vec![0.25; 3]);
//! let mut input = vec![0.0; preprocess.len()]; // [3, 28, 28]
//! preprocess.normalise(&preprocess.center(test.picture(0)?), &mut input);
//! assert!(input.iter().all(|value| (-2.0..=2.0).contains(value)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

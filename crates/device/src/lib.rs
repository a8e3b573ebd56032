//! The device interface: memory and operations on which the model, growth and training are built.
//!
//! A [`Device`] owns memory ([`Buffer`]s of numbers) and computes with it; code outside a device does not depend on how
//! it stores them. [`reference::Reference`] is the plain f64 device that defines the meaning of every operation and
//! that fast devices are tested against. A new device is another implementation of the trait, in a separate crate.
//!
//! ```
//! use tokenformer_device::{Device, Matmul, Operand, Output, Role, Write, reference::Reference};
//!
//! let device = Reference::new();
//! let x = device.alloc_from(vec![1.0, 2.0], Role::Activation)?; // [1, 2]
//! let w = device.alloc_from(vec![3.0, 4.0, 5.0, 6.0], Role::Weight)?; // [2, 2]
//! let mut y = device.alloc(2, Role::Activation)?;
//! let product = Matmul {
//!     a: Operand::rows(&x, 2),
//!     b: Operand::transposed(&w, 2),
//!     rows: 1,
//!     inner: 2,
//!     cols: 2,
//!     scale: 1.0,
//! };
//! device.matmul(product, Write::Replace, Output::rows(&mut y, 2))?;
//! let mut host = [0.0; 2];
//! device.read(&y, &mut host)?;
//! assert_eq!(host, [11.0, 17.0]);
//! # Ok::<(), tokenformer_device::DeviceError>(())
//! ```
//!
//! Axis letters: `R` rows (all tokens of a batch), `B` batch, `T` time, `D` width, `N` parameter tokens of
//! a site, `H` heads, `C` channels of a head, `V` classes of the output head (the vocabulary of a language model).
//! Shapes are contracts: an implementation may panic on a violation, which is an error of the caller and cannot be
//! caused by outside data.

mod buffer;
pub mod collective;
mod composed;
mod device;
mod divided;
mod error;
mod ops;
mod parts;
mod precision;
pub mod reference;
mod site;
mod temp;

pub use buffer::{Buffer, Handles};
pub use collective::{Collective, Done, Pending, Single};
pub use composed::Composed;
pub use device::{Device, FusedSite, Usage};
pub use divided::Divided;
pub use error::{DeviceError, Result};
pub use ops::{
    Adam, AdamStep, AttentionDims, CachedSequence, Head, KeptForNorm, LossGradient, Matmul,
    Operand, Output, PackedMatrix, Role, RotaryDims, RotaryTable, RowTargets, RowsToStore, Targets,
    Write, clip_factors,
};
pub use parts::ThetaInParts;
pub use precision::{Precision, UnknownPrecision, WeightFormat};
pub use site::{NormSpan, Segment, SegmentGradient, Site, SiteDims, SiteRef, Theta};
pub use temp::{SharedTemp, Temp};

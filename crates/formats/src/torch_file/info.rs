//! What is known of a tensor before its numbers are read.

use std::ops::Range;
use std::sync::Arc;

use super::{Archive, elements};
use crate::Dtype;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name; the dotted path if dicts are nested.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Steps between elements along each axis, in elements of the storage.
    pub stride: Vec<usize>,
    /// The storage that it is a view of; tensors may share one.
    pub storage: String,
    /// Its first element, in elements of the storage.
    pub offset: usize,
    /// Whether its numbers are the negatives of those in the storage.
    pub negated: bool,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        // This was checked when the tensor was listed.
        elements(&self.shape).unwrap_or(0)
    }
}

/// Consecutive elements in a file.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) archive: Arc<Archive>,
    pub(crate) range: Range<usize>,
}

/// The place of a tensor's elements.
#[derive(Clone)]
pub(crate) enum Source {
    /// The range from the first to the last element, including gaps between strides.
    View(Piece),
    /// Row-major, in several pieces, each of whole elements.
    Joined(Vec<Piece>),
}

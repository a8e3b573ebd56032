//! What arrays of a grown network start from.

use crate::path::SiteKind;

/// What an array starts from. The moments of all arrays that do not stay start from zero, and their updates are counted
/// from their creation. Names are those of the present network.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// An array of the present network, which stays where it is, with its moments, under another name.
    Kept {
        /// Its present name.
        of: String,
    },
    /// Zeros.
    Zero,
    /// Fresh numbers, as in a fresh model of the new configuration.
    Fresh,
    /// Normal numbers with the root mean square of arrays that exist.
    Matched {
        /// Their names.
        of: Vec<String>,
    },
    /// Normal numbers that give scores as large as those of a site.
    Scores {
        /// Number of its block.
        block: usize,
        /// Which layer of it.
        kind: SiteKind,
    },
    /// The numbers of an array of the same shape.
    Copy {
        /// Its name.
        of: String,
    },
    /// Rows that are repeated to the new width, times a factor.
    Repeat {
        /// Name of the array.
        of: String,
        /// The factor.
        factor: f64,
    },
    /// Copies of a matrix side by side, as many in a row and in a column as the new shape has room for. Those in a row
    /// add up to the old matrix, so that equal copies of an input give what the input gave.
    Split {
        /// Name of the matrix.
        of: String,
        /// How they share it.
        rule: Split,
    },
    /// The old array in the top left corner.
    Corner {
        /// Its name.
        of: String,
        /// Factor of its numbers.
        shrink: f64,
        /// Normal noise of this size in the whole array; without it, the rest is fresh.
        noise: Option<f64>,
    },
}

/// How copies of a matrix share its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Split {
    /// Evenly, and each with noise that cancels within a row, of this size relative to the numbers' root mean square.
    Noisy(f64),
    /// Two copies have the shares `a` and `1 − a`, with another `a` from `U(1/4, 3/4)` for each number.
    Uneven,
}

impl Origin {
    /// Names of the arrays whose numbers are needed.
    pub(super) fn sources(&self) -> &[String] {
        match self {
            Self::Kept { .. } | Self::Zero | Self::Fresh | Self::Scores { .. } => &[],
            Self::Matched { of } => of,
            Self::Copy { of }
            | Self::Repeat { of, .. }
            | Self::Split { of, .. }
            | Self::Corner { of, .. } => std::slice::from_ref(of),
        }
    }
}

//! Checks that the numbers that a model computed are finite.

use crate::error::{Error, Result};

/// Returns an error if one of the numbers is NaN or infinite, since other results of that model would be meaningless.
/// `what` names the number at an index, for the message.
///
/// # Errors
/// [`Error::NotFinite`].
pub fn ensure_finite(numbers: &[f32], what: impl FnOnce(usize) -> String) -> Result<()> {
    match numbers.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::NotFinite {
            what: what(at),
            got: f64::from(numbers[at]),
        }),
    }
}

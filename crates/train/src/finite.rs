//! Numbers that a model computed, before anybody relies on them.

use crate::error::{Error, Result};

/// Refuses numbers of which one is NaN or infinite: a model that computes such a thing has nothing to say. `what` names
/// the number at an index, for the message.
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

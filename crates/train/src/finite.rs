//! Checks that the numbers that a model computed are finite.

use crate::error::{Error, Result};
use crate::files::CHUNK;
use tokenformer_core::Model;

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

/// The first array of `model` with a number that is not finite, and that number.
///
/// # Errors
/// If the device fails.
pub(crate) fn not_finite(model: &Model) -> Result<Option<(String, f32)>> {
    let mut host = [0.0f32; CHUNK];
    for param in model.params() {
        for start in (0..param.len()).step_by(CHUNK) {
            let chunk = &mut host[..CHUNK.min(param.len() - start)];
            (model.device()).read_part(param.value(), start, chunk)?;
            if let Some(&bad) = chunk.iter().find(|x| !x.is_finite()) {
                return Ok(Some((param.name().into(), bad)));
            }
        }
    }
    Ok(None)
}

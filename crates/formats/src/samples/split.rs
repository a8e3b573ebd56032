//! Training, validation and test documents.

use std::ops::Range;

use crate::{Error, Result};

/// The documents of training, validation and test, from shares such as `969, 30, 1`.
///
/// Shares may be separated by commas or slashes; missing ones are 0.
///
/// # Errors
/// [`Error::Argument`] for text that is not a list of shares, or shares that round to a negative number of documents.
pub fn split_documents(split: &str, documents: usize) -> Result<[Range<usize>; 3]> {
    let refused = || Error::Argument {
        name: "split",
        expected: "up to three shares from 0, such as \"969, 30, 1\"".into(),
        got: crate::error::shown(split),
    };
    let separator = if split.contains(',') { ',' } else { '/' };
    let mut shares = [0.0f64; 3];
    for (share, part) in shares.iter_mut().zip(split.split(separator)) {
        *share = part.trim().parse().map_err(|_| refused())?;
    }
    let sum: f64 = shares.iter().sum();
    let valid = shares.iter().all(|&share| share >= 0.0) && sum > 0.0 && sum.is_finite();
    if !valid {
        return Err(refused());
    }
    let mut ends = [0i64; 3];
    let mut end = 0i64;
    for (slot, share) in ends.iter_mut().zip(shares) {
        // This is Python's `round`, which rounds halves to even.
        end += (share / sum * documents as f64).round_ties_even() as i64;
        *slot = end;
    }
    let surplus = end - documents as i64;
    let mut start = 0;
    let mut ranges = [0..0, 0..0, 0..0];
    for (range, end) in ranges.iter_mut().zip(ends) {
        let end = usize::try_from(end - surplus)
            .ok()
            .filter(|&end| end >= start && end <= documents)
            .ok_or_else(refused)?;
        *range = start..end;
        start = end;
    }
    Ok(ranges)
}

//! Mixtures of data sets.

use super::argument;
use crate::Result;

/// The number of samples to request from each data set for `samples` of their mixture: half a percent more than its
/// share.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for invalid weights.
pub fn blend_requests(weights: &[f64], samples: usize) -> Result<Vec<usize>> {
    let shares = shares(weights)?;
    Ok(shares
        .into_iter()
        .map(|share| (samples as f64 * share * 1.005).ceil() as usize)
        .collect())
}

/// A sample of a mixture: the data set and the index of the sample in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlendedSample {
    /// Index of the data set.
    pub part: u8,
    /// Index in that data set's order.
    pub sample: u32,
}

/// The order of `length` samples of a mixture: each comes from the data set that is furthest below its weight, the
/// first if several are equal. `length` is the sum of the data sets' lengths in GPT-NeoX.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for invalid weights, and for more than 255 data sets or 2³² samples.
pub fn blend(weights: &[f64], length: usize) -> Result<Vec<BlendedSample>> {
    let shares = shares(weights)?;
    if u32::try_from(length).is_err() {
        return Err(argument(
            "length",
            "at most 2^32 samples".into(),
            length.to_string(),
        ));
    }
    let mut taken = vec![0u32; shares.len()];
    let order = (0..length).map(|step| {
        let step = (step as f64).max(1.0);
        let mut most = (0u8, f64::NEG_INFINITY);
        for ((part, share), &taken) in (0u8..).zip(&shares).zip(&taken) {
            let lag = share * step - f64::from(taken);
            if lag > most.1 {
                most = (part, lag);
            }
        }
        let mut sample = 0;
        if let Some(taken) = taken.get_mut(usize::from(most.0)) {
            sample = *taken;
            *taken += 1;
        }
        BlendedSample {
            part: most.0,
            sample,
        }
    });
    Ok(order.collect())
}

fn shares(weights: &[f64]) -> Result<Vec<f64>> {
    let sum: f64 = weights.iter().sum();
    let valid = weights.iter().all(|&weight| weight >= 0.0) && sum > 0.0 && sum.is_finite();
    if !valid || weights.len() > usize::from(u8::MAX) {
        return Err(argument(
            "weights",
            "from 1 to 255 numbers from 0, not all of them 0".into(),
            format!("{} weights with the sum {sum}", weights.len()),
        ));
    }
    Ok(weights.iter().map(|weight| weight / sum).collect())
}

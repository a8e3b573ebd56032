//! `Θ` of rows whose scores are divided between several devices, each of which has other tokens of a site.

use crate::{Buffer, Result, SiteRef, Theta};

/// The steps of [`crate::Device::theta`] and of its gradient, split so that devices with different tokens can exchange what
/// they need of each other: one number per row and group of tokens forwards, and another one backwards.
///
/// A site here has the tokens of this device alone; a segment of it may be empty. Scores are `[R, N]`, statistics and projections
/// `[R, groups]`.
pub trait ThetaInParts {
    /// Statistics of the device's own scores: what [`crate::Device::theta`] would store of them. Those of all devices are put
    /// together by [`Theta::together`].
    ///
    /// # Errors
    /// If the device fails, as for every operation here.
    fn statistics(&self, site: &SiteRef<'_>, scores: &Buffer, stats: &mut Buffer) -> Result<()>;

    /// Replaces scores by weights, with the statistics of all devices' scores.
    ///
    /// # Errors
    /// As above.
    fn weights(&self, site: &SiteRef<'_>, stats: &Buffer, scores: &mut Buffer) -> Result<()>;

    /// Dot product of the gradient `d` `[R, N]` with the normalised direction, over this device's tokens. The norm's backward
    /// pass subtracts the sum over all devices.
    ///
    /// # Errors
    /// As above.
    fn projections(
        &self,
        site: &SiteRef<'_>,
        scores: &Buffer,
        stats: &Buffer,
        d: &Buffer,
        projections: &mut Buffer,
    ) -> Result<()>;

    /// Replaces scores by weights, and `d`, the gradient of the weights, by the gradient of the scores, with the statistics of all
    /// devices and the sum of their projections.
    ///
    /// # Errors
    /// As above.
    fn backward(
        &self,
        site: &SiteRef<'_>,
        stats: &Buffer,
        projections: &Buffer,
        scores: &mut Buffer,
        d: &mut Buffer,
    ) -> Result<()>;
}

impl Theta {
    /// The statistic of a row's group of tokens, from those of its parts on several devices.
    pub fn together(self, parts: impl Iterator<Item = f64> + Clone) -> f64 {
        match self {
            Self::L2NormGelu | Self::GeluL2Norm => {
                parts.map(|norm| norm * norm).sum::<f64>().sqrt()
            }
            Self::L1NormGelu => parts.sum(),
            Self::Softmax => {
                let largest = parts.clone().fold(f64::NEG_INFINITY, f64::max);
                largest + parts.map(|log| (log - largest).exp()).sum::<f64>().ln()
            }
            Self::Gelu => 0.0,
        }
    }
}

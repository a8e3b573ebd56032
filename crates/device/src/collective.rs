//! Operations of several processes together. [`Single`] is the collective of one process and costs nothing.

use crate::{Buffer, Device, Result};
use std::fmt;

/// Operations that every process (rank) of a job takes part in, in the same order. Reductions are sums. Buffers have
/// the same length on every rank and stay on their device.
pub trait Collective: Send + Sync + fmt::Debug {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world(&self) -> usize;

    /// Replaces every buffer by the sum of the ranks' buffers, added in the order of ranks. The buffers are passed one
    /// by one, so that an implementation can combine small ones into one message and send large ones in place.
    ///
    /// # Errors
    /// If a rank or the connection fails, as for every operation below.
    fn all_reduce(
        &self,
        device: &dyn Device,
        buffers: &mut dyn Iterator<Item = &mut Buffer>,
    ) -> Result<()>;

    /// Replaces `part`, of `1/world` of the length, by this rank's part of the sum of the ranks' `whole`.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn reduce_scatter(&self, device: &dyn Device, whole: &Buffer, part: &mut Buffer) -> Result<()>;

    /// Replaces `whole` by the parts of all ranks in the order of ranks.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn all_gather(&self, device: &dyn Device, part: &Buffer, whole: &mut Buffer) -> Result<()>;

    /// Replaces every rank's buffer by that of rank `root`.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn broadcast(&self, device: &dyn Device, root: usize, buffer: &mut Buffer) -> Result<()>;

    /// Sums numbers on the host, in the order of ranks: losses, counts.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn sum(&self, numbers: &mut [f64]) -> Result<()>;

    /// Waits for all ranks.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn barrier(&self) -> Result<()>;
}

/// The collective of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Single;

impl Collective for Single {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_reduce(
        &self,
        _device: &dyn Device,
        _buffers: &mut dyn Iterator<Item = &mut Buffer>,
    ) -> Result<()> {
        Ok(())
    }

    fn reduce_scatter(&self, device: &dyn Device, whole: &Buffer, part: &mut Buffer) -> Result<()> {
        device.copy(whole, part)
    }

    fn all_gather(&self, device: &dyn Device, part: &Buffer, whole: &mut Buffer) -> Result<()> {
        device.copy(part, whole)
    }

    fn broadcast(&self, _device: &dyn Device, _root: usize, _buffer: &mut Buffer) -> Result<()> {
        Ok(())
    }

    fn sum(&self, _numbers: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}

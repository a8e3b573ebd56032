//! Operations of several processes together. [`Single`] is the collective of one process and costs nothing.

use crate::{DeviceError, Result};
use std::fmt;

/// Operations that every process (rank) of a job takes part in, in the same order. Large ones are begun, go on while the
/// process computes, and are waited for later. They carry numbers of the host: a device's numbers are read before and written
/// after.
///
/// Nothing here rounds except [`Collective::begin_all_reduce`], whose bits may depend on the number of ranks. What must not depend on
/// it is gathered, and added up in a fixed order.
pub trait Collective: Send + Sync + fmt::Debug {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world(&self) -> usize;

    /// Ranks that share the memory of this machine, this one among them, as far as that is known.
    fn ranks_here(&self) -> usize {
        1
    }

    /// A rank as messages name it, with its machine and process where they are known.
    fn name(&self, rank: usize) -> String {
        format!("rank {rank}")
    }

    /// Begins to bring the numbers of all ranks to rank `root`: `lens[r]` numbers of rank `r`. There the result is all of them
    /// in the order of ranks, elsewhere nothing.
    ///
    /// # Errors
    /// If a rank or the connection fails, as for every operation below.
    fn begin_gather(
        &self,
        root: usize,
        numbers: Vec<f32>,
        lens: &[usize],
    ) -> Result<Box<dyn Pending>>;

    /// Begins to bring the numbers of rank `root` to all ranks; the others give as many of any value.
    ///
    /// # Errors
    /// As [`Collective::begin_gather`].
    fn begin_broadcast(&self, root: usize, numbers: Vec<f32>) -> Result<Box<dyn Pending>>;

    /// Begins to add up the numbers of all ranks, as fast as possible. The order of the additions, and with it the last bits,
    /// may depend on the number of ranks; all ranks get the same bits.
    ///
    /// # Errors
    /// As [`Collective::begin_gather`].
    fn begin_all_reduce(&self, numbers: Vec<f32>) -> Result<Box<dyn Pending>>;

    /// Adds up a few numbers of all ranks, such as counts. Sums that are exact do not depend on the number of ranks: of whole
    /// numbers, and of slots that all ranks but one leave at zero.
    ///
    /// # Errors
    /// As [`Collective::begin_gather`].
    fn all_reduce(&self, numbers: &mut [f64]) -> Result<()>;

    /// Waits for all ranks, and tells whether any of them says so.
    ///
    /// # Errors
    /// As [`Collective::begin_gather`].
    fn any(&self, says: bool) -> Result<bool> {
        let mut said = [f64::from(u8::from(says))];
        self.all_reduce(&mut said)?;
        Ok(said != [0.0])
    }

    /// Brings bytes of rank 0 to all ranks, of any length.
    ///
    /// # Errors
    /// As [`Collective::begin_gather`].
    fn broadcast_bytes(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let mut len = [if self.rank() == 0 {
            bytes.len() as f64
        } else {
            0.0
        }];
        self.all_reduce(&mut len)?;
        // A length in memory is far below the numbers that f64 cannot hold exactly.
        let len = len[0] as usize;
        // Every byte as a whole number, which every transport keeps.
        let mut numbers: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte)).collect();
        numbers.resize(len, 0.0);
        let numbers = self.begin_broadcast(0, numbers)?.wait()?;
        Ok(numbers.into_iter().map(|number| number as u8).collect())
    }
}

/// An operation that was begun.
pub trait Pending: Send {
    /// Tests whether it is done; the call also drives it where the transport needs that.
    ///
    /// # Errors
    /// As [`Collective::begin_gather`].
    fn is_done(&mut self) -> Result<bool>;

    /// Waits for it, and returns its result.
    ///
    /// # Errors
    /// As [`Collective::begin_gather`].
    fn wait(self: Box<Self>) -> Result<Vec<f32>>;
}

/// An operation that is done.
#[derive(Debug)]
pub struct Done(pub Vec<f32>);

impl Pending for Done {
    fn is_done(&mut self) -> Result<bool> {
        Ok(true)
    }

    fn wait(self: Box<Self>) -> Result<Vec<f32>> {
        Ok(self.0)
    }
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

    fn begin_gather(
        &self,
        root: usize,
        numbers: Vec<f32>,
        lens: &[usize],
    ) -> Result<Box<dyn Pending>> {
        match (root, lens) {
            (0, [len]) if *len == numbers.len() => Ok(Box::new(Done(numbers))),
            _ => Err(DeviceError::Failed {
                device: "one process".into(),
                operation: "gathering".into(),
                reason: format!("there is no rank but 0, with {} numbers", numbers.len()),
            }),
        }
    }

    fn begin_broadcast(&self, _root: usize, numbers: Vec<f32>) -> Result<Box<dyn Pending>> {
        Ok(Box::new(Done(numbers)))
    }

    fn begin_all_reduce(&self, numbers: Vec<f32>) -> Result<Box<dyn Pending>> {
        Ok(Box::new(Done(numbers)))
    }

    fn all_reduce(&self, _numbers: &mut [f64]) -> Result<()> {
        Ok(())
    }
}

//! Operations that were begun, with the memory that MPI reads and writes meanwhile.

use super::calls::{Calls, Id};
use super::{Connection, failed};
use crate::error::Result;
use std::ffi::c_int;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokenformer_device as device;
use tokenformer_device::Pending;

/// The memory of an operation.
#[derive(Debug, Default)]
pub struct Buffers {
    pub send: Vec<f32>,
    /// The result.
    pub receive: Vec<f32>,
    pub doubles: Vec<f64>,
    /// Numbers of each rank, and where they begin in `receive`.
    pub counts: Vec<c_int>,
    pub at: Vec<c_int>,
}

impl Buffers {
    pub fn sending(send: Vec<f32>) -> Self {
        Self {
            send,
            ..Self::default()
        }
    }

    pub fn in_place(receive: Vec<f32>) -> Self {
        Self {
            receive,
            ..Self::default()
        }
    }

    /// `lens[r]` numbers of rank `r` are received, which together fit into MPI's counts.
    pub fn receiving(send: Vec<f32>, lens: &[usize]) -> Self {
        let mut at = 0;
        let starts = lens.iter().map(|&len| {
            at += len as c_int;
            at - len as c_int
        });
        let starts = starts.collect();
        Self {
            send,
            receive: vec![0.0; lens.iter().sum()],
            doubles: Vec::new(),
            counts: lens.iter().map(|&len| len as c_int).collect(),
            at: starts,
        }
    }
}

/// An operation that was begun. It owns its memory, whose address does not change before the operation is done: moving a vector
/// does not move its elements.
pub struct Request {
    connection: &'static Connection,
    id: Id,
    buffers: Buffers,
    is_done: bool,
}

impl Request {
    /// Begins an operation on `buffers`.
    pub fn begin(
        connection: &'static Connection,
        mut buffers: Buffers,
        begin: impl Fn(&Calls, &mut Buffers) -> Result<Id>,
    ) -> Result<Self> {
        let id = begin(&connection.calls, &mut buffers)?;
        connection.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            connection,
            id,
            buffers,
            is_done: false,
        })
    }

    fn ask(&mut self) -> device::Result<bool> {
        if !self.is_done {
            if let Some(reason) = self.connection.lost.get() {
                return Err(failed("waiting for the other ranks", reason.clone()));
            }
            let done = self.connection.calls.is_done(self.id);
            self.is_done =
                done.map_err(|error| failed("waiting for the other ranks", error.to_string()))?;
            if self.is_done {
                self.connection.in_flight.fetch_sub(1, Ordering::Relaxed);
            }
        }
        Ok(self.is_done)
    }

    /// Waits for the operation, and returns its memory.
    pub fn finish(mut self) -> device::Result<Buffers> {
        let mut patience = Patience::default();
        while !self.ask()? {
            patience.wait();
        }
        Ok(std::mem::take(&mut self.buffers))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.is_done {
            // MPI may still write to the memory: it is lost, because the job ends with an error.
            std::mem::forget(std::mem::take(&mut self.buffers));
        }
    }
}

impl Pending for Request {
    fn is_done(&mut self) -> device::Result<bool> {
        self.ask()
    }

    fn wait(self: Box<Self>) -> device::Result<Vec<f32>> {
        Ok(self.finish()?.receive)
    }
}

/// Waits for longer and longer, so that a rank which waits for long leaves the processor to others.
#[derive(Default)]
struct Patience {
    rounds: u32,
}

impl Patience {
    fn wait(&mut self) {
        const SPINS: u32 = 50;
        const YIELDS: u32 = 500;
        self.rounds += 1;
        match self.rounds {
            ..SPINS => std::hint::spin_loop(),
            SPINS..YIELDS => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(100)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_ranks_lie_one_after_the_other() {
        let buffers = Buffers::receiving(vec![1.0; 2], &[3, 0, 2]);
        assert_eq!(buffers.counts, [3, 0, 2]);
        assert_eq!(buffers.at, [0, 3, 3]);
        assert_eq!(buffers.receive.len(), 5);
    }
}

//! A GPU that is not there: memory is counted and nothing is computed. Runs are planned on it.

use crate::gpu::{Address, Gemm, Gpu, GpuError, Launch, Memory, Result, WORKSPACE_BYTES};
use std::sync::Mutex;
use std::sync::PoisonError;

/// Counts the memory of a GPU of some size.
#[derive(Debug)]
pub struct Planned {
    name: String,
    total: usize,
    segment_bytes: usize,
    scratch_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    used: usize,
    next: u64,
}

impl Planned {
    /// A GPU of this many bytes; the workspace of cuBLASLt takes some of them.
    pub fn new(name: impl Into<String>, total: usize) -> Self {
        Self {
            name: name.into(),
            total,
            segment_bytes: 32 << 20,
            scratch_bytes: WORKSPACE_BYTES,
            state: Mutex::new(State { used: 0, next: 256 }),
        }
    }

    /// A stand-in for another GPU. Its memory has no end: a plan says what a run needs also where that does not fit.
    pub fn of(gpu: &dyn Gpu) -> Self {
        Self {
            segment_bytes: gpu.segment_bytes(),
            scratch_bytes: gpu.scratch_bytes(),
            ..Self::new(gpu.describe(), usize::MAX / 2)
        }
    }
}

impl Gpu for Planned {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn alloc(&self, bytes: usize) -> Result<Address> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let used = state
            .used
            .checked_add(bytes)
            .filter(|used| *used <= self.total);
        state.used = used.ok_or(GpuError::OutOfMemory { bytes })?;
        let at = state.next;
        state.next += (bytes as u64).next_multiple_of(256);
        Ok(Address(at))
    }

    unsafe fn free(&self, _at: Address, bytes: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.used -= bytes;
    }

    unsafe fn upload(&self, _from: &[u8], _to: Address) -> Result<()> {
        Ok(())
    }

    unsafe fn download(&self, _from: Address, to: &mut [u8]) -> Result<()> {
        to.fill(0);
        Ok(())
    }

    unsafe fn copy(&self, _from: Address, _to: Address, _bytes: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn zero(&self, _at: Address, _bytes: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        launch.check()
    }

    unsafe fn gemm(&self, _gemm: &Gemm) -> Result<()> {
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Result<Memory> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Memory {
            free: (self.total - state.used).saturating_sub(self.scratch_bytes),
            total: self.total,
        })
    }

    fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }
}

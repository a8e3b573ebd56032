//! Memory of temporaries: segments of the GPU's memory, cut into blocks. Work runs in the order of the calls, so a block
//! that was returned can be used by the next operation at once.

use crate::gpu::{Address, Gpu, GpuError, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sizes of blocks are multiples of this, so that every block begins where vectors of 16 bytes may.
const GRAIN: usize = 256;

/// Blocks of temporary memory.
#[derive(Debug)]
pub(super) struct Pool {
    gpu: Arc<dyn Gpu>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    segments: Vec<Segment>,
    in_use: usize,
    reserved: usize,
}

/// Memory of the GPU, and its free parts: bytes by first byte.
#[derive(Debug)]
struct Segment {
    at: Address,
    bytes: usize,
    free: BTreeMap<usize, usize>,
}

impl Segment {
    /// The smallest free part that holds `bytes`: its bytes and its first byte.
    fn best(&self, bytes: usize) -> Option<(usize, usize)> {
        let fits = self.free.iter().filter(|(_, size)| **size >= bytes);
        fits.map(|(first, size)| (*size, *first)).min()
    }

    fn take(&mut self, first: usize, bytes: usize) -> Address {
        if let Some(size) = self.free.remove(&first)
            && size > bytes
        {
            self.free.insert(first + bytes, size - bytes);
        }
        self.at.plus(first)
    }

    /// Returns a part, and joins it with the free parts before and after it.
    fn give(&mut self, mut first: usize, mut bytes: usize) {
        if let Some(next) = self.free.remove(&(first + bytes)) {
            bytes += next;
        }
        if let Some((&before, &size)) = self.free.range(..first).next_back()
            && before + size == first
        {
            self.free.remove(&before);
            (first, bytes) = (before, bytes + size);
        }
        self.free.insert(first, bytes);
    }

    fn is_free(&self) -> bool {
        self.free.get(&0) == Some(&self.bytes)
    }
}

/// A block of temporary memory, which returns to its pool when it is dropped.
#[derive(Debug)]
pub(super) struct Block {
    pool: Arc<Pool>,
    at: Address,
    /// Bytes as requested.
    bytes: usize,
}

impl Block {
    pub fn at(&self) -> Address {
        self.at
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.give(self.at, self.bytes);
    }
}

impl Pool {
    pub fn new(gpu: Arc<dyn Gpu>) -> Arc<Self> {
        Arc::new(Self {
            gpu,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in blocks, and bytes of all segments.
    pub fn usage(&self) -> [usize; 2] {
        let state = self.state();
        [state.in_use, state.reserved]
    }

    /// Bytes of segments that hold no blocks; [`Pool::trim`] returns them to the GPU.
    pub fn free_bytes(&self) -> usize {
        let state = self.state();
        let free = state.segments.iter().filter(|segment| segment.is_free());
        free.map(|segment| segment.bytes).sum()
    }

    /// The size of the part that holds a block: a GPU without segments gives every block memory of its exact size, so
    /// that writes beyond its end are noticed.
    fn part(&self, bytes: usize) -> Result<usize> {
        match self.gpu.segment_bytes() {
            0 => Ok(bytes),
            _ => (bytes.checked_next_multiple_of(GRAIN)).ok_or(GpuError::OutOfMemory { bytes }),
        }
    }

    /// A block of `bytes > 0` bytes.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Result<Block> {
        let part = self.part(bytes)?;
        let mut state = self.state();
        let best = state.segments.iter().enumerate();
        let best = best
            .filter_map(|(i, segment)| Some((segment.best(part)?, i)))
            .min();
        let at = match best {
            Some(((_, first), i)) => state.segments[i].take(first, part),
            None => self.extend(&mut state, part)?.take(0, part),
        };
        state.in_use += part;
        drop(state);
        // SAFETY: the block has at least this many bytes, and nothing uses it yet.
        unsafe { self.gpu.discard(at, bytes) };
        let pool = Arc::clone(self);
        Ok(Block { pool, at, bytes })
    }

    /// A new segment that holds at least `part` bytes. If there is no memory for it, free segments are returned first.
    fn extend<'s>(&self, state: &'s mut State, part: usize) -> Result<&'s mut Segment> {
        let wanted = part.max(self.gpu.segment_bytes());
        let (at, bytes) = match self.gpu.alloc(wanted) {
            Ok(at) => (at, wanted),
            Err(GpuError::OutOfMemory { .. }) => {
                self.return_free(state);
                (self.gpu.alloc(part)?, part)
            }
            Err(other) => return Err(other),
        };
        state.reserved += bytes;
        let free = BTreeMap::from([(0, bytes)]);
        state.segments.push(Segment { at, bytes, free });
        let last = state.segments.len() - 1;
        Ok(&mut state.segments[last])
    }

    fn give(&self, at: Address, bytes: usize) {
        let mut state = self.state();
        // The size was valid when the block was made.
        let part = self.part(bytes).unwrap_or(bytes);
        state.in_use -= part;
        let holds = |s: &Segment| (s.at.0..s.at.0 + s.bytes as u64).contains(&at.0);
        if let Some(segment) = state.segments.iter_mut().find(|s| holds(s)) {
            let first = (at.0 - segment.at.0) as usize;
            segment.give(first, part);
        }
        if self.gpu.segment_bytes() == 0 {
            self.return_free(&mut state);
        }
    }

    fn return_free(&self, state: &mut State) {
        let (free, kept) = state.segments.drain(..).partition(Segment::is_free);
        state.segments = kept;
        let free: Vec<Segment> = free;
        for segment in free {
            state.reserved -= segment.bytes;
            // SAFETY: the segment was allocated with this size, and no block lies in it.
            unsafe { self.gpu.free(segment.at, segment.bytes) };
        }
    }

    /// Returns the memory of segments without blocks to the GPU.
    pub fn trim(&self) {
        self.return_free(&mut self.state());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.trim();
    }
}

//! Memory for temporaries of a step: activations, gradients, scratch memory of kernels.
//!
//! All of it is cut from a few large slabs. A freed region is merged with its free neighbours, so its memory can serve
//! buffers of any other length. A slab initially takes only address space; memory is taken when it is written. The
//! arena therefore uses the smallest hole that fits, and the lowest of equal ones. After its first step a training run
//! allocates nothing more from the system.
//!
//! Huge pages are requested from Linux: with them, reading weights in order is up to 1.25 times as fast (`LOG.md`).

use crate::line::Line;
use memmap2::{MmapMut, MmapRaw};
use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Alignment of every region in floats: a cache line.
const ALIGN: usize = 16;

/// Floats of the first slab. Untouched address space costs nothing on systems that allocate memory page by page when it
/// is written; other systems get small slabs.
const SLAB: usize = if cfg!(all(unix, target_pointer_width = "64")) {
    1 << 30
} else {
    16 << 20
};

/// Owned, zeroed floats, aligned to a page. They take memory only when they are written.
pub struct Zeroed {
    /// Holds at least one float, because a map cannot be empty.
    map: MmapRaw,
    len: usize,
}

impl Zeroed {
    /// `len` zeros; `None` if the system has no memory left.
    pub fn new(len: usize) -> Option<Self> {
        let layout = Layout::array::<f32>(len.max(1)).ok()?;
        let map = MmapMut::map_anon(layout.size()).ok()?;
        // Best effort: ask for huge pages.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Some(Self {
            map: map.into(),
            len,
        })
    }

    fn first(&self) -> *mut f32 {
        self.map.as_mut_ptr().cast()
    }
}

impl Deref for Zeroed {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the map holds `len` floats, starts at a page, and all bytes are floats.
        unsafe { std::slice::from_raw_parts(self.first(), self.len) }
    }
}

impl DerefMut for Zeroed {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and access is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.first(), self.len) }
    }
}

/// An allocation that failed. A kernel without scratch memory unwinds with this value, see [`crate::Scratch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes requested.
    pub bytes: usize,
}

impl OutOfMemory {
    /// The error for a request of `len` floats.
    pub(crate) fn of_floats(len: usize) -> Self {
        Self {
            bytes: len.saturating_mul(size_of::<f32>()),
        }
    }

    /// Unwinds out of the kernel. Unlike a panic it prints nothing: the caller of the kernels catches it and returns an
    /// error.
    pub(crate) fn unwind(self) -> ! {
        std::panic::resume_unwind(Box::new(self))
    }
}

/// What an arena holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaUsage {
    /// Bytes in live regions.
    pub in_use: usize,
    /// Bytes that were used at least once since the last [`Arena::clear`], and so were taken from the system.
    pub touched: usize,
}

/// The slabs and their free parts.
#[derive(Default)]
pub struct Arena {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slabs: Vec<Slab>,
    /// Sorted by address; adjacent holes are merged.
    free: Vec<Hole>,
    in_use: usize,
}

struct Slab {
    memory: Zeroed,
    /// Floats from the start up to the last that was ever used.
    touched: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hole {
    slab: usize,
    start: usize,
    len: usize,
}

impl Arena {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `len` floats with arbitrary content; `None` if the system has no memory left.
    pub fn take(self: &Arc<Self>, len: usize) -> Option<Region> {
        let size = len.checked_next_multiple_of(ALIGN)?;
        let mut state = self.state();
        let at = match state.best_hole(size) {
            Some(at) => at,
            None => {
                state.add_slab(size)?;
                state.best_hole(size)?
            }
        };
        let hole = &mut state.free[at];
        let Hole { slab, start, .. } = *hole;
        hole.start += size;
        hole.len -= size;
        if hole.len == 0 {
            state.free.remove(at);
        }
        state.in_use += size;
        let slab_state = &mut state.slabs[slab];
        slab_state.touched = slab_state.touched.max(start + size);
        // SAFETY: `start + size` floats lie in the slab, which is not at address 0.
        let first = unsafe { NonNull::new_unchecked(slab_state.memory.first().add(start)) };
        drop(state);
        Some(Region {
            arena: Arc::clone(self),
            slab,
            start,
            size,
            first,
            len,
        })
    }

    /// As [`Arena::take`]; without memory it unwinds with [`OutOfMemory`].
    pub(crate) fn take_or_unwind(self: &Arc<Self>, len: usize) -> Region {
        self.take(len)
            .unwrap_or_else(|| OutOfMemory::of_floats(len).unwind())
    }

    fn give(&self, slab: usize, start: usize, size: usize) {
        if size == 0 {
            return;
        }
        let mut state = self.state();
        state.in_use -= size;
        let mut hole = Hole {
            slab,
            start,
            len: size,
        };
        let mut at = state.free.partition_point(|other| *other < hole);
        if let Some(next) = state.free.get(at)
            && next.slab == slab
            && next.start == start + size
        {
            hole.len += next.len;
            state.free.remove(at);
        }
        if let Some(before) = at.checked_sub(1)
            && state.free[before].slab == slab
            && state.free[before].start + state.free[before].len == start
        {
            at = before;
            hole.start = state.free[at].start;
            hole.len += state.free[at].len;
            state.free[at] = hole;
        } else {
            state.free.insert(at, hole);
        }
    }

    /// Returns all memory to the system if none of it is in use (for example after a growth); returns whether it did.
    pub fn clear(&self) -> bool {
        let mut state = self.state();
        let idle = state.in_use == 0;
        if idle {
            *state = State::default();
        }
        idle
    }

    /// The memory that the arena holds.
    pub fn usage(&self) -> ArenaUsage {
        let state = self.state();
        let bytes = |floats: usize| floats * size_of::<f32>();
        ArenaUsage {
            in_use: bytes(state.in_use),
            touched: bytes(state.slabs.iter().map(|s| s.touched).sum()),
        }
    }
}

impl State {
    /// The smallest hole of at least `size`, the first if several are equal.
    fn best_hole(&self, size: usize) -> Option<usize> {
        let fits = self.free.iter().enumerate().filter(|(_, h)| h.len >= size);
        fits.min_by_key(|(_, h)| h.len).map(|(at, _)| at)
    }

    /// Adds a slab of at least `size` floats, as large as the system allows.
    fn add_slab(&mut self, size: usize) -> Option<()> {
        let size = size.max(ALIGN);
        let mut wanted = size.max(SLAB);
        let memory = loop {
            match Zeroed::new(wanted) {
                Some(memory) => break memory,
                None if wanted == size => return None,
                None => wanted = (wanted / 2).next_multiple_of(ALIGN).max(size),
            }
        };
        // Reserves entries for the holes of a step, so that the list does not grow later.
        self.free.reserve(1024);
        self.free.push(Hole {
            slab: self.slabs.len(),
            start: 0,
            len: memory.len(),
        });
        self.slabs.push(Slab { memory, touched: 0 });
        Some(())
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({:?})", self.usage())
    }
}

/// Floats of an [`Arena`], returned when dropped.
pub struct Region {
    arena: Arc<Arena>,
    slab: usize,
    start: usize,
    size: usize,
    first: NonNull<f32>,
    len: usize,
}

// SAFETY: until it is dropped no other code accesses the floats, because the arena assigns each place once. The slab
// lives as long as the arena, which the region keeps alive, and `clear` does nothing while regions are in use.
unsafe impl Send for Region {}
// SAFETY: as above; shared access is read-only.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        self.arena.give(self.slab, self.start, self.size);
    }
}

impl Deref for Region {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised floats that only this region accesses.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and access is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

/// A region as lines of packed matrices.
pub struct Lines(Region);

impl Lines {
    /// Number of floats in a line.
    pub(crate) const FLOATS: usize = size_of::<Line>() / size_of::<f32>();

    pub(crate) fn new(region: Region) -> Self {
        Self(region)
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        let first = self.0.first.as_ptr().cast();
        // SAFETY: a line is 16 words of any value, and a region starts at a multiple of a line.
        unsafe { std::slice::from_raw_parts(first, self.0.len / Self::FLOATS) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        let first = self.0.first.as_ptr().cast();
        // SAFETY: as above, and access is exclusive.
        unsafe { std::slice::from_raw_parts_mut(first, self.0.len / Self::FLOATS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allocates and frees in a pseudo-random order and writes a pattern into each region, which must not change.
    #[test]
    fn regions_never_overlap_and_all_memory_comes_back() {
        let arena = Arc::new(Arena::default());
        let mut held: Vec<(Region, f32)> = Vec::new();
        let mut seed = 1u64;
        for round in 0..4000u32 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            let number = (seed >> 33) as usize;
            if held.len() < 3 || number.is_multiple_of(2) && held.len() < 60 {
                let mut region = arena.take(number % 5000).expect("memory");
                assert!(region.as_ptr().align_offset(64) == 0);
                region.fill(round as f32);
                held.push((region, round as f32));
            } else {
                let (region, pattern) = held.swap_remove(number % held.len());
                assert!(region.iter().all(|&x| x == pattern));
            }
        }
        assert!(!arena.clear(), "an arena in use is left alone");
        assert!(
            held.iter()
                .all(|(r, pattern)| r.iter().all(|x| x == pattern))
        );
        held.clear();
        let state = arena.state();
        assert_eq!((state.in_use, state.free.len()), (0, 1));
        drop(state);
        assert!(arena.clear());
        assert_eq!(arena.usage(), ArenaUsage::default());
    }

    #[test]
    fn a_large_region_takes_the_place_of_small_neighbours() {
        let arena = Arc::new(Arena::default());
        let small: Vec<Region> = (0..10).map(|_| arena.take(1600).expect("memory")).collect();
        drop(small);
        let large = arena.take(16000).expect("memory");
        let usage = arena.usage();
        assert_eq!((usage.in_use, usage.touched), (64000, 64000));
        drop(large);
        assert_eq!(arena.usage().in_use, 0);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let arena = Arc::new(Arena::default());
        assert!(arena.take(usize::MAX).is_none());
        assert!(arena.take(usize::MAX / 4).is_none());
        assert!(Zeroed::new(usize::MAX - 3).is_none());
        assert_eq!(Zeroed::new(5).expect("memory").to_vec(), [0.0; 5]);
    }
}

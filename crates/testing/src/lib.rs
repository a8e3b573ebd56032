//! What the tests of several crates share: an allocator that counts bytes, small models ([`models`]), ranks that
//! are threads ([`Threads`]), random numbers, and the operations of devices against the plain f64 device ([`operations`]).
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: tokenformer_testing::Watching = tokenformer_testing::Watching;
//!
//! let (text, most_bytes) = tokenformer_testing::held(|| "x".repeat(1 << 20));
//! assert_eq!(text.len(), 1 << 20);
//! assert!((1 << 20..1 << 21).contains(&most_bytes));
//! ```

pub mod models;
pub mod operations;
mod random;
mod threads;

pub use random::Random;
pub use threads::Threads;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system allocator with counters. A test program that calls one of the functions beside it must install it as its
/// global allocator.
#[derive(Clone, Copy, Debug)]
pub struct Watching;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Number of allocations of all threads.
static COUNT: AtomicU64 = AtomicU64::new(0);

fn watch(change: isize) {
    // Memory may be freed while a thread ends, when its thread-local counters no longer exist.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

fn count(bytes: usize) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: every call goes unchanged to the system allocator; the counting allocates nothing.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        watch(layout.size() as isize);
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        watch(layout.size() as isize);
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        watch(-(layout.size() as isize));
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // The old and the new block may exist at the same time.
        watch(new_size as isize);
        watch(-(layout.size() as isize));
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Runs a function and returns its result with the most bytes that it held on this thread, beyond those held before.
pub fn held<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let result = run();
    (result, (MOST.get() - before) as usize)
}

/// Runs a function and returns its result with the size in bytes of its largest allocation on this thread.
pub fn largest<T>(run: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(0);
    let result = run();
    (result, LARGEST.get())
}

/// Number of allocations of all threads so far.
pub fn allocations() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

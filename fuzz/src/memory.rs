//! An allocator that counts, and ends the process when more is held than an input justifies.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

static HELD: AtomicIsize = AtomicIsize::new(0);
static LIMIT: AtomicIsize = AtomicIsize::new(isize::MAX);

/// The system's allocator; all threads of the process count together.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn add(bytes: usize) {
    let held = HELD.fetch_add(bytes as isize, Relaxed) + bytes as isize;
    if held > LIMIT.load(Relaxed) {
        exceeded(bytes, held);
    }
}

fn remove(bytes: usize) {
    HELD.fetch_sub(bytes as isize, Relaxed);
}

/// libFuzzer keeps the input of a process that aborts.
#[cold]
fn exceeded(bytes: usize, held: isize) -> ! {
    let limit = LIMIT.swap(isize::MAX, Relaxed);
    let place = std::backtrace::Backtrace::force_capture();
    eprintln!("{held} bytes are held where {limit} are the limit, after one of {bytes}\n{place}");
    std::process::abort();
}

// SAFETY: every call goes unchanged to the system allocator; the counting allocates nothing until the process ends.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        remove(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new may exist at the same time.
        add(new_size);
        remove(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// How many times an input's size may be held: 2, or what `TOKENFORMER_FUZZ_TIMES` says for the search of hangs among
/// large inputs.
fn times() -> usize {
    static TIMES: OnceLock<usize> = OnceLock::new();
    *TIMES.get_or_init(|| {
        let set = std::env::var("TOKENFORMER_FUZZ_TIMES").ok();
        set.and_then(|times| times.parse().ok()).unwrap_or(2)
    })
}

/// Runs a reader, which may hold twice the input's size plus a fixed number of bytes.
pub fn bounded<T>(input: &[u8], fixed_bytes: usize, run: impl FnOnce() -> T) -> T {
    let limit = HELD.load(Relaxed) + (times() * input.len() + fixed_bytes) as isize;
    LIMIT.store(limit, Relaxed);
    let result = run();
    LIMIT.store(isize::MAX, Relaxed);
    result
}

//! Threads and scratch memory, which are passed to every kernel.

use crate::arena::{Arena, Lines, OutOfMemory, Region};
use std::alloc::Layout;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks for work, or waits for the others, before it sleeps. Decoding a token takes about a hundred
/// runs a few microseconds apart, and waking a sleeping thread can take longer than a run. The last task of a run in
/// training takes up to a millisecond.
const PATIENCE: Duration = Duration::from_millis(1);
/// The part of that time during which it does not yield its core to other programs and pools.
const ALONE: Duration = Duration::from_micros(200);

/// A pool of persistent threads that run numbered tasks.
///
/// The calling thread takes part, so `Pool::new(1)` starts no thread. Every thread works through its own share of the
/// tasks, a contiguous range, and then helps with the shares of the others; results must not depend on which thread
/// runs a task. A run does not wait for a thread that has not started on it.
pub struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    threads: usize,
    /// Locked during a run, so that there is only one run at a time even with several callers.
    running: Mutex<()>,
}

struct Shared {
    state: Mutex<State>,
    start: Condvar,
    done: Condvar,
    /// The next task of every thread's share.
    next: Vec<Counter>,
    panicked: AtomicBool,
    /// Number of the run; changed under the lock, read by spinning workers.
    generation: AtomicU64,
    /// Worker threads that have started on the current job and not finished it; changed under the lock, read by a
    /// spinning caller.
    busy: AtomicUsize,
    patience: Duration,
}

/// A counter on separate cache lines, so that threads that count in their own shares do not slow down one another.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicUsize);

#[derive(Default)]
struct State {
    job: Option<Job>,
    /// Number of workers that sleep until `start`.
    asleep: usize,
    /// Whether the caller sleeps until `done`.
    caller_asleep: bool,
    stop: bool,
}

impl Shared {
    /// The tasks that a thread runs first.
    fn share(&self, tasks: usize, worker: usize) -> Range<usize> {
        let start = |worker| tasks * worker / self.next.len();
        start(worker)..start(worker + 1)
    }

    /// Runs the remaining tasks of `worker`'s share, then those of the other shares.
    fn take_tasks(&self, tasks: usize, worker: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        for owner in (worker..self.next.len()).chain(0..worker) {
            let share = self.share(tasks, owner);
            loop {
                let task = self.next[owner].0.fetch_add(1, Ordering::Relaxed);
                if task >= share.end {
                    break;
                }
                f(task, worker);
            }
        }
    }

    /// Spins for a short time until `ready`.
    fn watch(&self, ready: impl Fn() -> bool) {
        const LOOKS: usize = 16;
        let started = Instant::now();
        let mut waited = Duration::ZERO;
        while waited < self.patience {
            for _ in 0..LOOKS {
                if ready() {
                    return;
                }
                std::hint::spin_loop();
            }
            if waited > ALONE {
                std::thread::yield_now();
            }
            waited = started.elapsed();
        }
    }
}

/// A task function `f(task, worker)` whose lifetime has been erased, and its number of tasks.
#[derive(Clone, Copy)]
struct Job {
    run: *const (dyn Fn(usize, usize) + Sync),
    tasks: usize,
}

// SAFETY: the pointee is `Sync`, and `Pool::run` keeps it alive until no worker uses it.
unsafe impl Send for Job {}

thread_local! {
    /// The pool whose task this thread is running, if any.
    static INSIDE: Cell<*const Shared> = const { Cell::new(std::ptr::null()) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` threads in total, at least one: the caller's.
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        // If threads share a core, spinning only delays the thread that is waited for.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let patience = if threads <= cores {
            PATIENCE
        } else {
            Duration::ZERO
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            start: Condvar::new(),
            done: Condvar::new(),
            next: (0..threads).map(|_| Counter::default()).collect(),
            panicked: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            patience,
        });
        let handles = (1..threads)
            .map_while(|worker| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("kernel-{worker}"))
                    .spawn(move || worker_loop(&shared, worker))
                    .ok()
            })
            .collect::<Vec<_>>();
        let threads = handles.len() + 1;
        Self {
            shared,
            handles,
            threads,
            running: Mutex::new(()),
        }
    }

    /// Threads that take part in a run, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `f(task, worker)` for every task in `0..tasks` and returns when all are done.
    /// `worker < self.threads()` is unique among the tasks of this run that run at the same time.
    ///
    /// If a task panics, or starts another run of this pool, which would wait for itself.
    pub fn run(&self, tasks: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        if self.handles.is_empty() || tasks <= 1 {
            (0..tasks).for_each(|task| f(task, 0));
            return;
        }
        let this = Arc::as_ptr(&self.shared);
        assert!(
            INSIDE.get() != this,
            "a task runs tasks of its own pool in turn"
        );
        let _running = lock(&self.running);
        // SAFETY: only the lifetime changes. This function does not return before the job is withdrawn and
        // `busy` is 0, that is, before every worker that started on it has dropped its copy of the pointer.
        let run = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize, usize) + Sync),
                *const (dyn Fn(usize, usize) + Sync + 'static),
            >(f)
        };
        let shared = &*self.shared;
        for (worker, next) in shared.next.iter().enumerate() {
            next.0
                .store(shared.share(tasks, worker).start, Ordering::Relaxed);
        }
        let asleep = {
            let mut state = lock(&shared.state);
            state.job = Some(Job { run, tasks });
            shared.generation.fetch_add(1, Ordering::Release);
            state.asleep
        };
        if asleep > 0 {
            shared.start.notify_all();
        }
        let outside = INSIDE.replace(this);
        let mine = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(tasks, 0, f)));
        INSIDE.set(outside);
        lock(&shared.state).job = None;
        // From here on no thread starts on the job. Acquire: the writes of the workers are visible afterwards.
        let finished = || shared.busy.load(Ordering::Acquire) == 0;
        shared.watch(finished);
        if !finished() {
            let mut state = lock(&shared.state);
            while !finished() {
                state.caller_asleep = true;
                state = (shared.done.wait(state)).unwrap_or_else(PoisonError::into_inner);
            }
            state.caller_asleep = false;
        }
        let panicked = self.shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(payload) = mine {
            resume_unwind(payload);
        }
        if panicked {
            panic!("a kernel task panicked on a worker thread");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.start.notify_all();
        for handle in self.handles.drain(..) {
            // A worker cannot panic outside `catch_unwind`; there is nothing to report here.
            let _ = handle.join();
        }
    }
}

fn worker_loop(shared: &Shared, worker: usize) {
    INSIDE.set(shared);
    let mut seen = 0;
    loop {
        shared.watch(|| shared.generation.load(Ordering::Acquire) != seen);
        let job = {
            let mut state = lock(&shared.state);
            loop {
                if state.stop {
                    return;
                }
                let generation = shared.generation.load(Ordering::Relaxed);
                if generation != seen {
                    seen = generation;
                    if let Some(job) = state.job {
                        shared.busy.fetch_add(1, Ordering::Relaxed);
                        break job;
                    }
                }
                state.asleep += 1;
                state = (shared.start.wait(state)).unwrap_or_else(PoisonError::into_inner);
                state.asleep -= 1;
            }
        };
        // SAFETY: `Pool::run` waits for `busy == 0`, to which this thread contributes only below.
        let run = unsafe { &*job.run };
        if catch_unwind(AssertUnwindSafe(|| {
            shared.take_tasks(job.tasks, worker, run)
        }))
        .is_err()
        {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        let state = lock(&shared.state);
        // Release: makes the writes of this thread visible to the caller.
        if shared.busy.fetch_sub(1, Ordering::Release) == 1 && state.caller_asleep {
            shared.done.notify_one();
        }
    }
}

/// One growing block of scratch memory per worker, and an arena for memory that a kernel needs as a whole. Nothing is
/// allocated after the largest kernel has run once.
///
/// A kernel that cannot get its scratch memory unwinds with [`OutOfMemory`] before any of its tasks runs, so that
/// kernels need not return errors; the caller of kernels catches it.
#[derive(Default)]
pub struct Scratch {
    blocks: Vec<UnsafeCell<Vec<f32>>>,
    arena: Arc<Arena>,
    is_dry_run: bool,
}

// SAFETY: a block is reached only through `WorkerScratch::get`, whose contract is one user at a time.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// Scratch memory that shares `arena` with others.
    pub fn new(arena: Arc<Arena>) -> Self {
        Self {
            arena,
            ..Self::default()
        }
    }

    /// Scratch memory of a dry run: kernels take the memory that they need but run none of their tasks, so that their
    /// peak memory is known afterwards.
    pub fn dry_run(arena: Arc<Arena>) -> Self {
        Self {
            is_dry_run: true,
            ..Self::new(arena)
        }
    }

    fn reserve(&mut self, workers: usize, len: usize) -> WorkerScratch<'_> {
        self.blocks
            .resize_with(self.blocks.len().max(workers), Default::default);
        for block in &mut self.blocks[..workers] {
            let block = block.get_mut();
            if block.len() < len {
                // The old content is not needed, so it is freed first.
                *block = Vec::new();
                *block = zeros(len).unwrap_or_else(|| OutOfMemory::of_floats(len).unwind());
            }
        }
        WorkerScratch {
            blocks: &self.blocks,
            len,
        }
    }

    /// A block of `len` floats with arbitrary content for the calling kernel as a whole.
    pub fn take_shared(&mut self, len: usize) -> Region {
        self.arena.take_or_unwind(len)
    }

    /// As [`Scratch::take_shared`], for `len` lines of packed matrices.
    pub fn take_lines(&mut self, len: usize) -> Lines {
        Lines::new(self.arena.take_or_unwind(len.saturating_mul(Lines::FLOATS)))
    }

    /// Bytes of the workers' blocks.
    pub fn bytes(&mut self) -> usize {
        let floats: usize = self.blocks.iter_mut().map(|b| b.get_mut().capacity()).sum();
        floats * size_of::<f32>()
    }
}

/// `vec![0.0; len]`, or `None` without memory. Like `vec!`, it takes no memory for pages that are never written.
fn zeros(len: usize) -> Option<Vec<f32>> {
    let layout = Layout::array::<f32>(len).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the layout is not empty.
    let first = unsafe { std::alloc::alloc_zeroed(layout) };
    // SAFETY: the global allocator has made `len` zeroed floats with the layout of such a vector.
    (!first.is_null()).then(|| unsafe { Vec::from_raw_parts(first.cast(), len, len) })
}

struct WorkerScratch<'a> {
    blocks: &'a [UnsafeCell<Vec<f32>>],
    len: usize,
}

// SAFETY: see `Scratch`.
unsafe impl Sync for WorkerScratch<'_> {}

impl WorkerScratch<'_> {
    /// # Safety
    /// No two tasks that run at the same time may pass the same `worker`.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self, worker: usize) -> &mut [f32] {
        // SAFETY: only the caller uses this worker's block.
        unsafe { &mut (&mut *self.blocks[worker].get())[..self.len] }
    }
}

/// The threads and the scratch memory of a kernel.
pub struct Exec<'a> {
    /// Threads that share the tasks.
    pub pool: &'a Pool,
    /// Memory that the tasks may overwrite.
    pub scratch: &'a mut Scratch,
}

impl Exec<'_> {
    /// Runs `f(task, scratch)` for each task; `scratch` is `scratch_len` floats with arbitrary content that only this
    /// task uses.
    pub fn run(&mut self, tasks: usize, scratch_len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        let is_dry_run = self.scratch.is_dry_run;
        let blocks = self.scratch.reserve(self.pool.threads(), scratch_len);
        if is_dry_run {
            return;
        }
        self.pool.run(tasks, &|task, worker| {
            // SAFETY: the pool gives a worker number to one running task at a time.
            f(task, unsafe { blocks.get(worker) });
        });
    }
}

/// Cuts `len` items into pieces of `size`; the last one may be shorter.
#[derive(Clone, Copy)]
pub struct Pieces {
    len: usize,
    size: usize,
}

impl Pieces {
    /// Pieces of at most `size > 0` items.
    pub fn new(len: usize, size: usize) -> Self {
        assert!(size > 0);
        Self { len, size }
    }

    /// Items of every piece except the last one.
    pub fn size(self) -> usize {
        self.size
    }

    /// Number of pieces.
    pub fn count(self) -> usize {
        self.len.div_ceil(self.size)
    }

    /// The items of piece `index`.
    pub fn range(self, index: usize) -> Range<usize> {
        let start = index * self.size;
        start..(start + self.size).min(self.len)
    }
}

/// A mutable slice of which tasks write disjoint parts.
pub struct Disjoint<'a, T> {
    ptr: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through unsafe functions whose contract is disjointness.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Borrows the slice for a parallel run.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self {
            ptr: slice.as_mut_ptr(),
            len: slice.len(),
            life: PhantomData,
        }
    }

    /// The part `range`.
    ///
    /// # Safety
    /// Parts that are alive at the same time must not overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the assertion, disjoint by the caller's guarantee.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.len()) }
    }

    /// Pointer to element `offset`, for a matrix block with strides.
    ///
    /// # Safety
    /// Elements reached through it must be in bounds and not be accessed by another running task.
    pub unsafe fn pointer(&self, offset: usize) -> *mut T {
        assert!(offset <= self.len);
        // SAFETY: in bounds (or one past the end) by the assertion.
        unsafe { self.ptr.add(offset) }
    }
}

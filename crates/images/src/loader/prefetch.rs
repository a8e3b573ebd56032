//! Prefetching by a few threads, with results returned in order.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A result, or the panic of a worker, which is resumed in the consumer.
type Made<T> = Result<T, Box<dyn Any + Send>>;

/// Computes the values of positions, at most `ahead` of them before they are taken.
pub(super) struct Prefetch<T> {
    shared: Arc<Shared<T>>,
    workers: Vec<JoinHandle<()>>,
    waited: Duration,
}

struct Shared<T> {
    make: Box<dyn Fn(u64) -> T + Send + Sync>,
    ahead: u64,
    end: Option<u64>,
    state: Mutex<State<T>>,
    /// Notified when there is work.
    work: Condvar,
    /// Notified when a value was made.
    made: Condvar,
}

struct State<T> {
    /// The position to return next.
    taken: u64,
    /// The first position that no worker has started.
    started: u64,
    /// Number of seeks; values that were started before the last one are discarded.
    generation: u64,
    ready: HashMap<u64, Made<T>>,
    is_closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self, position: u64) -> bool {
        self.end.is_some_and(|end| position >= end)
    }

    fn make(&self, position: u64) -> Made<T> {
        // The closure only reads, so a panic leaves no invalid state.
        catch_unwind(AssertUnwindSafe(|| (self.make)(position)))
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return;
            }
            let position = state.started;
            if position >= state.taken.saturating_add(self.ahead) || self.has_ended(position) {
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.started += 1;
            let generation = state.generation;
            drop(state);
            let made = self.make(position);
            state = self.lock();
            if state.generation == generation {
                state.ready.insert(position, made);
                self.made.notify_all();
            }
        }
    }
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts `workers` threads; with 0 every value is made when it is taken. `ahead` is at least 1.
    pub(super) fn new(
        make: impl Fn(u64) -> T + Send + Sync + 'static,
        workers: usize,
        ahead: usize,
        start: u64,
        end: Option<u64>,
    ) -> Self {
        let shared = Arc::new(Shared {
            make: Box::new(make),
            ahead: ahead.max(1) as u64,
            end,
            state: Mutex::new(State {
                taken: start,
                started: start,
                generation: 0,
                ready: HashMap::new(),
                is_closed: false,
            }),
            work: Condvar::new(),
            made: Condvar::new(),
        });
        let spawn = |number| {
            let shared = Arc::clone(&shared);
            let name = format!("images-{number}");
            // If the system gives no more threads, fewer do the same work.
            std::thread::Builder::new()
                .name(name)
                .spawn(move || shared.work())
                .ok()
        };
        let workers = (0..workers).filter_map(spawn).collect();
        Self {
            shared,
            workers,
            waited: Duration::ZERO,
        }
    }

    /// The value of the next position; `None` at the end.
    pub(super) fn take(&mut self) -> Option<T> {
        let mut state = self.shared.lock();
        let position = state.taken;
        if self.shared.has_ended(position) {
            return None;
        }
        let start = Instant::now();
        let made = if self.workers.is_empty() {
            drop(state);
            let made = self.shared.make(position);
            state = self.shared.lock();
            made
        } else {
            loop {
                if let Some(made) = state.ready.remove(&position) {
                    break made;
                }
                state = self
                    .shared
                    .made
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        };
        state.taken += 1;
        drop(state);
        self.waited += start.elapsed();
        self.shared.work.notify_one();
        Some(made.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// Continues from another position.
    pub(super) fn seek(&mut self, position: u64) {
        let mut state = self.shared.lock();
        state.taken = position;
        state.started = position;
        state.generation += 1;
        state.ready.clear();
        drop(state);
        self.shared.work.notify_all();
    }

    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches panics of its work, so `join` returns no error.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn values_come_in_order_from_any_number_of_workers() {
        for workers in 0..4 {
            for ahead in [1, 2, 100] {
                let mut prefetch = Prefetch::new(|p| p * p, workers, ahead, 5, Some(200));
                for position in 5..100 {
                    assert_eq!(prefetch.take(), Some(position * position));
                }
                prefetch.seek(7);
                for position in 7..200 {
                    assert_eq!(prefetch.take(), Some(position * position));
                }
                assert_eq!(prefetch.take(), None);
            }
        }
    }

    #[test]
    fn no_more_is_made_ahead_than_allowed() {
        let made = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&made);
        let mut prefetch = Prefetch::new(
            move |_| counter.fetch_add(1, Ordering::SeqCst),
            2,
            3,
            0,
            None,
        );
        for taken in 1..50 {
            prefetch.take();
            // Workers may be at each of the 3 positions after the one just taken.
            assert!(made.load(Ordering::SeqCst) <= taken + 3);
        }
    }

    #[test]
    fn a_panic_reaches_the_consumer() {
        for workers in [0, 2] {
            let make = |p: u64| {
                assert!(p != 3, "the third");
                p
            };
            let mut prefetch = Prefetch::new(make, workers, 8, 0, None);
            for position in 0..3 {
                assert_eq!(prefetch.take(), Some(position));
            }
            assert!(catch_unwind(AssertUnwindSafe(|| prefetch.take())).is_err());
            assert_eq!(prefetch.take(), Some(4));
        }
    }
}

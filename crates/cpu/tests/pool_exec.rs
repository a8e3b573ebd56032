//! Threads and scratch memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokenformer_cpu::exec::{Disjoint, Pieces};
use tokenformer_cpu::{Arena, Exec, Pool, Scratch};

fn runs_each_once(pool: &Pool, tasks: usize) {
    let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
    pool.run(tasks, &|task, worker| {
        assert!(worker < pool.threads());
        counts[task].fetch_add(1, Ordering::Relaxed);
    });
    assert!(
        counts.iter().all(|c| c.load(Ordering::Relaxed) == 1),
        "{tasks} tasks"
    );
}

#[test]
fn every_task_runs_once() {
    for threads in 1..=4 {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for tasks in [0, 1, 2, 3, threads, 7, 64, 1000] {
            runs_each_once(&pool, tasks);
        }
    }
}

#[test]
fn zero_threads_are_one() {
    let pool = Pool::new(0);
    assert_eq!(pool.threads(), 1);
    runs_each_once(&pool, 5);
}

#[test]
fn many_short_runs() {
    let pool = Pool::new(4);
    for tasks in 0..2000 {
        runs_each_once(&pool, tasks % 9);
    }
}

#[test]
fn a_share_whose_thread_is_held_up_is_done_by_the_others() {
    let pool = Pool::new(3);
    let (tasks, done) = (31, AtomicUsize::new(0));
    let started = Instant::now();
    pool.run(tasks, &|task, _| {
        // The first task of the first share waits for all others, which include most tasks of the same share.
        while task == 0 && done.load(Ordering::Relaxed) < tasks - 1 {
            assert!(started.elapsed() < Duration::from_secs(60), "nobody helps");
            std::thread::yield_now();
        }
        done.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(done.into_inner(), tasks);
}

#[test]
fn two_callers_share_a_pool() {
    let pool = Pool::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..300).for_each(|i| runs_each_once(&pool, 2 + i % 30)));
        }
    });
}

#[test]
fn a_worker_number_has_one_task_at_a_time() {
    let pool = Pool::new(4);
    let inside: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
    pool.run(500, &|_, worker| {
        assert_eq!(inside[worker].fetch_add(1, Ordering::SeqCst), 0);
        std::thread::yield_now();
        inside[worker].fetch_sub(1, Ordering::SeqCst);
    });
}

#[test]
fn a_panic_reaches_the_caller() {
    for threads in 1..=4 {
        let pool = Pool::new(threads);
        for bad in [0, 5, 19] {
            let run = || pool.run(20, &|task, _| assert_ne!(task, bad, "task {task}"));
            assert!(
                catch_unwind(AssertUnwindSafe(run)).is_err(),
                "{threads} threads, task {bad}"
            );
            runs_each_once(&pool, 20);
        }
    }
}

#[test]
fn panics_everywhere_do_not_haunt_the_next_run() {
    let pool = Pool::new(3);
    for _ in 0..50 {
        // The tasks wait for each other, so that every thread, the caller's too, has one that panics.
        let barrier = std::sync::Barrier::new(3);
        let run = || {
            pool.run(3, &|task, _| {
                barrier.wait();
                panic!("task {task}");
            });
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        runs_each_once(&pool, 10);
    }
}

#[test]
fn a_run_inside_a_task_is_refused() {
    for threads in [2, 4] {
        let pool = Pool::new(threads);
        let nested = || pool.run(8, &|_, _| pool.run(8, &|_, _| {}));
        assert!(
            catch_unwind(AssertUnwindSafe(nested)).is_err(),
            "{threads} threads"
        );
        runs_each_once(&pool, 8);
    }
}

#[test]
fn another_pool_may_run_inside_a_task() {
    let outer = Pool::new(2);
    let count = AtomicUsize::new(0);
    outer.run(4, &|_, _| {
        Pool::new(2).run(4, &|_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(count.into_inner(), 16);
    runs_each_once(&outer, 4);
}

#[test]
fn scratch_belongs_to_its_task_and_is_kept() {
    let (pool, mut scratch) = (Pool::new(3), Scratch::default());
    let mut sums = vec![0.0f32; 40];
    for len in [10, 1000, 10] {
        let mut exec = Exec {
            pool: &pool,
            scratch: &mut scratch,
        };
        let out = Disjoint::new(&mut sums);
        exec.run(40, len, |task, scratch| {
            assert_eq!(scratch.len(), len);
            scratch.fill(task as f32);
            std::thread::yield_now();
            // SAFETY: one element per task.
            let out = unsafe { out.part(task..task + 1) };
            out[0] = scratch.iter().sum();
        });
        for (task, sum) in sums.iter().enumerate() {
            assert_eq!(*sum, (task * len) as f32);
        }
    }
    let held = scratch.bytes();
    assert!(held >= 3 * 1000 * 4);
    Exec {
        pool: &pool,
        scratch: &mut scratch,
    }
    .run(9, 1000, |_, _| {});
    assert_eq!(
        scratch.bytes(),
        held,
        "nothing is allocated the second time"
    );
}

#[test]
fn shared_blocks_are_kept() {
    let arena = Arc::new(Arena::default());
    let mut scratch = Scratch::new(Arc::clone(&arena));
    let block = scratch.take_shared(100);
    assert_eq!(block.len(), 100);
    drop(block);
    let held = arena.usage().touched;
    assert_eq!(scratch.take_shared(50).len(), 50);
    assert_eq!(scratch.take_lines(2).len(), 2);
    assert_eq!(arena.usage().touched, held);
}

#[test]
fn a_dry_run_takes_memory_and_runs_nothing() {
    let pool = Pool::new(2);
    let mut scratch = Scratch::dry_run(Arc::default());
    let mut exec = Exec {
        pool: &pool,
        scratch: &mut scratch,
    };
    exec.run(5, 1000, |_, _| panic!("a task was run"));
    assert_eq!(exec.scratch.bytes(), 8000);
}

#[test]
fn pieces_cover_everything_once() {
    for (len, size) in [(0, 3), (1, 3), (3, 3), (10, 3), (64, 64), (65, 64)] {
        let pieces = Pieces::new(len, size);
        let all: Vec<usize> = (0..pieces.count()).flat_map(|i| pieces.range(i)).collect();
        assert_eq!(all, (0..len).collect::<Vec<_>>(), "{len} by {size}");
    }
}

#[test]
#[should_panic(expected = "range.end <= self.len")]
fn a_part_out_of_bounds_is_refused() {
    let mut numbers = [0.0f32; 4];
    let numbers = Disjoint::new(&mut numbers);
    // SAFETY: the only part; the test checks its bounds.
    unsafe { numbers.part(2..5) };
}

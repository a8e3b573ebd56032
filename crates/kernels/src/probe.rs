//! What the machine can do at most: multiply-add rate and memory read rate, measured with loops that do
//! nothing else.

use crate::exec::{Disjoint, Exec};
use crate::simd::{LANES, simd};
use std::time::Instant;

/// Accumulators in flight: enough to hide the latency of a fused multiply-add.
const CHAINS: usize = 12;
const ROUNDS: usize = 200_000;

simd! {
    fn multiply_add(rounds: usize, by: f32) -> f32 {
        let mut sums = [[0.0f32; LANES]; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                for lane in sum.iter_mut() {
                    *lane = lane.mul_add(by, by);
                }
            }
        }
        sums.iter().flatten().sum()
    }
}

simd! {
    fn read(x: &[f32]) -> f32 {
        const WIDE: usize = 4 * LANES;
        let mut sums = [0.0f32; WIDE];
        for chunk in x.as_chunks::<WIDE>().0 {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += x;
            }
        }
        sums.iter().sum()
    }
}

/// Best of several runs of `f` on every thread at once, as work per second.
fn best_rate(exec: &mut Exec<'_>, work: f64, f: impl Fn(usize) -> f32 + Sync) -> f64 {
    let threads = exec.pool.threads();
    let mut results = vec![0.0f32; threads];
    let mut best = 0.0f64;
    for _ in 0..5 {
        let results = Disjoint::new(&mut results);
        let started = Instant::now();
        exec.run(threads, 0, |task, _| {
            // SAFETY: each task owns its slot.
            let slot = unsafe { results.part(task..task + 1) };
            slot[0] = f(task);
        });
        best = best.max(work * threads as f64 / started.elapsed().as_secs_f64());
    }
    std::hint::black_box(results);
    best
}

/// Single-precision floating-point operations per second, two per multiply-add, on all threads.
pub fn peak_flops(exec: &mut Exec<'_>) -> f64 {
    let work = (2 * CHAINS * LANES * ROUNDS) as f64;
    best_rate(exec, work, |_| {
        multiply_add(ROUNDS, std::hint::black_box(0.5))
    })
}

/// Bytes per second that all threads read together from `memory`, which must be much larger than the
/// caches.
pub fn read_bandwidth(exec: &mut Exec<'_>, memory: &[f32]) -> f64 {
    let part = memory.len() / exec.pool.threads();
    best_rate(exec, (part * size_of::<f32>()) as f64, |task| {
        read(&memory[task * part..][..part])
    })
}

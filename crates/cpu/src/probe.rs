//! Upper limits of the machine: multiply-add rate and memory read rate, measured with loops that do nothing else.

use crate::exec::{Disjoint, Exec};
use crate::simd::{self, LANES, simd};
use std::time::{Duration, Instant};

/// Number of independent accumulators: enough to hide the latency of a fused multiply-add.
#[cfg(target_arch = "x86_64")]
const CHAINS: usize = 12;
#[cfg(target_arch = "x86_64")]
const ROUNDS: usize = 200_000;

/// One thread's chains of multiply-adds between registers; returns something that depends on all of them.
/// Only the instruction sets that the matrix kernels are written for are measured.
#[cfg(target_arch = "x86_64")]
mod chains {
    use super::{CHAINS, ROUNDS};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub fn avx512(by: f32) -> f32 {
        let by = _mm512_set1_ps(by);
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, by, by);
            }
        }
        sums.iter().map(|&sum| _mm512_reduce_add_ps(sum)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(by: f32) -> f32 {
        let by = _mm256_set1_ps(by);
        let mut sums = [_mm256_setzero_ps(); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, by, by);
            }
        }
        sums.iter().map(|&sum| _mm256_cvtss_f32(sum)).sum()
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

/// Minimum time of a measurement. It is longer than usual disturbances by other programs on the same core.
const LEAST: Duration = Duration::from_millis(300);

/// Best of several runs of `f` on every thread at once, as work per second.
fn best_rate(exec: &mut Exec<'_>, work: f64, f: impl Fn(usize) -> f32 + Sync) -> f64 {
    let threads = exec.pool.threads();
    let mut results = vec![0.0f32; threads];
    let mut best = 0.0f64;
    let first = Instant::now();
    while first.elapsed() < LEAST {
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

/// Single-precision floating-point operations per second, two per multiply-add, on all threads; `None`
/// on processors with unknown vector units.
pub fn peak_flops(exec: &mut Exec<'_>) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        let by = std::hint::black_box(0.5);
        let work = |lanes: usize| (2 * CHAINS * lanes * ROUNDS) as f64;
        match simd::level() {
            simd::Level::Avx512 => {
                // SAFETY: `level` is never above what the processor was detected to have.
                Some(best_rate(exec, work(16), |_| unsafe { chains::avx512(by) }))
            }
            // SAFETY: as above.
            simd::Level::Avx2 => Some(best_rate(exec, work(8), |_| unsafe { chains::avx2(by) })),
            simd::Level::Baseline => None,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Bytes per second that all threads read together from `memory`, which must be much larger than the
/// caches.
pub fn read_bandwidth(exec: &mut Exec<'_>, memory: &[f32]) -> f64 {
    let part = memory.len() / exec.pool.threads();
    best_rate(exec, (part * size_of::<f32>()) as f64, |task| {
        read(&memory[task * part..][..part])
    })
}

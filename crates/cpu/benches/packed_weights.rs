//! Speed of products with prepared weights: `cargo bench -p tokenformer-cpu --bench packed_weights -- THREADS`.
//!
//! For each format and number of rows, the bytes of weights read per second, compared with what the machine reads.

use std::time::Instant;
use tokenformer_cpu::gemm::{Job, Mat, PackedWeights, par_products};
use tokenformer_cpu::{Exec, Pool, Scratch, probe};
use tokenformer_device::{WeightFormat, Write};

fn main() {
    let threads = (std::env::args().filter_map(|a| a.parse().ok()).next()).unwrap_or(1);
    let pool = Pool::new(threads);
    let mut scratch = Scratch::default();
    let mut exec = Exec {
        pool: &pool,
        scratch: &mut scratch,
    };
    // More than the caches hold, in every format.
    let (k, n) = (768, 150_016);
    let floats: Vec<f32> = (0..k * n).map(|i| (i % 251) as f32 - 125.0).collect();
    for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
        let weights = PackedWeights::new(&mut exec, format, Mat::new(&floats, n, k).t());
        for rows in [1, 2, 4, 8, 16, 32, 64] {
            let x = vec![0.5; rows * k];
            let mut y = vec![0.0; rows * n];
            let mut times: Vec<f64> = (0..7)
                .map(|_| {
                    let started = Instant::now();
                    let mut job = [Job {
                        y: &mut y,
                        y_stride: n,
                        write: Write::Replace,
                        x: Mat::new(&x, rows, k),
                        weights: &weights,
                        scale: 1.0,
                    }];
                    par_products(&mut exec, &mut job);
                    started.elapsed().as_secs_f64()
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let read = probe::read_bandwidth(&mut exec, &floats) / 1e9;
            println!(
                "{format:?} {rows:>3} rows: {:6.1} GB/s of {read:.1}, {:6.1} GFLOP/s",
                weights.bytes() as f64 / times[3] / 1e9,
                2.0 * (rows * k * n) as f64 / times[3] / 1e9,
            );
        }
    }
}

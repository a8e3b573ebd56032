//! Upper limits of this machine, and the memory that this process has taken.

use tokenformer_cpu::{Exec, Pool, Scratch, probe};

/// Measured limits.
#[derive(serde::Serialize)]
pub struct Machine {
    /// Single-precision operations of all threads, if the vector units are known.
    pub peak_gflops: Option<f64>,
    /// Reads of all threads from memory.
    pub read_gb_per_s: f64,
}

impl Machine {
    /// Measures it on `threads` threads.
    pub fn measure(threads: usize) -> Self {
        const FLOATS: usize = 64 << 20;
        let pool = Pool::new(threads);
        let mut scratch = Scratch::default();
        let mut exec = Exec {
            pool: &pool,
            scratch: &mut scratch,
        };
        let peak_gflops = probe::peak_flops(&mut exec).map(|flops| flops / 1e9);
        // The kind of memory that weights lie in.
        let mut memory = exec.scratch.take_shared(FLOATS);
        memory.fill(1.0);
        Self {
            peak_gflops,
            read_gb_per_s: probe::read_bandwidth(&mut exec, &memory) / 1e9,
        }
    }
}

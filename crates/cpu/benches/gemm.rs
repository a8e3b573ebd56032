//! Matrix products against the `gemm` crate and against the processor's peak:
//!
//! ```text
//! cargo bench -p tokenformer-cpu --bench gemm [-- THREADS [FILTER]]
//! ```
//!
//! A cell is the median rate of runs that alternate between all contenders, in GFLOP/s, with the least and
//! greatest in brackets, and its share of the peak. In the columns `packed` the right factor has been packed
//! before, as weights are once per step; `pack+` times the packing too; `from bf16` does so from factors that are
//! bfloat16 already. Rates of one thread are per second of processor time on Linux.

use tokenformer_cpu::gemm::{
    Bf16, Element, Line, Mat, MatMut, Packed, SCRATCH, Source, gemm, gemm_packed, pack,
    packed_lines, par_gemm, par_gemm_packed, par_pack,
};
use tokenformer_cpu::{Exec, Pool, Scratch};
use tokenformer_device::Write;

/// How the operands lie.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// `X[M,K] · W[N,K]ᵀ`.
    Scores,
    /// `S[M,K] · W[K,N]`.
    Output,
    /// `A[K,M]ᵀ · X[K,N]`, added.
    Gradient,
}
use Layout::*;

const SHAPES: &[(&str, Layout, [usize; 3])] = &[
    ("block X·Kᵀ", Scores, [64, 192, 768]),
    ("block Σ·V", Output, [64, 768, 192]),
    ("block X·Kᵀ", Scores, [64, 768, 3072]),
    ("block Σ·V", Output, [64, 3072, 768]),
    ("X·Kᵀ", Scores, [2048, 192, 768]),
    ("X·Kᵀ", Scores, [2048, 384, 1536]),
    ("X·Kᵀ", Scores, [512, 768, 3072]),
    ("Σ·V", Output, [512, 3072, 768]),
    ("gradient", Gradient, [768, 2048, 192]),
    ("gradient", Gradient, [1536, 2048, 384]),
    ("gradient", Gradient, [3072, 512, 768]),
    ("head", Scores, [512, 768, 50304]),
    ("head dH", Output, [512, 50304, 768]),
    ("head dE", Gradient, [50304, 512, 768]),
    ("attention Q·Kᵀ", Scores, [64, 32, 256]),
    ("attention P·V", Output, [64, 256, 32]),
    ("attention dK", Gradient, [256, 64, 32]),
    ("odd", Scores, [61, 203, 331]),
    ("decode X·Kᵀ", Scores, [1, 768, 3072]),
    ("decode Σ·V", Output, [1, 3072, 768]),
    ("decode head", Scores, [1, 768, 50304]),
];

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let threads = arguments.first().and_then(|a| a.parse().ok()).unwrap_or(1);
    let filter = arguments.get(1).map_or("", String::as_str);
    let pool = Pool::new(threads);
    let [peak, peak_bf16] = peak::rates().map(|rate| rate * pool.threads() as f64);
    println!(
        "{threads} thread(s), {}; peak f32 {peak:.0}, bf16 {peak_bf16:.0} GFLOP/s",
        tokenformer_cpu::simd::level().name()
    );
    let names = [
        "gemm crate",
        "f32",
        "f32 packed",
        "f32 pack+",
        "bf16 packed",
        "bf16 pack+",
        "from bf16",
    ];
    print!("{:30}", "");
    names.iter().for_each(|name| print!("{name:>24}"));
    println!();
    for &(name, layout, [m, k, n]) in SHAPES.iter().filter(|s| s.0.contains(filter)) {
        let cells = measure(&pool, layout, [m, k, n]);
        print!("{:30}", format!("{name} {m}x{k}x{n}"));
        for (i, rates) in cells.iter().enumerate() {
            let peak = if i < 4 { peak } else { peak_bf16 };
            let [low, middle, high] = [0, rates.len() / 2, rates.len() - 1].map(|i| rates[i]);
            print!(
                "{:>24}",
                format!(
                    "{middle:.0} [{low:.0}-{high:.0}] {:2.0}%",
                    100.0 * middle / peak
                )
            );
        }
        println!();
    }
    if "pack".contains(filter) {
        pack_rates(&pool);
    }
}

/// Prints how fast weights are packed, in GB/s of f32 read.
fn pack_rates(pool: &Pool) {
    let mut scratch = Scratch::default();
    let mut exec = Exec {
        pool,
        scratch: &mut scratch,
    };
    for [n, d] in [[768, 192], [3072, 768], [50304, 768]] {
        let w: Vec<f32> = (0..n * d).map(|i| (i % 13) as f32).collect();
        for (name, b) in [("Kᵀ", Mat::new(&w, n, d).t()), ("V", Mat::new(&w, n, d))] {
            let [k, n] = if name == "V" { [n, d] } else { [d, n] };
            let mut lines = vec![Line::ZERO; packed_lines::<f32>(k, n)];
            let repeat = (4 << 25) / w.len() + 1;
            let mut rates = [0.0f64; 2];
            for _ in 0..5 {
                for (precision, rate) in rates.iter_mut().enumerate() {
                    let start = clock::seconds(pool.threads());
                    for _ in 0..repeat {
                        if precision == 0 {
                            par_pack::<f32, f32>(&mut exec, &mut lines, b);
                        } else {
                            let lines = &mut lines[..packed_lines::<Bf16>(k, n)];
                            par_pack::<Bf16, f32>(&mut exec, lines, b);
                        }
                    }
                    let bytes = (w.len() * 4 * repeat) as f64;
                    *rate = rate.max(bytes / (clock::seconds(pool.threads()) - start) / 1e9);
                }
            }
            println!(
                "pack {name} {k}x{n}: f32 {:.1} GB/s, bf16 {:.1} GB/s",
                rates[0], rates[1]
            );
        }
    }
}

/// Sorted rates of each contender.
fn measure(pool: &Pool, layout: Layout, [m, k, n]: [usize; 3]) -> Vec<Vec<f64>> {
    let values =
        |len: usize| -> Vec<f32> { (0..len).map(|i| (i % 13) as f32 * 0.1 - 0.6).collect() };
    let narrow = |x: &[f32]| -> Vec<Bf16> { x.iter().map(|&x| Bf16::from_f32(x)).collect() };
    let (a, b, mut c) = (values(m * k), values(k * n), vec![0.0f32; m * n]);
    let (a16, b16) = (narrow(&a), narrow(&b));
    fn views<'a, T>(
        layout: Layout,
        a: &'a [T],
        b: &'a [T],
        [m, k, n]: [usize; 3],
    ) -> (Mat<'a, T>, Mat<'a, T>) {
        let a_view = if layout == Gradient {
            Mat::new(a, k, m).t()
        } else {
            Mat::new(a, m, k)
        };
        let b_view = if layout == Scores {
            Mat::new(b, n, k).t()
        } else {
            Mat::new(b, k, n)
        };
        (a_view, b_view)
    }
    let both @ (a_view, b_view) = views(layout, &a, &b, [m, k, n]);
    let both16 = views(layout, &a16, &b16, [m, k, n]);
    let write = if layout == Gradient {
        Write::Add
    } else {
        Write::Replace
    };
    let mut lines = vec![Line::ZERO; packed_lines::<f32>(k, n)];
    let mut lines16 = vec![Line::ZERO; packed_lines::<Bf16>(k, n)];
    let (b_lines, b_lines16) = (&mut *lines.clone(), &mut *lines16.clone());
    let packed: Packed<'_, f32> = pack(&mut lines, b_view);
    let packed16: Packed<'_, Bf16> = pack(&mut lines16, b_view);
    let mut scratch = Scratch::default();
    let mut exec = Exec {
        pool,
        scratch: &mut scratch,
    };
    let flops = 2.0 * (m * k * n) as f64;
    let repeat = (4e8 / flops).clamp(1.0, 1e5) as usize;
    let rounds = (2e10 / flops).clamp(4.0, 30.0) as usize;
    let mut rates = vec![vec![]; 7];
    for round in 0..=rounds {
        for (which, rates) in rates.iter_mut().enumerate() {
            let start = clock::seconds(pool.threads());
            for _ in 0..repeat {
                let spare = &mut *b_lines;
                let spare16 = &mut *b_lines16;
                if which == 0 {
                    let add = write == Write::Add;
                    crate_gemm(pool.threads(), &mut c, add, layout, &a, &b, [m, k, n]);
                    continue;
                }
                if which == 1 && pool.threads() > 1 {
                    par_gemm(&mut exec, &mut c, write, a_view, b_view, 1.0);
                    continue;
                }
                let c = MatMut::new(&mut c, m, n);
                match which {
                    1 => gemm(c, write, a_view, b_view, 1.0),
                    2 => with_packed(&mut exec, c, write, a_view, packed),
                    3 => with_pack::<f32, f32>(&mut exec, c, write, both, spare),
                    4 => with_packed(&mut exec, c, write, a_view, packed16),
                    5 => with_pack::<Bf16, f32>(&mut exec, c, write, both, spare16),
                    _ => with_pack::<Bf16, Bf16>(&mut exec, c, write, both16, spare16),
                }
            }
            if round > 0 {
                rates.push(flops * repeat as f64 / (clock::seconds(pool.threads()) - start) / 1e9);
            }
        }
    }
    rates.iter_mut().for_each(|r| r.sort_by(f64::total_cmp));
    rates
}

/// The product with `B` packed before.
fn with_packed<P: Element>(
    exec: &mut Exec<'_>,
    c: MatMut<'_>,
    write: Write,
    a: Mat<'_>,
    b: Packed<'_, P>,
) where
    f32: Source<P>,
{
    if exec.pool.threads() > 1 {
        return par_gemm_packed(exec, c, write, a, b, 1.0);
    }
    let mut scratch = exec.scratch.take_shared(SCRATCH);
    gemm_packed(c, write, a, b, 1.0, &mut scratch);
}

/// The product with all packing that it needs.
fn with_pack<P: Element, S: Source<P>>(
    exec: &mut Exec<'_>,
    c: MatMut<'_>,
    write: Write,
    (a, b): (Mat<'_, S>, Mat<'_, S>),
    lines: &mut [Line],
) {
    let b: Packed<'_, P> = par_pack(exec, lines, b);
    par_gemm_packed(exec, c, write, a, b, 1.0);
}

/// The product by the `gemm` crate, with the rows divided among `threads` of its threads.
fn crate_gemm(
    threads: usize,
    c: &mut [f32],
    add: bool,
    layout: Layout,
    a: &[f32],
    b: &[f32],
    [m, k, n]: [usize; 3],
) {
    let a_strides = if layout == Gradient {
        (m as isize, 1)
    } else {
        (1, k as isize)
    };
    let b_strides = if layout == Scores {
        (k as isize, 1)
    } else {
        (1, n as isize)
    };
    let parallelism = if threads == 1 {
        gemm::Parallelism::None
    } else {
        gemm::Parallelism::Rayon(threads)
    };
    // SAFETY: the slices have the sizes that the shape says.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.as_ptr(),
            a_strides.0,
            a_strides.1,
            b.as_ptr(),
            b_strides.0,
            b_strides.1,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Time in seconds from some moment on: on Linux, that of the only thread on a processor, so that what else
/// the machine does disturbs less; otherwise that of the wall.
mod clock {
    pub fn seconds(threads: usize) -> f64 {
        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        if threads == 1 {
            unsafe extern "C" {
                fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
            }
            const THREAD_CPU: i32 = 3;
            let mut time = [0i64; 2];
            // SAFETY: on 64-bit Linux a time is two 64-bit numbers: seconds and nanoseconds.
            unsafe { clock_gettime(THREAD_CPU, &mut time) };
            return time[0] as f64 + time[1] as f64 * 1e-9;
        }
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        let _ = threads;
        START
            .get_or_init(std::time::Instant::now)
            .elapsed()
            .as_secs_f64()
    }
}

/// What one thread's multipliers can do: chains of fused multiply-adds between registers.
mod peak {
    #[cfg(target_arch = "x86_64")]
    pub fn rates() -> [f64; 2] {
        use std::arch::asm;
        macro_rules! rate {
            ($instruction:literal, $flops:literal) => {{
                let loops = 2_000_000u64;
                let start = super::clock::seconds(1);
                // SAFETY: only registers that are declared are touched.
                unsafe {
                    asm!(
                        "vxorps xmm30, xmm30, xmm30", "vxorps xmm31, xmm31, xmm31",
                        "2:",
                        concat!($instruction, " zmm0, zmm30, zmm31"), concat!($instruction, " zmm1, zmm30, zmm31"),
                        concat!($instruction, " zmm2, zmm30, zmm31"), concat!($instruction, " zmm3, zmm30, zmm31"),
                        concat!($instruction, " zmm4, zmm30, zmm31"), concat!($instruction, " zmm5, zmm30, zmm31"),
                        concat!($instruction, " zmm6, zmm30, zmm31"), concat!($instruction, " zmm7, zmm30, zmm31"),
                        concat!($instruction, " zmm8, zmm30, zmm31"), concat!($instruction, " zmm9, zmm30, zmm31"),
                        concat!($instruction, " zmm10, zmm30, zmm31"), concat!($instruction, " zmm11, zmm30, zmm31"),
                        concat!($instruction, " zmm12, zmm30, zmm31"), concat!($instruction, " zmm13, zmm30, zmm31"),
                        concat!($instruction, " zmm14, zmm30, zmm31"), concat!($instruction, " zmm15, zmm30, zmm31"),
                        "dec {loops}", "jnz 2b",
                        loops = inout(reg) loops => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        out("xmm30") _, out("xmm31") _,
                    );
                }
                loops as f64 * 16.0 * $flops / (super::clock::seconds(1) - start) / 1e9
            }};
        }
        let mut best = [0.0f64; 2];
        for _ in 0..20 {
            if is_x86_feature_detected!("avx512f") {
                best[0] = best[0].max(rate!("vfmadd231ps", 32.0));
            }
            if is_x86_feature_detected!("avx512bf16") {
                best[1] = best[1].max(rate!("vdpbf16ps", 64.0));
            }
        }
        best
    }

    /// Unknown: shares print as infinite.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn rates() -> [f64; 2] {
        [0.0; 2]
    }
}

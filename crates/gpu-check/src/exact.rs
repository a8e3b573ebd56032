//! Kernels against f64, on fresh random numbers.

use crate::{Memory, Report, Result};
use std::sync::Arc;
use tokenformer_cuda::{Cuda, Factor, Gemm, Gpu, Number, flash};
use tokenformer_device::reference::{attention as exact, attention_backward as exact_backward};
use tokenformer_device::{AttentionDims, Device, Precision, Write};
use tokenformer_testing::Random;
use tokenformer_testing::operations::{Product, Suite};

/// Fills memory of a GPU with NaN and frees it, so that a kernel that reads what it did not write is noticed.
///
/// # Errors
/// If the GPU fails.
pub fn poison(gpu: &dyn Gpu, bytes: usize) -> Result<()> {
    const PART: usize = 1 << 20;
    let memory = Memory::new(gpu, bytes)?;
    let mut filled = bytes.min(PART);
    // SAFETY: all parts lie inside of the memory, and do not overlap.
    unsafe {
        gpu.upload(&vec![0xff; filled], memory.at)?;
        while filled < bytes {
            let part = filled.min(bytes - filled);
            gpu.copy(memory.at, memory.at.plus(filled), part)?;
            filled += part;
        }
    }
    Ok(gpu.synchronize()?)
}

/// Every operation of the device against the plain f64 device. `scale` multiplies sizes.
///
/// # Errors
/// Panics, as tests do, if an operation is wrong.
pub fn operations(
    gpu: &Arc<dyn Gpu>,
    precision: Precision,
    scale: usize,
    seed: u64,
) -> Result<Report> {
    let device: Arc<dyn Device> = Cuda::new(Arc::clone(gpu), precision);
    let suite = Suite {
        devices: vec![device],
        // Rounding to bfloat16, on the way of several numbers.
        least_bar: match precision {
            Precision::F32 => 0.0,
            Precision::Bf16 => 0.03,
        },
    };
    let at = |small: usize| small * scale;
    suite.gelu_and_biases(at(9), at(13), seed);
    suite.averages_and_parts(at(100), seed);
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        for write in [Write::Replace, Write::Add] {
            let case = Product {
                shape: [at(9), at(11), at(13)],
                transposed,
                offset: 3,
                gap: 2,
                write,
                scale: 0.7,
                seed,
            };
            let bar: f32 = match precision {
                Precision::F32 => 1e-5,
                Precision::Bf16 => 0.02,
            };
            suite.product(&case, bar);
        }
    }
    suite.rows_by_index(at(90), 40, at(13), seed);
    for joint in [false, true] {
        suite.theta_of_scores(at(3), &[at(24), at(100)], joint, seed);
    }
    suite.layer_norms(at(9), at(24), seed);
    suite.rotations_and_caches(seed);
    suite.losses([at(5), at(100), at(8)], false, true, seed);
    suite.losses([at(5), at(100), at(8)], true, false, seed);
    suite.steps_of_the_optimizer(at(5000));
    suite.sums_of_squares(at(5000), seed);
    suite.gradients_that_are_not_finite();
    for causal in [true, false] {
        let length = 17 * scale;
        let dims = AttentionDims {
            batch: 2,
            queries: length,
            keys: length,
            key_stride: length,
            heads: 2,
            channels: 24,
            causal,
        };
        suite.self_attention(dims, seed);
        let keys = length + 5;
        suite.attention_on_a_cache(
            AttentionDims {
                keys,
                key_stride: keys + 3,
                ..dims
            },
            seed,
        );
    }
    Ok((
        format!("all operations in {precision} agree with f64"),
        Vec::new(),
    ))
}

/// The nearest bfloat16, ties to even.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

fn of_bf16(bytes: &[u8]) -> Vec<f64> {
    let number = |x: &[u8]| f32::from_bits(u32::from(u16::from_ne_bytes([x[0], x[1]])) << 16);
    bytes
        .chunks_exact(2)
        .map(|x| f64::from(number(x)))
        .collect()
}

fn of_f32(bytes: &[u8]) -> Vec<f64> {
    let number = |x: &[u8]| f32::from_ne_bytes([x[0], x[1], x[2], x[3]]);
    bytes
        .chunks_exact(4)
        .map(|x| f64::from(number(x)))
        .collect()
}

/// Random numbers in bfloat16: their bytes and their values.
fn random(random: &mut Random, len: usize) -> (Vec<u8>, Vec<f64>) {
    let numbers = random.normals(len, 1.0);
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|x| bf16(*x).to_ne_bytes())
        .collect();
    let values = of_bf16(&bytes);
    (bytes, values)
}

/// `‖got − want‖ / ‖want‖`; infinite if a number is NaN. Results that are 0, as the gradients of a single key are, count as
/// numbers of a hundredth.
fn error(got: &[f64], want: &[f64]) -> f64 {
    let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    let error = (difference / norm.max(1e-4 * want.len() as f64)).sqrt();
    if error.is_nan() { f64::INFINITY } else { error }
}

/// Fails if an error is above its limit.
fn within(what: &str, error: f64, limit: f64) -> Result<f64> {
    match error <= limit {
        true => Ok(error),
        false => Err(format!("{what}: relative error {error:.1e}, allowed {limit:.0e}").into()),
    }
}

/// Attention in bfloat16, forward and backward, against f64; `lengths` are tried with every head size.
///
/// # Errors
/// If a result is wrong, or the GPU fails.
pub fn attention(gpu: &dyn Gpu, lengths: &[usize], seed: u64) -> Result<Report> {
    let names = ["o", "dq", "dk", "dv"];
    let mut worst = [0.0f64; 4];
    for channels in [32, 64, 80, 96, 128] {
        for length in lengths {
            for causal in [true, false] {
                let dims = AttentionDims {
                    batch: 1,
                    queries: *length,
                    keys: *length,
                    key_stride: *length,
                    heads: 2,
                    channels,
                    causal,
                };
                for (i, error) in attention_errors(gpu, dims, seed)?.into_iter().enumerate() {
                    // Probabilities, gradients of scores and results are rounded to 8 bits of mantissa.
                    let what = format!("{} of {dims:?}", names[i]);
                    worst[i] = worst[i].max(within(&what, error, 1e-2)?);
                }
            }
        }
    }
    let values = names
        .iter()
        .zip(worst)
        .map(|(name, error)| (format!("relative error of {name}"), error));
    Ok(("attention in bf16 agrees with f64".into(), values.collect()))
}

fn attention_errors(gpu: &dyn Gpu, dims: AttentionDims, seed: u64) -> Result<[f64; 4]> {
    let mut numbers = Random::new(seed);
    let len = dims.queries * dims.width();
    let inputs = [(); 4].map(|()| random(&mut numbers, len));
    let [q, k, v, d_o] = inputs.each_ref().map(|(bytes, _)| Memory::of(gpu, bytes));
    let (q, k, v, d_o) = (q?, k?, v?, d_o?);
    let poisoned = |bytes| Memory::of(gpu, &vec![0xff; bytes]);
    let outputs = [
        poisoned(2 * len)?,
        poisoned(2 * len)?,
        poisoned(2 * len)?,
        poisoned(2 * len)?,
    ];
    let [o, dq, dk, dv] = &outputs;
    let (sums, delta) = (
        poisoned(4 * dims.stats_len())?,
        poisoned(4 * dims.stats_len())?,
    );
    let qkv = [q.at, k.at, v.at];
    // SAFETY: tensors of these shapes.
    unsafe {
        flash::forward(gpu, &dims, qkv, o.at, Some(sums.at))?;
        let gradients = [dq.at, dk.at, dv.at];
        flash::backward(gpu, &dims, qkv, o.at, sums.at, d_o.at, gradients, delta.at)?;
    }
    let values = [0, 1, 2].map(|i: usize| &inputs[i].1[..]);
    let (want, want_sums) = exact(dims, values);
    let [want_q, want_k, want_v] = exact_backward(dims, values, &inputs[3].1);
    within("log_sums", error(&of_f32(&sums.read()?), &want_sums), 1e-5)?;
    let mut errors = [0.0; 4];
    for ((error_at, got), want) in errors
        .iter_mut()
        .zip(&outputs)
        .zip([want, want_q, want_k, want_v])
    {
        *error_at = error(&of_bf16(&got.read()?), &want);
    }
    Ok(errors)
}

/// Products of bfloat16 numbers in every layout against f64, replaced and added.
///
/// # Errors
/// If a result is wrong, or the GPU fails.
pub fn products(gpu: &dyn Gpu, sizes: &[[usize; 3]], seed: u64) -> Result<Report> {
    let mut worst = 0.0f64;
    for [m, n, k] in sizes.iter().copied() {
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            for beta in [0.0f32, 1.0] {
                let mut numbers = Random::new(seed);
                let (a, b) = (random(&mut numbers, m * k), random(&mut numbers, k * n));
                let old = match beta {
                    0.0 => vec![f32::NAN; m * n],
                    _ => numbers.normals(m * n, 1.0),
                };
                let bytes: Vec<u8> = old.iter().flat_map(|x| x.to_ne_bytes()).collect();
                let (at_a, at_b, at_c) = (
                    Memory::of(gpu, &a.0)?,
                    Memory::of(gpu, &b.0)?,
                    Memory::of(gpu, &bytes)?,
                );
                let factor = |memory: &Memory<'_>, transposed, rows, cols| Factor {
                    at: memory.at,
                    number: Number::Bf16,
                    row_stride: if transposed { rows } else { cols },
                    transposed,
                    batch_stride: 0,
                };
                let gemm = Gemm {
                    m,
                    n,
                    k,
                    a: factor(&at_a, ta, m, k),
                    b: factor(&at_b, tb, k, n),
                    c: at_c.at,
                    c_number: Number::F32,
                    c_row_stride: n,
                    c_batch_stride: 0,
                    alpha: 0.5,
                    beta,
                    batch: 1,
                };
                // SAFETY: the operands fill their memory.
                unsafe { gpu.gemm(&gemm)? };
                let mut want: Vec<f64> = match beta {
                    0.0 => vec![0.0; m * n],
                    _ => old.iter().map(|x| f64::from(*x)).collect(),
                };
                for i in 0..m {
                    for l in 0..k {
                        let x = 0.5 * a.1[if ta { l * m + i } else { i * k + l }];
                        for (j, w) in want[i * n..][..n].iter_mut().enumerate() {
                            *w += x * b.1[if tb { j * k + l } else { l * n + j }];
                        }
                    }
                }
                let what = format!("a product {m}x{k}x{n}, transposed {ta} {tb}, beta {beta}");
                worst = worst.max(within(&what, error(&of_f32(&at_c.read()?), &want), 1e-5)?);
            }
        }
    }
    Ok((
        "products of bf16 numbers agree with f64".into(),
        vec![("relative error".into(), worst)],
    ))
}

//! Products by the program's own kernels in `kernels/gemm.cu`, where cuBLASLt is missing.

use crate::gpu::{Address, Arg, Factor, Gemm, Gpu, GpuError, Launch, Number, Result};

/// Rows and columns of C that a block of the tensor-core kernel computes, and terms that it adds at a time.
const BLOCK: usize = 128;
const STEP: usize = 32;
/// Bytes of a tile of a factor: wide if the terms are its rows, narrow if they are its columns; each row has 8 numbers
/// more.
const WIDE: usize = 2 * STEP * (BLOCK + 8);
const NARROW: usize = 2 * BLOCK * (STEP + 8);
/// Tiles of each factor that are in shared memory.
const STAGES: usize = 3;
/// Rows and columns of C that a block of the kernel for anything computes.
const SMALL_BLOCK: usize = 16;

/// The kernels load 16 bytes at a time: this many numbers in bfloat16.
pub(crate) const ALIGNED_NUMBERS: usize = 8;

/// Whether the rows of a factor begin at multiples of 16 bytes.
pub(crate) fn is_aligned(factor: &Factor, batch: usize) -> bool {
    factor.number == Number::Bf16
        && factor.at.0.is_multiple_of(16)
        && factor.row_stride.is_multiple_of(ALIGNED_NUMBERS)
        && (batch == 1 || factor.batch_stride.is_multiple_of(ALIGNED_NUMBERS))
}

fn small(x: usize) -> Result<Arg> {
    u32::try_from(x)
        .map(Arg::U32)
        .map_err(|_| GpuError::Failed {
            operation: "a product".into(),
            reason: format!("a size of {x} is too large"),
        })
}

fn large(x: usize) -> Arg {
    Arg::U64(x as u64)
}

/// The grid of blocks of `size` rows and columns: those of a product along the first axis, since the others are short.
fn grid(gemm: &Gemm, size: usize) -> Result<[u32; 3]> {
    let blocks = gemm.m.div_ceil(size).checked_mul(gemm.n.div_ceil(size));
    let axis = |x: Option<usize>| x.and_then(|x| u32::try_from(x).ok());
    match (axis(blocks), axis(Some(gemm.batch))) {
        (Some(blocks), Some(batch)) => Ok([blocks, 1, batch]),
        _ => Err(GpuError::Failed {
            operation: "a product".into(),
            reason: format!("{} of {} x {} are too large", gemm.batch, gemm.m, gemm.n),
        }),
    }
}

/// Queues a product.
///
/// # Errors
/// If the launch fails.
///
/// # Safety
/// As [`Gpu::gemm`].
pub unsafe fn multiply(gpu: &dyn Gpu, gemm: &Gemm) -> Result<()> {
    if gemm.m == 0 || gemm.n == 0 || gemm.batch == 0 {
        return Ok(());
    }
    // SAFETY: the caller's guarantee.
    unsafe {
        match is_aligned(&gemm.a, gemm.batch) && is_aligned(&gemm.b, gemm.batch) {
            true => on_tensor_cores(gpu, gemm),
            false => anything(gpu, gemm),
        }
    }
}

fn pointers(gemm: &Gemm) -> [Arg; 3] {
    [gemm.a.at, gemm.b.at, gemm.c].map(|at: Address| Arg::Pointer(at))
}

unsafe fn on_tensor_cores(gpu: &dyn Gpu, gemm: &Gemm) -> Result<()> {
    let kernel = match (gemm.a.transposed, gemm.b.transposed, gemm.c_number) {
        (false, false, Number::F32) => "gemm_nn_f32",
        (false, true, Number::F32) => "gemm_nt_f32",
        (true, false, Number::F32) => "gemm_tn_f32",
        (true, true, Number::F32) => "gemm_tt_f32",
        (false, false, Number::Bf16) => "gemm_nn_bf16",
        (false, true, Number::Bf16) => "gemm_nt_bf16",
        (true, false, Number::Bf16) => "gemm_tn_bf16",
        (true, true, Number::Bf16) => "gemm_tt_bf16",
    };
    let tile = |wide: bool| if wide { WIDE } else { NARROW };
    let mut args = Vec::from(pointers(gemm));
    for size in [
        gemm.m,
        gemm.n,
        gemm.k,
        gemm.a.row_stride,
        gemm.b.row_stride,
        gemm.c_row_stride,
    ] {
        args.push(small(size)?);
    }
    args.extend(
        [
            gemm.a.batch_stride,
            gemm.b.batch_stride,
            gemm.c_batch_stride,
        ]
        .map(large),
    );
    args.extend([gemm.alpha, gemm.beta].map(Arg::F32));
    let launch = Launch {
        kernel,
        grid: grid(gemm, BLOCK)?,
        block: [128, 1, 1],
        shared: STAGES * (tile(gemm.a.transposed) + tile(!gemm.b.transposed)),
        args: &args,
    };
    // SAFETY: the caller's guarantee.
    unsafe { gpu.launch(&launch) }
}

unsafe fn anything(gpu: &dyn Gpu, gemm: &Gemm) -> Result<()> {
    let kernel = match (gemm.a.number, gemm.c_number) {
        (Number::F32, Number::F32) => "gemm_any_f32_f32",
        (Number::F32, Number::Bf16) => "gemm_any_f32_bf16",
        (Number::Bf16, Number::F32) => "gemm_any_bf16_f32",
        (Number::Bf16, Number::Bf16) => "gemm_any_bf16_bf16",
    };
    let strides = |factor: &Factor| match factor.transposed {
        false => [factor.row_stride, 1],
        true => [1, factor.row_stride],
    };
    let mut args = Vec::from(pointers(gemm));
    for size in [gemm.m, gemm.n, gemm.k] {
        args.push(small(size)?);
    }
    args.extend(
        [strides(&gemm.a), strides(&gemm.b)]
            .concat()
            .into_iter()
            .map(large),
    );
    args.extend(
        [
            gemm.c_row_stride,
            gemm.a.batch_stride,
            gemm.b.batch_stride,
            gemm.c_batch_stride,
        ]
        .map(large),
    );
    args.extend([gemm.alpha, gemm.beta].map(Arg::F32));
    let launch = Launch {
        kernel,
        grid: grid(gemm, SMALL_BLOCK)?,
        block: [256, 1, 1],
        shared: 0,
        args: &args,
    };
    // SAFETY: the caller's guarantee.
    unsafe { gpu.launch(&launch) }
}

//! Launches of the attention kernels in `kernels/flash_attention.cu`: bf16 rows, f32 log-denominators.

use crate::gpu::{Address, Arg, Gpu, Launch, MOST_BLOCKS, Result};
use tokenformer_device::AttentionDims;

/// Threads of a block: four warps.
const THREADS: u32 = 128;

/// How a kernel divides its work.
#[derive(Clone, Copy, Debug)]
struct Tiles {
    /// Rows that a block owns.
    rows: usize,
    /// Rows of the other side that are in shared memory at a time, twice.
    streamed: usize,
}

/// The kernels for heads of up to `channels` channels.
#[derive(Clone, Copy, Debug)]
struct Size {
    channels: usize,
    forward: (&'static str, Tiles),
    keys: (&'static str, Tiles),
    queries: (&'static str, Tiles),
}

macro_rules! size {
    ($channels:literal, $forward:expr, $keys:expr, $queries:expr) => {
        Size {
            channels: $channels,
            forward: (
                concat!("flash_forward_", $channels),
                tiles($forward.0, $forward.1),
            ),
            keys: (
                concat!("flash_backward_keys_", $channels),
                tiles($keys.0, $keys.1),
            ),
            queries: (
                concat!("flash_backward_queries_", $channels),
                tiles($queries.0, $queries.1),
            ),
        }
    };
}

const fn tiles(rows: usize, streamed: usize) -> Tiles {
    Tiles { rows, streamed }
}

/// The table at the end of `flash_attention.cu`: rows of a block and streamed rows, forward, for the gradients of keys, and
/// for those of queries.
const SIZES: [Size; 5] = [
    size!(32, (128, 64), (128, 32), (128, 64)),
    size!(64, (128, 64), (128, 32), (128, 32)),
    size!(80, (128, 64), (64, 32), (64, 64)),
    size!(96, (128, 32), (64, 32), (64, 32)),
    size!(128, (128, 32), (64, 32), (64, 32)),
];

impl Size {
    /// Bytes of a row in shared memory: 8 numbers more than channels keep its accesses free of bank conflicts.
    fn pitch(&self) -> usize {
        2 * (self.channels + 8)
    }

    /// Bytes of shared memory of a kernel that keeps `tiles` tiles of rows and streams two matrices in two stages.
    fn shared(&self, kept: usize, tiles: Tiles) -> usize {
        self.pitch() * (kept * tiles.rows + 4 * tiles.streamed)
    }
}

fn size(dims: &AttentionDims) -> Option<&'static Size> {
    SIZES.iter().find(|size| size.channels >= dims.channels)
}

/// Whether there are kernels for these sizes: heads of up to 128 channels, a multiple of 8, in tensors whose indices
/// the kernels can count.
pub fn supports(dims: &AttentionDims) -> bool {
    let limit = i32::MAX as usize;
    size(dims).is_some()
        && dims.channels > 0
        && dims.channels.is_multiple_of(8)
        && dims.heads <= MOST_BLOCKS[1] as usize
        && dims.batch <= MOST_BLOCKS[2] as usize
        && dims.width() <= limit
        && dims.key_stride <= limit / 2
        && dims.batch.saturating_mul(dims.queries) <= limit
}

/// The arguments that all kernels end with.
fn sizes(dims: &AttentionDims) -> [Arg; 11] {
    let width = Arg::U32(dims.width() as u32);
    [
        Arg::U32(dims.queries as u32),
        Arg::U32(dims.keys as u32),
        Arg::U32(dims.key_stride as u32),
        Arg::U32(dims.heads as u32),
        Arg::U32(dims.channels as u32),
        Arg::U32(u32::from(dims.causal)),
        width,
        width,
        width,
        width,
        Arg::F32(dims.scale()),
    ]
}

/// Launches a kernel over tiles of `rows` rows of all heads.
unsafe fn launch(
    gpu: &dyn Gpu,
    dims: &AttentionDims,
    kernel: &str,
    tiles: usize,
    shared: usize,
    pointers: &[Address],
) -> Result<()> {
    let args: Vec<Arg> = pointers
        .iter()
        .map(|at| Arg::Pointer(*at))
        .chain(sizes(dims))
        .collect();
    // SAFETY: the caller's guarantee.
    unsafe {
        gpu.launch(&Launch {
            kernel,
            grid: [tiles as u32, dims.heads as u32, dims.batch as u32],
            block: [THREADS, 1, 1],
            shared,
            args: &args,
        })
    }
}

/// Attention of bf16 rows: `o` `[B·T_q, D]` from queries `[B·T_q, D]`, keys and values `[B·key_stride, D]`. `log_sums`
/// `[B, H, T_q]`, in f32, receives the log-denominators that [`backward`] needs.
///
/// # Errors
/// If the launch fails.
///
/// # Panics
/// If the sizes are not supported, see [`supports`].
///
/// # Safety
/// The addresses are those of tensors of these shapes on this GPU.
pub unsafe fn forward(
    gpu: &dyn Gpu,
    dims: &AttentionDims,
    [q, k, v]: [Address; 3],
    o: Address,
    log_sums: Option<Address>,
) -> Result<()> {
    let size = checked(dims);
    if dims.batch * dims.queries == 0 {
        return Ok(());
    }
    let (kernel, tiles) = size.forward;
    let log_sums = log_sums.unwrap_or(Address(0));
    let blocks = dims.queries.div_ceil(tiles.rows);
    let shared = size.shared(1, tiles);
    // SAFETY: the kernel takes these tensors, and a null pointer for log-denominators that are not needed.
    unsafe { launch(gpu, dims, kernel, blocks, shared, &[q, k, v, o, log_sums]) }
}

/// Gradients of [`forward`], replaced, in bf16; `delta` `[B, H, T_q]` is scratch memory for f32. Key rows that are not
/// in use (`keys..key_stride`) keep their gradients.
///
/// # Errors
/// If a launch fails.
///
/// # Panics
/// If the sizes are not supported, see [`supports`].
///
/// # Safety
/// The addresses are those of tensors of these shapes on this GPU; `o` and `log_sums` are results of [`forward`].
#[allow(clippy::too_many_arguments)]
pub unsafe fn backward(
    gpu: &dyn Gpu,
    dims: &AttentionDims,
    [q, k, v]: [Address; 3],
    o: Address,
    log_sums: Address,
    d_o: Address,
    [dq, dk, dv]: [Address; 3],
    delta: Address,
) -> Result<()> {
    let size = checked(dims);
    let rows = dims.batch * dims.queries;
    if rows == 0 {
        return Ok(());
    }
    // Sixteen lanes sum a row of a head.
    let blocks = (rows * dims.heads).div_ceil(THREADS as usize / 16);
    let sums = Launch {
        kernel: "flash_delta",
        grid: [blocks as u32, 1, 1],
        block: [THREADS, 1, 1],
        shared: 0,
        args: &[
            Arg::Pointer(o),
            Arg::Pointer(d_o),
            Arg::Pointer(delta),
            Arg::U32(rows as u32),
            Arg::U32(dims.queries as u32),
            Arg::U32(dims.heads as u32),
            Arg::U32(dims.channels as u32),
            Arg::U32(dims.width() as u32),
        ],
    };
    // SAFETY: the kernel takes these tensors.
    unsafe { gpu.launch(&sums)? };
    let (kernel, tiles) = size.keys;
    let blocks = dims.keys.div_ceil(tiles.rows);
    // Two stages of log-denominators and deltas.
    let shared = size.shared(2, tiles) + 16 * tiles.streamed;
    // SAFETY: as above.
    unsafe {
        let pointers = [q, k, v, d_o, log_sums, delta, dk, dv];
        launch(gpu, dims, kernel, blocks, shared, &pointers)?;
    }
    let (kernel, tiles) = size.queries;
    let blocks = dims.queries.div_ceil(tiles.rows);
    let shared = size.shared(2, tiles);
    // SAFETY: as above.
    unsafe {
        let pointers = [q, k, v, d_o, log_sums, delta, dq];
        launch(gpu, dims, kernel, blocks, shared, &pointers)
    }
}

fn checked(dims: &AttentionDims) -> &'static Size {
    assert!(supports(dims), "no attention kernel for {dims:?}");
    assert!(dims.keys >= dims.queries && dims.key_stride >= dims.keys);
    size(dims).unwrap_or(&SIZES[SIZES.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest limit of shared memory of a block among the architectures: that of 8.6, 8.9 and 12.0.
    const SMALLEST_SHARED: usize = 99 << 10;

    #[test]
    fn every_kernel_fits_into_shared_memory() {
        for size in SIZES {
            let all = [
                size.shared(1, size.forward.1),
                size.shared(2, size.keys.1) + 16 * size.keys.1.streamed,
                size.shared(2, size.queries.1),
            ];
            assert!(all.iter().all(|bytes| *bytes <= SMALLEST_SHARED), "{all:?}");
        }
    }

    #[test]
    fn the_table_is_that_of_the_kernels() {
        let text = include_str!("../../kernels/flash_attention.cu");
        for size in SIZES {
            for ((name, tiles), run) in [
                (size.forward, "RUN_FORWARD"),
                (size.keys, "RUN_KEYS"),
                (size.queries, "RUN_QUERIES"),
            ] {
                let line = text
                    .lines()
                    .find(|line| line.contains(&format!("({name},")));
                let call = format!(
                    "{run}({}, {}, {})",
                    size.channels,
                    tiles.rows / 64,
                    tiles.streamed
                );
                assert!(line.is_some_and(|line| line.ends_with(&call)), "{call}");
            }
        }
    }
}

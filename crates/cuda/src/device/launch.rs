//! Launches of kernels from the operations of the device.

use super::Cuda;
use crate::gpu::{Address, Arg, Launch};
use tokenformer_device::Result;

/// The name of a kernel that exists for both types of numbers: `$base` and the type.
macro_rules! named {
    ($base:literal, $number:expr) => {
        match $number {
            $crate::gpu::Number::F32 => concat!($base, "_f32"),
            $crate::gpu::Number::Bf16 => concat!($base, "_bf16"),
        }
    };
    ($base:literal, $first:expr, $second:expr) => {
        match $first {
            $crate::gpu::Number::F32 => named!(concat $base, "_f32", $second),
            $crate::gpu::Number::Bf16 => named!(concat $base, "_bf16", $second),
        }
    };
    (concat $base:literal, $first:literal, $second:expr) => {
        match $second {
            $crate::gpu::Number::F32 => concat!($base, $first, "_f32"),
            $crate::gpu::Number::Bf16 => concat!($base, $first, "_bf16"),
        }
    };
}
pub(super) use named;

impl From<Address> for Arg {
    fn from(at: Address) -> Self {
        Self::Pointer(at)
    }
}

impl From<Option<Address>> for Arg {
    /// A pointer that may be null.
    fn from(at: Option<Address>) -> Self {
        Self::Pointer(at.unwrap_or(Address(0)))
    }
}

impl From<u32> for Arg {
    fn from(x: u32) -> Self {
        Self::U32(x)
    }
}

impl From<bool> for Arg {
    fn from(x: bool) -> Self {
        Self::U32(x.into())
    }
}

impl From<u64> for Arg {
    fn from(x: u64) -> Self {
        Self::U64(x)
    }
}

impl From<f32> for Arg {
    fn from(x: f32) -> Self {
        Self::F32(x)
    }
}

impl From<f64> for Arg {
    fn from(x: f64) -> Self {
        Self::F64(x)
    }
}

/// The list of a kernel's arguments.
macro_rules! args {
    ($($arg:expr),+ $(,)?) => { &[$($crate::gpu::Arg::from($arg)),+] };
}
pub(super) use args;

/// A size as kernels take it.
///
/// # Panics
/// If it does not fit: no dimension of a model has 4 billion numbers.
pub(super) fn size(x: usize) -> u32 {
    u32::try_from(x).expect("a dimension fits 32 bits")
}

/// Threads of a block of kernels with a thread per number, and of those that say 256.
pub(super) const THREADS: u32 = 256;
/// Threads of a block that works for a row. Fixed: sums along a row then do not depend on its length when zeros are
/// appended, which exact growth relies on.
pub(super) const ROW_THREADS: u32 = 128;

impl Cuda {
    /// Runs a kernel on a grid of blocks of `threads`. An empty grid does nothing.
    ///
    /// # Safety
    /// The arguments are what the kernel takes, and the kernel stays inside of the buffers that they point to.
    pub(super) unsafe fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        threads: u32,
        shared: usize,
        args: &[Arg],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let launch = Launch {
            kernel,
            grid,
            block: [threads, 1, 1],
            shared,
            args,
        };
        // SAFETY: the caller's guarantee.
        self.done(kernel, unsafe { self.gpu.launch(&launch) })
    }

    /// Runs a kernel with a thread for each of `count` numbers.
    ///
    /// # Safety
    /// As [`Cuda::launch`].
    pub(super) unsafe fn each(&self, kernel: &str, count: usize, args: &[Arg]) -> Result<()> {
        let grid = [size(count.div_ceil(THREADS as usize)), 1, 1];
        // SAFETY: the caller's guarantee.
        unsafe { self.launch(kernel, grid, THREADS, 0, args) }
    }

    /// Runs a kernel with a block for each of `rows` rows.
    ///
    /// # Safety
    /// As [`Cuda::launch`].
    pub(super) unsafe fn each_row(
        &self,
        kernel: &str,
        rows: usize,
        threads: u32,
        args: &[Arg],
    ) -> Result<()> {
        // SAFETY: the caller's guarantee.
        unsafe { self.launch(kernel, [size(rows), 1, 1], threads, 0, args) }
    }
}

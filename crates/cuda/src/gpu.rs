//! What the device needs of a GPU: memory, launches of kernels, products. [`crate::Cuda`] is written against this
//! trait, so that everything above it runs on a driver, on the emulator and, for plans of memory, on nothing.

use std::fmt;

/// An address in the memory of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub u64);

impl Address {
    /// The address `bytes` further on.
    pub fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// The type of numbers in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// 4 bytes.
    F32,
    /// The upper half of an f32.
    Bf16,
}

impl Number {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// The end of the names of kernels for this type.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// There is not enough memory.
    #[error("{bytes} bytes more than there are")]
    OutOfMemory {
        /// Bytes requested.
        bytes: usize,
    },
    /// A call of the driver or a kernel failed.
    #[error("{operation}: {reason}")]
    Failed {
        /// The call, or the kernel's name.
        operation: String,
        /// What the driver said.
        reason: String,
    },
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, GpuError>;

/// An argument of a kernel, by its C type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// A pointer.
    Pointer(Address),
    /// `u32`.
    U32(u32),
    /// `u64`.
    U64(u64),
    /// `float`.
    F32(f32),
    /// `double`.
    F64(f64),
}

impl Arg {
    /// The argument's bytes, at the start of 8, and how many they are.
    pub fn bytes(self) -> ([u8; 8], usize) {
        let four = |x: [u8; 4]| ([x[0], x[1], x[2], x[3], 0, 0, 0, 0], 4);
        match self {
            Self::Pointer(Address(x)) | Self::U64(x) => (x.to_ne_bytes(), 8),
            Self::F64(x) => (x.to_ne_bytes(), 8),
            Self::U32(x) => four(x.to_ne_bytes()),
            Self::F32(x) => four(x.to_ne_bytes()),
        }
    }
}

/// A launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The kernel's name; it is unique over all files of kernels.
    pub kernel: &'a str,
    /// Blocks of the grid.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory. More than 48 KiB need the kernel's attribute, which the implementation sets.
    pub shared: usize,
    /// The arguments, in the order of the kernel's parameters.
    pub args: &'a [Arg],
}

/// The largest numbers of blocks along the axes of a grid, on every GPU.
pub const MOST_BLOCKS: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];

impl Launch<'_> {
    /// Refuses a grid that no driver accepts.
    ///
    /// # Errors
    /// [`GpuError::Failed`].
    pub fn check(&self) -> Result<()> {
        let mut axes = self.grid.iter().zip(MOST_BLOCKS);
        match axes.all(|(blocks, most)| (1..=most).contains(blocks)) {
            true => Ok(()),
            false => Err(GpuError::Failed {
                operation: self.kernel.into(),
                reason: format!(
                    "a grid of {:?} blocks, where {MOST_BLOCKS:?} are the most",
                    self.grid
                ),
            }),
        }
    }
}

/// A factor of a product.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    /// Its first number.
    pub at: Address,
    /// The type of its numbers.
    pub number: Number,
    /// Numbers between the starts of two stored rows.
    pub row_stride: usize,
    /// Whether the stored matrix is transposed before it is multiplied.
    pub transposed: bool,
    /// Numbers between the starts of two matrices of a batch.
    pub batch_stride: usize,
}

/// Products `C = alpha · A·B + beta · C` of matrices that are stored row by row, `A` `[m, k]`, `B` `[k, n]`, `C`
/// `[m, n]`; sums are in f32. Both factors have the same type.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// Rows of the product.
    pub m: usize,
    /// Columns of the product.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Left factor.
    pub a: Factor,
    /// Right factor.
    pub b: Factor,
    /// The product's first number.
    pub c: Address,
    /// The type of the product's numbers.
    pub c_number: Number,
    /// Numbers between the starts of two rows of the product.
    pub c_row_stride: usize,
    /// Numbers between the starts of two products of a batch.
    pub c_batch_stride: usize,
    /// Factor of the product.
    pub alpha: f32,
    /// 0 (C is replaced, and may hold NaN before) or 1 (the product is added).
    pub beta: f32,
    /// Products that are computed, at least 1.
    pub batch: usize,
}

/// Scratch memory of the algorithms of cuBLASLt, which NVIDIA recommends for its newer GPUs.
pub(crate) const WORKSPACE_BYTES: usize = 32 << 20;

/// Bytes of a GPU's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that can be allocated.
    pub free: usize,
    /// All bytes.
    pub total: usize,
}

/// A GPU, or an emulator of one. All work is done in the order of the calls, possibly later; [`Gpu::download`] and
/// [`Gpu::synchronize`] wait for it.
///
/// # Safety of the unsafe functions
/// Addresses lie in memory of this GPU that [`Gpu::alloc`] returned and that was not freed, with as many bytes after
/// them as the call reads or writes; arguments are what the kernel of that name takes.
#[allow(clippy::missing_safety_doc)]
pub trait Gpu: Send + Sync + fmt::Debug {
    /// Human-readable description: name, architecture, versions.
    fn describe(&self) -> String;

    /// Memory of `bytes > 0` bytes at a multiple of 256, with arbitrary content.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    fn alloc(&self, bytes: usize) -> Result<Address>;

    /// Returns memory of [`Gpu::alloc`]. Work that was queued before may still use it.
    unsafe fn free(&self, at: Address, bytes: usize);

    /// Says that the content of memory is no longer needed. The emulator makes it NaN.
    unsafe fn discard(&self, _at: Address, _bytes: usize) {}

    /// Copies from the host, whose memory may change as soon as the call returns.
    unsafe fn upload(&self, from: &[u8], to: Address) -> Result<()>;

    /// Copies to the host and waits for it.
    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<()>;

    /// Copies between disjoint regions.
    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()>;

    /// Sets bytes to zero.
    unsafe fn zero(&self, at: Address, bytes: usize) -> Result<()>;

    /// Runs a kernel.
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()>;

    /// Multiplies matrices.
    unsafe fn gemm(&self, gemm: &Gemm) -> Result<()>;

    /// Waits until all work is done, and returns its error if it failed.
    fn synchronize(&self) -> Result<()>;

    /// The memory that there is.
    fn memory(&self) -> Result<Memory>;

    /// Bytes of the segments that memory for temporaries is cut from; with 0, every temporary is allocated separately.
    fn segment_bytes(&self) -> usize {
        32 << 20
    }

    /// Bytes that the implementation holds for libraries, beyond what was allocated.
    fn scratch_bytes(&self) -> usize {
        0
    }
}

//! The emulator as a GPU: the kernels as C++, one fiber per thread. For tests; see `emulator/cuda_emu.h` for what it
//! makes visible.

use crate::gemm;
use crate::gpu::{Address, Factor, Gemm, Gpu, GpuError, Launch, Memory, Number, Result};
use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

type LaunchFn = unsafe extern "C" fn(
    name: *const c_char,
    grid: *const u32,
    block: *const u32,
    shared: usize,
    args: *mut *mut c_void,
    sizes: *const usize,
    count: usize,
    seed: u32,
) -> *const c_char;

#[cfg(emulated_kernels)]
unsafe extern "C" {
    fn tokenformer_emulated_launch(
        name: *const c_char,
        grid: *const u32,
        block: *const u32,
        shared: usize,
        args: *mut *mut c_void,
        sizes: *const usize,
        count: usize,
        seed: u32,
    ) -> *const c_char;
}

/// Shared memory of the emulated kernels is static, so one kernel runs at a time.
static RUNNING: Mutex<()> = Mutex::new(());

/// Bytes after every allocation that no kernel may change.
const GUARD: usize = 64;
/// What guards hold, again and again: a signalling NaN in every type. A read beyond the end is noticed, and so is a result
/// of arithmetic that is written there, since that makes a NaN quiet and with it another number.
const GUARD_BYTES: [u8; 2] = [0xa5, 0x7f];
/// New memory holds NaN in every type.
const POISON: u8 = 0xff;
const ALIGNMENT: usize = 256;

/// A GPU that is emulated on the CPU.
pub struct Emulated {
    seed: u32,
    kernels: LaunchFn,
    /// Keeps the code of `kernels` loaded.
    _library: Option<libloading::Library>,
    /// Bytes after every allocation; none for a sanitizer, which has its own.
    guard: usize,
    total: usize,
    /// Whether products are computed by the program's own kernels, as where cuBLASLt is missing.
    own_products: bool,
    /// Sizes of allocations by address.
    blocks: Mutex<HashMap<u64, usize>>,
}

impl fmt::Debug for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

fn failed(operation: &str, reason: impl Into<String>) -> GpuError {
    GpuError::Failed {
        operation: operation.into(),
        reason: reason.into(),
    }
}

impl Emulated {
    /// Memory of an emulated GPU, unless [`Emulated::with_memory`] says otherwise.
    const DEFAULT_MEMORY: usize = 8 << 30;

    /// An emulated GPU whose threads run in the order that `seed` chooses: 0 ascending, 1 descending, others shuffled.
    ///
    /// # Errors
    /// If the crate was built without a C++ compiler.
    #[cfg(emulated_kernels)]
    pub fn new(seed: u32) -> Result<Self> {
        Ok(Self::with(seed, tokenformer_emulated_launch, None, GUARD))
    }

    /// An emulated GPU.
    ///
    /// # Errors
    /// Always: the crate was built without a C++ compiler.
    #[cfg(not(emulated_kernels))]
    pub fn new(_seed: u32) -> Result<Self> {
        Err(failed(
            "the emulator",
            "there was no C++ compiler when the program was built",
        ))
    }

    /// As [`Emulated::new`], with the kernels of a shared library that was built from `emulator/emulated.cpp`: mutants,
    /// or kernels with sanitizers.
    ///
    /// # Errors
    /// If the library cannot be loaded.
    ///
    /// # Safety
    /// The library is such a build.
    pub unsafe fn from_library(path: &OsStr, seed: u32) -> Result<Self> {
        let bad = |error: libloading::Error| failed("loading emulated kernels", error.to_string());
        // SAFETY: the caller says what library it is.
        let library = unsafe { libloading::Library::new(path) }.map_err(bad)?;
        // SAFETY: that library exports the function with this type.
        let launch: LaunchFn =
            *unsafe { library.get(b"tokenformer_emulated_launch\0") }.map_err(bad)?;
        Ok(Self::with(seed, launch, Some(library), GUARD))
    }

    fn with(
        seed: u32,
        kernels: LaunchFn,
        library: Option<libloading::Library>,
        guard: usize,
    ) -> Self {
        Self {
            seed,
            kernels,
            _library: library,
            guard,
            total: Self::DEFAULT_MEMORY,
            own_products: false,
            blocks: Mutex::default(),
        }
    }

    /// Without bytes after allocations: for a sanitizer, which notices accesses beyond the end itself.
    pub fn without_guards(mut self) -> Self {
        self.guard = 0;
        self
    }

    /// With products by the program's own kernels.
    pub fn with_own_products(mut self) -> Self {
        self.own_products = true;
        self
    }

    /// With this many bytes of memory.
    pub fn with_memory(mut self, total: usize) -> Self {
        self.total = total;
        self
    }

    fn blocks(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(&self, bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes.checked_add(self.guard)?, ALIGNMENT).ok()
    }

    /// Whether nothing was written directly after the allocation.
    fn guard_is_whole(&self, at: u64, bytes: usize) -> bool {
        // SAFETY: the allocation has `guard` bytes after its `bytes`.
        let guard = unsafe { std::slice::from_raw_parts((at as *const u8).add(bytes), self.guard) };
        let expected = GUARD_BYTES.iter().cycle().skip(bytes % 2);
        guard
            .iter()
            .zip(expected)
            .all(|(byte, whole)| byte == whole)
    }

    fn check_guards(&self, operation: &str) -> Result<()> {
        match self
            .blocks()
            .iter()
            .find(|(at, bytes)| !self.guard_is_whole(**at, **bytes))
        {
            None => Ok(()),
            Some((_, bytes)) => Err(failed(
                operation,
                format!("it wrote beyond the end of {bytes} bytes"),
            )),
        }
    }
}

impl Gpu for Emulated {
    fn describe(&self) -> String {
        format!("emulated GPU, thread order {}", self.seed)
    }

    fn alloc(&self, bytes: usize) -> Result<Address> {
        assert!(bytes > 0, "memory of no bytes");
        let mut blocks = self.blocks();
        let used: usize = blocks.values().sum();
        let fits = used.checked_add(bytes).is_some_and(|sum| sum <= self.total);
        let layout = self.layout(bytes).filter(|_| fits);
        let layout = layout.ok_or(GpuError::OutOfMemory { bytes })?;
        // SAFETY: the layout has at least one byte.
        let at = unsafe { std::alloc::alloc(layout) };
        if at.is_null() {
            return Err(GpuError::OutOfMemory { bytes });
        }
        // SAFETY: both regions are inside of the new allocation.
        unsafe {
            at.write_bytes(POISON, bytes);
            let pattern = GUARD_BYTES.iter().cycle().skip(bytes % 2);
            for (i, byte) in pattern.take(self.guard).enumerate() {
                at.add(bytes + i).write(*byte);
            }
        }
        blocks.insert(at as u64, bytes);
        Ok(Address(at as u64))
    }

    unsafe fn free(&self, at: Address, bytes: usize) {
        let known = self.blocks().remove(&at.0);
        assert_eq!(
            known,
            Some(bytes),
            "memory is freed once, as it was allocated"
        );
        let layout = self.layout(bytes).expect("it was valid at the allocation");
        // SAFETY: the memory was allocated with this layout, and is freed once.
        unsafe { std::alloc::dealloc(at.0 as *mut u8, layout) };
    }

    unsafe fn discard(&self, at: Address, bytes: usize) {
        // SAFETY: the caller's guarantee.
        unsafe { (at.0 as *mut u8).write_bytes(POISON, bytes) };
    }

    unsafe fn upload(&self, from: &[u8], to: Address) -> Result<()> {
        // SAFETY: the caller's guarantee; the host's memory is none of the GPU's.
        unsafe { (to.0 as *mut u8).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<()> {
        // SAFETY: as above.
        unsafe {
            to.as_mut_ptr()
                .copy_from_nonoverlapping(from.0 as *const u8, to.len())
        };
        Ok(())
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        // SAFETY: the caller's guarantee.
        unsafe { (to.0 as *mut u8).copy_from_nonoverlapping(from.0 as *const u8, bytes) };
        Ok(())
    }

    unsafe fn zero(&self, at: Address, bytes: usize) -> Result<()> {
        // SAFETY: the caller's guarantee.
        unsafe { (at.0 as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        launch.check()?;
        let name = CString::new(launch.kernel).map_err(|e| failed(launch.kernel, e.to_string()))?;
        let mut bytes: Vec<([u8; 8], usize)> = launch.args.iter().map(|arg| arg.bytes()).collect();
        let sizes: Vec<usize> = bytes.iter().map(|(_, size)| *size).collect();
        let mut args: Vec<*mut c_void> = bytes
            .iter_mut()
            .map(|(x, _)| x.as_mut_ptr().cast())
            .collect();
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the library checks number and sizes of the arguments, the caller guarantees the rest. `name`, `sizes`
        // and `args` live until the call returns, and only one kernel runs at a time.
        let problem = unsafe {
            (self.kernels)(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.block.as_ptr(),
                launch.shared,
                args.as_mut_ptr(),
                sizes.as_ptr(),
                args.len(),
                self.seed,
            )
        };
        if !problem.is_null() {
            // SAFETY: a text that ends with 0, valid until the next launch.
            let problem = unsafe { CStr::from_ptr(problem) }.to_string_lossy();
            return Err(failed(launch.kernel, problem));
        }
        drop(running);
        self.check_guards(launch.kernel)
    }

    unsafe fn gemm(&self, gemm: &Gemm) -> Result<()> {
        if self.own_products {
            // SAFETY: the caller's guarantee.
            return unsafe { gemm::multiply(self, gemm) };
        }
        for batch in 0..gemm.batch {
            // SAFETY: the caller's guarantee.
            unsafe { multiply(gemm, batch) };
        }
        self.check_guards("a product")
    }

    /// None, so that a kernel that writes beyond the end of a temporary is noticed.
    fn segment_bytes(&self) -> usize {
        0
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Result<Memory> {
        let used: usize = self.blocks().values().sum();
        Ok(Memory {
            free: self.total.saturating_sub(used),
            total: self.total,
        })
    }
}

/// Rounds to the nearest bfloat16, ties to even.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    match x.is_nan() {
        true => 0x7fff,
        false => ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16,
    }
}

unsafe fn number(at: u64, number: Number, index: usize) -> f32 {
    // SAFETY: the caller's guarantee.
    unsafe {
        match number {
            Number::F32 => *(at as *const f32).add(index),
            Number::Bf16 => f32::from_bits(u32::from(*(at as *const u16).add(index)) << 16),
        }
    }
}

/// The matrix `[rows, cols]` of a factor, row by row.
unsafe fn gather(factor: &Factor, batch: usize, rows: usize, cols: usize) -> Vec<f32> {
    let first = batch * factor.batch_stride;
    let mut out = Vec::with_capacity(rows * cols);
    for row in 0..rows {
        for col in 0..cols {
            let at = match factor.transposed {
                false => row * factor.row_stride + col,
                true => col * factor.row_stride + row,
            };
            // SAFETY: the caller's guarantee.
            out.push(unsafe { number(factor.at.0, factor.number, first + at) });
        }
    }
    out
}

/// One product of a batch, with sums in f32.
unsafe fn multiply(gemm: &Gemm, batch: usize) {
    let Gemm { m, n, k, .. } = *gemm;
    // SAFETY: the caller's guarantee.
    let (a, b) = unsafe { (gather(&gemm.a, batch, m, k), gather(&gemm.b, batch, k, n)) };
    let mut row = vec![0.0f32; n];
    for i in 0..m {
        row.fill(0.0);
        for l in 0..k {
            let factor = a[i * k + l];
            let b = &b[l * n..][..n];
            row.iter_mut().zip(b).for_each(|(c, b)| *c += factor * b);
        }
        for (j, sum) in row.iter().enumerate() {
            let at = batch * gemm.c_batch_stride + i * gemm.c_row_stride + j;
            // SAFETY: the caller's guarantee.
            unsafe {
                let old = match gemm.beta {
                    0.0 => 0.0,
                    beta => beta * number(gemm.c.0, gemm.c_number, at),
                };
                let new = gemm.alpha * sum + old;
                match gemm.c_number {
                    Number::F32 => *(gemm.c.0 as *mut f32).add(at) = new,
                    Number::Bf16 => *(gemm.c.0 as *mut u16).add(at) = to_bf16(new),
                }
            }
        }
    }
}

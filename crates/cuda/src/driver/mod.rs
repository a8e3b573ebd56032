//! An NVIDIA GPU. Its libraries are loaded at run time, so the program is built and starts without them; [`OpenError`] says
//! which are missing. Kernels are compiled by NVRTC when they are first used, and cached on disk.
//!
//! All calls of the driver are here, because their arguments are raw addresses.

mod compile;
mod error;
mod find;
mod products;

pub use compile::{Cache, Compiled, compile};
pub use error::OpenError;
pub use find::{Found, FoundDevice, Version};

use crate::gemm;
use crate::gpu::{Address, Gemm, Gpu, GpuError, Launch, Memory, Result, WORKSPACE_BYTES};
use crate::sources::SOURCES;
use cudarc::driver::{DriverError, result as cuda, sys};
use products::Products;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The oldest driver, by its CUDA version.
const OLDEST_DRIVER: Version = Version(12, 0);
/// The oldest architecture: bfloat16 on tensor cores, and asynchronous copies.
const OLDEST_DEVICE: Version = Version(8, 0);
/// Dynamic shared memory that a kernel may have without being asked for.
const USUAL_SHARED: usize = 48 << 10;

/// How a GPU is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of the GPU.
    pub index: usize,
    /// Whether products of f32 numbers may round their factors to TF32.
    pub tf32: bool,
    /// Where compiled kernels are kept.
    pub cache: Cache,
    /// Whether cuBLASLt is used where it is found.
    pub libraries: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            index: 0,
            tf32: false,
            cache: Cache::of_user(),
            libraries: true,
        }
    }
}

/// A kernel that is loaded.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    function: sys::CUfunction,
    /// Dynamic shared memory that the driver allows it.
    shared: usize,
}

/// A GPU, with one stream on which all work is queued.
pub struct Driver {
    description: String,
    capability: Version,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Whether the driver keeps freed memory in a pool; if not, memory is freed after the work is done.
    pooled: bool,
    products: Option<Products>,
    workspace: Option<Address>,
    cache: Cache,
    kernels: Mutex<HashMap<String, Kernel>>,
    modules: Mutex<HashMap<&'static str, sys::CUmodule>>,
}

// SAFETY: the driver's handles may be used from any thread in which the context is current, which every call sees to.
unsafe impl Send for Driver {}
// SAFETY: as above; tables are behind locks.
unsafe impl Sync for Driver {}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

fn opening(operation: &'static str) -> impl Fn(DriverError) -> OpenError {
    move |error| OpenError::Failed {
        operation,
        reason: find::reason(&error),
    }
}

fn failed(operation: &str) -> impl Fn(DriverError) -> GpuError + '_ {
    move |error| GpuError::Failed {
        operation: operation.into(),
        reason: find::reason(&error),
    }
}

/// The device with a number, if driver and device can be used.
fn device(index: usize) -> std::result::Result<(sys::CUdevice, Version), OpenError> {
    if !find::has_driver() {
        return Err(OpenError::NoDriver);
    }
    let found = Found::look();
    if let Some(reason) = found.driver_problem {
        return Err(OpenError::Driver { reason });
    }
    let got = found.driver.unwrap_or(Version(0, 0));
    if got < OLDEST_DRIVER {
        let needed = OLDEST_DRIVER;
        return Err(OpenError::OldDriver { needed, got });
    }
    let count = found.devices.len();
    let wanted = found.devices.get(index);
    let wanted = wanted.ok_or(OpenError::NoDevice { index, count })?;
    if wanted.capability < OLDEST_DEVICE {
        return Err(OpenError::OldDevice {
            name: wanted.name.clone(),
            needed: OLDEST_DEVICE,
            got: wanted.capability,
        });
    }
    // The number is below the driver's count, which is a C int.
    let device = cuda::device::get(index as i32).map_err(opening("getting the GPU"))?;
    Ok((device, wanted.capability))
}

impl Driver {
    /// Opens a GPU as [`Options::default`] says.
    ///
    /// # Errors
    /// Says in one line why it cannot be opened; [`Driver::with`] also says what to do about it.
    pub fn open(index: usize) -> Result<Self> {
        let options = Options {
            index,
            ..Options::default()
        };
        Self::with(options).map_err(|error| GpuError::Failed {
            operation: format!("opening GPU {index}"),
            reason: error.to_string().lines().next().unwrap_or_default().into(),
        })
    }

    /// Opens a GPU. Kernels are compiled when they are first launched, or by [`Driver::load_all`].
    ///
    /// # Errors
    /// Says why it cannot be opened, and what to do about it.
    pub fn with(options: Options) -> std::result::Result<Self, OpenError> {
        let (device, capability) = device(options.index)?;
        let name = cuda::device::get_name(device).map_err(opening("asking for the GPU's name"))?;
        // SAFETY: the device comes from the driver; the context is released when the value is dropped.
        let context = unsafe { cuda::primary_ctx::retain(device) };
        let context = context.map_err(opening("making a context on the GPU"))?;
        let mut driver = Self {
            description: format!("{name}, compute capability {capability}"),
            capability,
            device,
            context,
            stream: std::ptr::null_mut(),
            pooled: false,
            products: None,
            workspace: None,
            cache: options.cache,
            kernels: Mutex::default(),
            modules: Mutex::default(),
        };
        driver.enter().map_err(opening("using the GPU's context"))?;
        driver.stream = cuda::stream::create(cuda::stream::StreamKind::NonBlocking)
            .map_err(opening("making a stream"))?;
        driver.pooled = driver.keep_freed_memory();
        if options.libraries && find::has_products() {
            let refused = |error: GpuError| OpenError::Failed {
                operation: "starting cuBLASLt",
                reason: error.to_string(),
            };
            let workspace = driver.alloc(WORKSPACE_BYTES).map_err(refused)?;
            driver.workspace = Some(workspace);
            let products = Products::new(driver.stream.cast(), workspace, options.tf32);
            driver.products = Some(products.map_err(refused)?);
        }
        driver.description += match &driver.products {
            Some(_) => ", cuBLASLt",
            None => ", products by own kernels",
        };
        if options.tf32 {
            driver.description += ", TF32";
        }
        Ok(driver)
    }

    /// The compute capability.
    pub fn capability(&self) -> Version {
        self.capability
    }

    /// Compiles and loads all kernels, so that a compiler that is missing is known before work begins.
    ///
    /// # Errors
    /// [`OpenError::NoCompiler`], [`OpenError::Compiler`] or [`OpenError::Module`].
    pub fn load_all(&self) -> std::result::Result<(), OpenError> {
        self.enter().map_err(opening("using the GPU's context"))?;
        SOURCES
            .iter()
            .try_for_each(|source| self.module(source.name).map(drop))
    }

    /// Milliseconds from the queueing of work by `queue` to its end. The clock is the host's: that of the GPU needs a newer
    /// driver than all else does, and in work of milliseconds what a launch costs does not show.
    ///
    /// # Errors
    /// The errors of `queue` and of the driver.
    pub fn time_ms(&self, queue: impl FnOnce() -> Result<()>) -> Result<f32> {
        self.synchronize()?;
        let started = Instant::now();
        queue()?;
        self.synchronize()?;
        Ok(1e3 * started.elapsed().as_secs_f32())
    }

    /// Makes the context current in this thread.
    fn enter(&self) -> std::result::Result<(), DriverError> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { cuda::ctx::set_current(self.context) }
    }

    /// Tells the driver to keep freed memory, as otherwise every synchronisation would give it back; says whether it
    /// has pools of memory at all.
    fn keep_freed_memory(&self) -> bool {
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let mut all = u64::MAX;
        // SAFETY: device and pool come from the driver, and the attribute is a u64.
        unsafe {
            cuda::device::get_attribute(self.device, attribute).is_ok_and(|yes| yes != 0)
                && cuda::device::get_mem_pool(self.device)
                    .and_then(|pool| {
                        let all = (&raw mut all).cast::<c_void>();
                        cuda::mem_pool::set_attribute(pool, threshold, all)
                    })
                    .is_ok()
        }
    }

    /// Bytes of freed memory that the driver's pool keeps; they can be allocated again.
    fn kept_bytes(&self) -> usize {
        use sys::CUmemPool_attribute as Of;
        let read = |attribute| {
            let mut bytes = 0u64;
            // SAFETY: device and pool come from the driver, and the attribute is a u64.
            let read = unsafe {
                cuda::device::get_mem_pool(self.device).and_then(|pool| {
                    let bytes = (&raw mut bytes).cast::<c_void>();
                    cuda::mem_pool::get_attribute(pool, attribute, bytes)
                })
            };
            read.map_or(0, |()| bytes)
        };
        match self.pooled {
            true => {
                let reserved = read(Of::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
                reserved.saturating_sub(read(Of::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)) as usize
            }
            false => 0,
        }
    }

    /// The module of a file of kernels, loaded if it was not. The context is current.
    fn module(&self, name: &'static str) -> std::result::Result<sys::CUmodule, OpenError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(name) {
            return Ok(*module);
        }
        let source = SOURCES.iter().find(|source| source.name == name);
        let source = source.ok_or_else(|| OpenError::Module {
            file: format!("{name}.cu"),
            reason: "there is no such file".into(),
        })?;
        let load = |code: &[u8]| {
            // PTX is text, so the driver expects a zero at its end.
            let code = [code, &[0]].concat();
            // SAFETY: the code is the compiler's, whole, and ends with a zero.
            let module = unsafe { cuda::module::load_data(code.as_ptr().cast()) };
            module.map_err(|error| find::reason(&error))
        };
        let module = self.cache.load(source, self.capability, load)?;
        modules.insert(name, module);
        Ok(module)
    }

    /// A kernel that may use this much dynamic shared memory. The context is current.
    fn kernel(&self, name: &str, shared: usize) -> Result<sys::CUfunction> {
        let failed = |reason: String| GpuError::Failed {
            operation: name.into(),
            reason,
        };
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kernel = match kernels.get(name) {
            Some(kernel) => *kernel,
            None => {
                let source = SOURCES
                    .iter()
                    .find(|source| source.kernels().any(|kernel| kernel == name));
                let source = source.ok_or_else(|| failed("there is no such kernel".into()))?;
                let module = self
                    .module(source.name)
                    .map_err(|error| failed(error.to_string()))?;
                let text = CString::new(name).map_err(|error| failed(error.to_string()))?;
                // SAFETY: the module is loaded.
                let function = unsafe { cuda::module::get_function(module, text) };
                let function = function.map_err(|error| failed(find::reason(&error)))?;
                Kernel {
                    function,
                    shared: USUAL_SHARED,
                }
            }
        };
        if shared > kernel.shared {
            let attribute =
                sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(shared).map_err(|error| failed(error.to_string()))?;
            // SAFETY: the function is loaded.
            let allowed = unsafe {
                cuda::function::set_function_attribute(kernel.function, attribute, bytes)
            };
            allowed.map_err(|error| {
                failed(format!(
                    "{shared} bytes of shared memory: {}",
                    find::reason(&error)
                ))
            })?;
            kernel.shared = shared;
        }
        kernels.insert(name.into(), kernel);
        Ok(kernel.function)
    }
}

impl Gpu for Driver {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn alloc(&self, bytes: usize) -> Result<Address> {
        let fail = |error: DriverError| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => GpuError::OutOfMemory { bytes },
            _ => failed("allocating memory")(error),
        };
        self.enter().map_err(fail)?;
        // SAFETY: the stream lives; the memory is freed by `free`.
        let at = unsafe {
            match self.pooled {
                true => cuda::malloc_async(self.stream, bytes),
                false => cuda::malloc_sync(bytes),
            }
        };
        at.map(Address).map_err(fail)
    }

    unsafe fn free(&self, at: Address, _bytes: usize) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: the caller's guarantee. A failure is that of earlier work, which its next use reports.
        unsafe {
            let _ = match self.pooled {
                true => cuda::free_async(at.0, self.stream),
                false => {
                    cuda::stream::synchronize(self.stream).and_then(|()| cuda::free_sync(at.0))
                }
            };
        }
    }

    unsafe fn upload(&self, from: &[u8], to: Address) -> Result<()> {
        let fail = failed("copying to the GPU");
        self.enter().map_err(&fail)?;
        if from.is_empty() {
            return Ok(());
        }
        // The driver copies pageable memory to its staging memory before it returns.
        // SAFETY: the caller's guarantee.
        unsafe { cuda::memcpy_htod_async(to.0, from, self.stream) }.map_err(&fail)
    }

    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<()> {
        let fail = failed("copying from the GPU");
        self.enter().map_err(&fail)?;
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: the caller's guarantee; the call waits until the copy is done.
        unsafe {
            cuda::memcpy_dtoh_async(to, from.0, self.stream).map_err(&fail)?;
            cuda::stream::synchronize(self.stream).map_err(&fail)
        }
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        let fail = failed("copying on the GPU");
        self.enter().map_err(&fail)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's guarantee.
        unsafe { cuda::memcpy_dtod_async(to.0, from.0, bytes, self.stream) }.map_err(&fail)
    }

    unsafe fn zero(&self, at: Address, bytes: usize) -> Result<()> {
        let fail = failed("setting memory to zero");
        self.enter().map_err(&fail)?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's guarantee.
        unsafe { cuda::memset_d8_async(at.0, 0, bytes, self.stream) }.map_err(&fail)
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let fail = failed(launch.kernel);
        self.enter().map_err(&fail)?;
        let function = self.kernel(launch.kernel, launch.shared)?;
        let mut values: Vec<[u8; 8]> = launch.args.iter().map(|arg| arg.bytes().0).collect();
        let mut args: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| value.as_mut_ptr().cast())
            .collect();
        let axes = |[x, y, z]: [u32; 3]| (x, y, z);
        // SAFETY: the caller's guarantee. The driver copies the arguments before it returns.
        unsafe {
            cuda::launch_kernel(
                function,
                axes(launch.grid),
                axes(launch.block),
                launch.shared as u32,
                self.stream,
                &mut args,
            )
        }
        .map_err(&fail)
    }

    unsafe fn gemm(&self, product: &Gemm) -> Result<()> {
        self.enter().map_err(failed("a product"))?;
        // SAFETY: the caller's guarantee.
        unsafe {
            match &self.products {
                Some(products) => products.multiply(product),
                None => gemm::multiply(self, product),
            }
        }
    }

    fn synchronize(&self) -> Result<()> {
        let fail = failed("waiting for the GPU");
        self.enter().map_err(&fail)?;
        // SAFETY: the stream lives.
        unsafe { cuda::stream::synchronize(self.stream) }.map_err(&fail)
    }

    fn memory(&self) -> Result<Memory> {
        let fail = failed("asking for memory");
        self.enter().map_err(&fail)?;
        let (free, total) = cuda::mem_get_info().map_err(&fail)?;
        let free = free.saturating_add(self.kept_bytes());
        Ok(Memory { free, total })
    }

    fn scratch_bytes(&self) -> usize {
        self.workspace.map_or(0, |_| WORKSPACE_BYTES)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Errors are those of earlier work, and no caller is left to receive them.
        if self.enter().is_err() {
            return;
        }
        if !self.stream.is_null() {
            // SAFETY: the stream lives.
            let _ = unsafe { cuda::stream::synchronize(self.stream) };
        }
        self.products = None;
        if let Some(workspace) = self.workspace.take() {
            // SAFETY: it was allocated with these bytes, and nothing uses it any more.
            unsafe { self.free(workspace, WORKSPACE_BYTES) };
        }
        let modules = self
            .modules
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: modules, stream and context are the driver's, and not used any more.
        unsafe {
            for module in modules.drain().map(|(_, module)| module) {
                let _ = cuda::module::unload(module);
            }
            if !self.stream.is_null() {
                let _ = cuda::stream::synchronize(self.stream);
                let _ = cuda::stream::destroy(self.stream);
            }
            let _ = cuda::primary_ctx::release(self.device);
        }
    }
}

//! CUDA as a device. Kernels are CUDA C++ without any header (`kernels/`); a driver compiles them at run time, and the
//! emulator runs them on the CPU, where tests hold them against the plain f64 device.

mod device;
#[cfg(feature = "driver")]
pub mod driver;
#[cfg(feature = "emulator")]
mod emulated;
pub mod gemm;
mod gpu;
mod planned;
mod sources;

pub use device::{Cuda, flash};
#[cfg(feature = "driver")]
pub use driver::Driver;
#[cfg(feature = "emulator")]
pub use emulated::Emulated;
pub use gpu::{Address, Arg, Factor, Gemm, Gpu, GpuError, Launch, MOST_BLOCKS, Memory, Number};
pub use planned::Planned;
pub use sources::{PRELUDE, SOURCES, Source};

//! Why a GPU cannot be used.

use super::find::Version;

/// Why a GPU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no driver.
    #[error(
        "no NVIDIA driver was found\n  expected: libcuda.so.1 where the system looks for libraries\n  help:     \
         install NVIDIA's driver, or in a container make it visible (--gpus all); on a machine without a GPU use \
         --device cpu"
    )]
    NoDriver,
    /// The driver is there, but does not work.
    #[error(
        "the NVIDIA driver does not start: {reason}\n  help:     `nvidia-smi` should list a GPU; after an update of \
         the driver the machine has to be restarted"
    )]
    Driver {
        /// What the driver said.
        reason: String,
    },
    /// The driver is too old.
    #[error(
        "the NVIDIA driver is too old\n  expected: one for CUDA {needed} or later\n  got:      CUDA {got}\n  help:     update the driver"
    )]
    OldDriver {
        /// The version that is needed.
        needed: Version,
        /// The version that is there.
        got: Version,
    },
    /// There is no GPU with this number.
    #[error(
        "there is no GPU {index}\n  expected: a number below {count}\n  help:     GPUs are counted from 0; CUDA_VISIBLE_DEVICES may hide some"
    )]
    NoDevice {
        /// The number that was asked for.
        index: usize,
        /// GPUs that there are.
        count: usize,
    },
    /// The GPU is too old.
    #[error(
        "{name} is too old\n  expected: compute capability {needed} or later\n  got:      {got}\n  help:     bfloat16 on tensor cores begins with Ampere (A100, RTX 30)"
    )]
    OldDevice {
        /// The GPU's name.
        name: String,
        /// The capability that is needed.
        needed: Version,
        /// The capability that it has.
        got: Version,
    },
    /// There is no run-time compiler, and a file of kernels was not compiled before.
    #[error(
        "the kernels cannot be compiled: NVRTC was not found\n  expected: libnvrtc.so (CUDA 12 or 13) where the system \
         looks for libraries\n  help:     it is part of the CUDA toolkit, and of PyTorch's packages; a folder that \
         has it can be named in LD_LIBRARY_PATH"
    )]
    NoCompiler,
    /// NVRTC did not compile a file of kernels.
    #[error("{file}.cu was not compiled for {architecture}: {reason}")]
    Compiler {
        /// The file's name.
        file: String,
        /// The architecture.
        architecture: String,
        /// The compiler's log.
        reason: String,
    },
    /// The driver does not load a file of kernels.
    #[error(
        "the driver does not load the kernels of {file}: {reason}\n  help:     a compiler (NVRTC) that is newer than the driver needs a newer driver"
    )]
    Module {
        /// The file of kernels, or that of the cache.
        file: String,
        /// What the driver said.
        reason: String,
    },
    /// A call of the driver failed.
    #[error("{operation} failed: {reason}")]
    Failed {
        /// What was being done.
        operation: &'static str,
        /// What the driver said.
        reason: String,
    },
}

//! The devices of this program: one line each.

use crate::usage;
use std::sync::Arc;
use tokenformer_core::{Device, DeviceError, Precision};
use tokenformer_cpu::Cpu;
use tokenformer_cuda::driver::{Driver, Options};
use tokenformer_cuda::{Cuda, Planned};
use tokenformer_train::Result;

/// Makes a device that computes in a precision on the given number of threads, one per core if none are given; `at` is
/// what follows the name and a colon.
type Open = fn(at: Option<&str>, threads: Option<usize>, Precision) -> Result<Arc<dyn Device>>;

/// Devices by name; the first one is the default.
const DEVICES: &[(&str, Open)] = &[
    ("cpu", |at, threads, precision| match at {
        None => Ok(Cpu::with_precision(threads, precision)),
        Some(at) => Err(unknown(&format!("cpu:{at}"))),
    }),
    ("cuda", |at, _, precision| cuda(at, precision)),
    #[cfg(feature = "cuda-emulator")]
    ("cuda-emulated", |at, _, precision| emulated(at, precision)),
];

/// The device of a name, which is one of a machine that may have several (`cuda:1`), or a GPU of some memory that is not
/// there, for plans (`cuda:80GiB`).
pub fn open(
    name: Option<&str>,
    threads: Option<usize>,
    precision: Precision,
) -> Result<Arc<dyn Device>> {
    let kind = kind(name);
    let at = name.and_then(|name| Some(name.split_once(':')?.1));
    match DEVICES.iter().find(|(known, _)| *known == kind) {
        Some((_, open)) => open(at, threads, precision),
        None => Err(unknown(name.unwrap_or(kind))),
    }
}

/// The kind of the device of a name: of `cuda:1`, `cuda`.
pub fn kind(name: Option<&str>) -> &str {
    let name = name.unwrap_or(DEVICES[0].0);
    name.split_once(':').map_or(name, |(kind, _)| kind)
}

/// Whether a name is that of a GPU.
pub fn is_gpu(name: Option<&str>) -> bool {
    name.is_some_and(|name| name.starts_with("cuda"))
}

fn unknown(name: &str) -> tokenformer_train::Error {
    let names: Vec<&str> = DEVICES.iter().map(|(name, _)| *name).collect();
    let help = "leave it out for the CPU; cuda:1 is the second GPU, and plans take cuda:80GiB";
    usage("--device", &names.join(", "), name, help)
}

fn cuda(at: Option<&str>, precision: Precision) -> Result<Arc<dyn Device>> {
    let ordinal = match at {
        None => 0,
        Some(at) => at.parse().map_err(|_| unknown(&format!("cuda:{at}")))?,
    };
    let options = Options {
        index: ordinal,
        ..Options::default()
    };
    let driver = Driver::with(options).map_err(|missing| DeviceError::Unavailable {
        device: format!("cuda:{ordinal}"),
        reason: missing.to_string(),
    })?;
    Ok(Cuda::new(Arc::new(driver), precision))
}

/// The GPU of a name like `cuda:80GiB`, which is not there: a device that counts its bytes.
pub fn planned(name: Option<&str>, precision: Precision) -> Option<Arc<dyn Device>> {
    let size = name?.strip_prefix("cuda:")?.strip_suffix("GiB")?;
    let bytes = size.parse::<u32>().ok().filter(|gib| *gib > 0)?;
    let bytes = usize::try_from(u64::from(bytes) << 30).ok()?;
    let gpu = Planned::new(format!("a GPU of {size} GiB"), bytes);
    Some(Cuda::new(Arc::new(gpu), precision))
}

/// Emulated threads run in the order that the number after the colon chooses.
#[cfg(feature = "cuda-emulator")]
fn emulated(at: Option<&str>, precision: Precision) -> Result<Arc<dyn Device>> {
    let wrong = |at| unknown(&format!("cuda-emulated:{at}"));
    let order = at.map_or(Ok(0), |at| at.parse().map_err(|_| wrong(at)))?;
    let gpu =
        tokenformer_cuda::Emulated::new(order).map_err(|missing| DeviceError::Unavailable {
            device: "cuda-emulated".into(),
            reason: format!("{missing}\n  help:     install one and build again"),
        })?;
    Ok(Cuda::new(Arc::new(gpu), precision))
}

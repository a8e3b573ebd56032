//! What a machine offers: driver, devices, run-time compiler and products. Everything is looked for before it is used,
//! because the bindings panic on a library that is missing.

use cudarc::{cublaslt, driver, nvrtc};
use std::fmt;

/// A version as NVIDIA counts them, major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub i32, pub i32);

impl Version {
    /// From `1000 · major + 10 · minor`.
    fn of_thousands(version: i32) -> Self {
        Self(version / 1000, version % 1000 / 10)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A GPU that the driver names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDevice {
    /// Its name.
    pub name: String,
    /// Its compute capability.
    pub capability: Version,
    /// Bytes of its memory.
    pub memory: usize,
}

/// The parts of CUDA that were found, for `doctor` and for messages about missing ones.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The CUDA version of the driver, if `libcuda` can be loaded.
    pub driver: Option<Version>,
    /// Why the driver does not work, if it was loaded.
    pub driver_problem: Option<String>,
    /// The GPUs.
    pub devices: Vec<FoundDevice>,
    /// The version of the run-time compiler.
    pub compiler: Option<Version>,
    /// The version of cuBLASLt, `10000 · major + 100 · minor + patch`.
    pub products: Option<usize>,
}

impl Found {
    /// Looks for everything. Loads libraries, and initialises the driver.
    pub fn look() -> Self {
        let mut found = Self::default();
        if has_driver() {
            found.look_at_driver();
        }
        found.compiler = compiler_version();
        // SAFETY: the library is there, and the call takes nothing.
        found.products = has_products().then(|| unsafe { cublaslt::sys::cublasLtGetVersion() });
        found
    }

    fn look_at_driver(&mut self) {
        let mut version = 0;
        // SAFETY: the library is there; the driver writes one number, which it can do before it is initialised.
        let result = unsafe { driver::sys::cuDriverGetVersion(&mut version) }.result();
        self.driver = result.is_ok().then(|| Version::of_thousands(version));
        match result.and_then(|()| devices()) {
            Ok(devices) => self.devices = devices,
            Err(error) => self.driver_problem = Some(reason(&error)),
        }
    }
}

impl Found {
    /// What was looked for, and what was found.
    pub fn rows(&self) -> Vec<(String, String)> {
        let driver = match (&self.driver, &self.driver_problem) {
            (None, _) => "not found (libcuda)".into(),
            (Some(version), None) => format!("CUDA {version}"),
            (Some(version), Some(problem)) => format!("CUDA {version}, but {problem}"),
        };
        let mut rows = vec![("driver".into(), driver)];
        for (index, device) in self.devices.iter().enumerate() {
            let (name, capability) = (&device.name, device.capability);
            let gib = device.memory as f64 / (1u64 << 30) as f64;
            let text = format!("{name}, compute capability {capability}, {gib:.1} GiB");
            rows.push((format!("GPU {index}"), text));
        }
        let compiler = match &self.compiler {
            None => "not found (libnvrtc)".into(),
            Some(version) => version.to_string(),
        };
        rows.push(("NVRTC".into(), compiler));
        let products = match self.products {
            None => "not found (libcublasLt), products are computed by own kernels".into(),
            Some(version) => {
                let (major, minor, patch) = (version / 10000, version / 100 % 100, version % 100);
                format!("{major}.{minor}.{patch}")
            }
        };
        rows.push(("cuBLASLt".into(), products));
        rows
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows().into_iter();
        let lines: Vec<String> = rows
            .map(|(what, found)| format!("{what}: {found}"))
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

/// What the driver says about an error.
pub(super) fn reason(error: &driver::DriverError) -> String {
    match error.error_string() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    }
}

/// Whether there is a driver's library.
pub(super) fn has_driver() -> bool {
    // SAFETY: loads a library of NVIDIA's, whose start code touches nothing of this program.
    unsafe { driver::sys::is_culib_present() }
}

/// Whether there is a compiler.
pub(super) fn has_compiler() -> bool {
    // SAFETY: as above.
    unsafe { nvrtc::sys::is_culib_present() }
}

/// Whether there is cuBLASLt.
pub(super) fn has_products() -> bool {
    // SAFETY: as above.
    unsafe { cublaslt::sys::is_culib_present() }
}

/// The version of the run-time compiler, if it is there.
pub(super) fn compiler_version() -> Option<Version> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there, and writes two numbers.
    let found = has_compiler()
        && unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) }
            .result()
            .is_ok();
    found.then_some(Version(major, minor))
}

/// The compute capability of a device.
pub(super) fn capability(device: driver::sys::CUdevice) -> Result<Version, driver::DriverError> {
    use driver::sys::CUdevice_attribute as Attribute;
    let [major, minor] = [
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    ]
    // SAFETY: the device comes from the driver.
    .map(|attribute| unsafe { driver::result::device::get_attribute(device, attribute) });
    Ok(Version(major?, minor?))
}

/// All devices of a driver that is there.
fn devices() -> Result<Vec<FoundDevice>, driver::DriverError> {
    use driver::result::device;
    driver::result::init()?;
    (0..device::get_count()?)
        .map(|ordinal| {
            let at = device::get(ordinal)?;
            Ok(FoundDevice {
                name: device::get_name(at)?,
                capability: capability(at)?,
                // SAFETY: the device comes from the driver.
                memory: unsafe { device::total_mem(at) }?,
            })
        })
        .collect()
}

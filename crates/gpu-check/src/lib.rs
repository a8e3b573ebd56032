//! Checks and measurements of a GPU. Every check takes a [`Gpu`], so that tests run the same code on the emulator.

mod exact;
mod models;
mod speed;

pub use exact::{attention, operations, poison, products};
pub use models::{growth, losses, out_of_memory};
pub use speed::{Timer, copy_bandwidth, product_rates, training_step};

use serde::Serialize;
use std::collections::BTreeMap;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenformer_cuda::Gpu;

/// The result of something that may fail.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether the GPU does what it should.
    pub passed: bool,
    /// What was wrong, or what was checked.
    pub detail: String,
    /// Numbers, by name with unit.
    pub values: BTreeMap<String, f64>,
}

/// What a successful check reports: a line for people, and numbers by name with unit.
pub type Report = (String, Vec<(String, f64)>);

impl Check {
    /// Runs a check. One that fails or panics did not pass, and the others still run.
    pub fn run(name: &str, check: impl FnOnce() -> Result<Report>) -> Self {
        let outcome = catch_unwind(AssertUnwindSafe(check));
        let (passed, detail, values) = match outcome {
            Ok(Ok((detail, values))) => (true, detail, values),
            Ok(Err(error)) => (false, error.to_string(), Vec::new()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                (false, text.unwrap_or("a panic").to_string(), Vec::new())
            }
        };
        Self {
            name: name.into(),
            passed,
            detail,
            values: values.into_iter().collect(),
        }
    }
}

/// Memory of a GPU, freed when it is dropped.
struct Memory<'a> {
    gpu: &'a dyn Gpu,
    at: tokenformer_cuda::Address,
    bytes: usize,
}

impl<'a> Memory<'a> {
    fn new(gpu: &'a dyn Gpu, bytes: usize) -> Result<Self> {
        let at = gpu.alloc(bytes)?;
        Ok(Self { gpu, at, bytes })
    }

    fn of(gpu: &'a dyn Gpu, content: &[u8]) -> Result<Self> {
        let memory = Self::new(gpu, content.len())?;
        // SAFETY: it has as many bytes.
        unsafe { gpu.upload(content, memory.at)? };
        Ok(memory)
    }

    fn read(&self) -> Result<Vec<u8>> {
        let mut content = vec![0; self.bytes];
        // SAFETY: it has as many bytes.
        unsafe { self.gpu.download(self.at, &mut content)? };
        Ok(content)
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: it was allocated with these bytes, and work that was queued before may still use it.
        unsafe { self.gpu.free(self.at, self.bytes) };
    }
}

//! The result of a run on pictures: a small file of numbers, named by the run's key.

use crate::result::{read_results, write_result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenformer_train::Result;

/// Version of the format, which is part of every key.
pub const FORMAT: u32 = 1;

/// The numbers of a finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VisionResult {
    /// `FORMAT`.
    pub format: u32,
    /// Hash of everything that decides the run.
    pub key: String,
    /// Name of the arm.
    pub arm: String,
    /// Learning rate.
    pub rate: f64,
    /// Seed.
    pub seed: u64,
    /// Learnable numbers at the end.
    pub params: u64,
    /// Updates.
    pub steps: u64,
    /// Operations of the whole training, counted, including probes of growths.
    pub flops: f64,
    /// Seconds of its updates.
    pub seconds: f64,
    /// The machine and the number of threads.
    pub machine: String,
    /// The reason why it ended early, if it diverged.
    pub diverged: Option<String>,
    /// On the held-out pictures at the end, of the average of the weights.
    pub held_out: Option<Measured>,
    /// On the test pictures at the end: of the weights, and of their average.
    pub test: Option<[Measured; 2]>,
    /// Held-out measurements along the way, of the average of the weights: operations, loss, share of right pictures.
    pub evals: Vec<[f64; 3]>,
    /// Largest difference of a logit at the growth, if there was one.
    pub growth_logit_difference: Option<f64>,
}

/// Loss and accuracy on some pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Nats per picture.
    pub loss: f64,
    /// Share of pictures whose class is the likeliest.
    pub top1: f64,
    /// Share of pictures whose class is among the five likeliest.
    pub top5: f64,
    /// Pictures.
    pub pictures: u64,
}

impl VisionResult {
    /// Share of the test pictures that is wrong, of the average of the weights, in percent; `None` if the run diverged.
    pub fn test_error(&self) -> Option<f64> {
        let [_, average] = self.test?;
        Some(100.0 * (1.0 - average.top1))
    }
}

/// Results by key.
#[derive(Debug)]
pub struct VisionResults {
    folder: PathBuf,
    found: BTreeMap<String, VisionResult>,
}

impl VisionResults {
    /// Reads the results in a folder, which need not exist.
    ///
    /// # Errors
    /// If it cannot be read, or a file in it is no result.
    pub fn open(folder: &Path) -> Result<Self> {
        let all = match folder.exists() {
            true => read_results(folder, |_| false, |result: &VisionResult| &result.key)?,
            false => Vec::new(),
        };
        let of_this_form = all.into_iter().filter(|result| result.format == FORMAT);
        let found = of_this_form
            .map(|result| (result.key.clone(), result))
            .collect();
        Ok(Self {
            folder: folder.into(),
            found,
        })
    }

    /// The result of a run.
    pub fn of(&self, key: &str) -> Option<&VisionResult> {
        self.found.get(key)
    }

    /// Stores a result atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, result: VisionResult) -> Result<()> {
        write_result(&self.folder, &result.key, &result)?;
        self.found.insert(result.key.clone(), result);
        Ok(())
    }
}

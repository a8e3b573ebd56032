//! Observers of a run.

use tokenformer_core::growth::GrowthReport;
use tokenformer_report::{Record, Unit};

/// The progress of a run after a step.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Updates done.
    pub step: u64,
    /// Total number of updates.
    pub steps: u64,
    /// Loss of this step's batch, in nats per token or image.
    pub loss: f64,
    /// The same in bits per byte, if the bytes are known.
    pub bits_per_byte: Option<f64>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Time of this step.
    pub step_ms: f64,
    /// What the predictions are of.
    pub unit: Unit,
    /// Predictions of this step per second.
    pub per_s: f64,
    /// Share of the step's time that was spent waiting for data, 0 to 1, where that is known.
    pub waiting: Option<f64>,
    /// Stage.
    pub stage: u32,
    /// Parameters.
    pub params: u64,
}

/// Receives the events of a run; every method has a default.
pub trait Observer {
    /// A step was done.
    fn step(&mut self, _progress: &Progress) {}

    /// A record was written.
    fn record(&mut self, _record: &Record) {}

    /// The model grew.
    fn grown(&mut self, _report: &GrowthReport) {}

    /// A message for the user: a resume, an interruption.
    fn note(&mut self, _text: &str) {}

    /// A warning that does not end the run: a skipped checkpoint.
    fn warning(&mut self, _text: &str) {}
}

/// An observer that does nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

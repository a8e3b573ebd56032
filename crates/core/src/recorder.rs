//! Where operations compute, and what they leave behind for a tape.

use crate::recompute::Recompute;
use crate::tensor::{Tensor, Var};
use std::sync::Arc;
use tokenformer_device::{Device, Result, Role, SharedTemp, Temp};

/// Where operations compute, and whether a tape records them.
pub(crate) struct Recorder {
    pub device: Arc<dyn Device>,
    /// Values recorded so far; `None` in inference.
    pub vars: Option<Var>,
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// Floating-point operations of the forward pass so far.
    pub flops: u64,
    /// The newest stage whose parameter tokens take part, where not all do.
    pub newest_stage: Option<u32>,
}

impl Recorder {
    pub fn records(&self) -> bool {
        self.vars.is_some()
    }

    pub fn temp(&self, len: usize) -> Result<Temp> {
        Temp::new(&self.device, len, Role::Activation)
    }

    /// As [`Recorder::temp`], for numbers that a device does not round.
    pub fn statistics(&self, len: usize) -> Result<Temp> {
        Temp::new(&self.device, len, Role::Statistic)
    }

    /// Counts floating-point operations.
    pub fn count(&mut self, flops: usize) {
        self.flops += flops as u64;
    }

    /// Wraps the result of an operation; it gets a number if a tape records.
    pub fn tensor(&mut self, data: SharedTemp, shape: [usize; 3]) -> Tensor {
        let var = self.vars;
        self.vars = var.map(|var| var + 1);
        Tensor::new(data, shape, var)
    }
}

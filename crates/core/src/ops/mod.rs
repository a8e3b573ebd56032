//! The operations that a model is written in, one file each with its forward and its backward pass.
//!
//! `forward` computes, and returns the result with a note of what the backward pass needs, if a tape records;
//! `backward` takes the gradient of the result from [`Backward`] and adds to those of its inputs. The tape in
//! [`crate::graph`] is a list of these notes.

mod add;
mod attention;
mod composed;
mod embed;
mod gelu;
mod layer_norm;
mod linear;
mod loss;
mod pattention;
mod rotary;
mod rows;

pub(crate) use add::Add;
pub(crate) use attention::{Attention, attention_cached};
pub(crate) use embed::{Embed, select_rows};
pub(crate) use gelu::Gelu;
pub(crate) use layer_norm::LayerNorm;
pub(crate) use linear::Linear;
pub(crate) use loss::Loss;
pub use loss::LossTargets;
pub(crate) use pattention::{Pattention, pattention_group};
pub(crate) use rotary::Rotate;
pub(crate) use rows::{join_rows, split_rows};

use crate::gradients::Gradients;
use crate::param::Param;
use crate::recompute::Recompute;
use crate::tensor::{Tensor, Var};
use std::sync::Arc;
use tokenformer_device::{Device, Result, Role, SharedTemp, Temp, Write};

/// Where operations compute, and whether a tape records them.
pub(crate) struct Recorder {
    pub device: Arc<dyn Device>,
    /// Values recorded so far; `None` in inference.
    pub vars: Option<Var>,
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// Floating-point operations of the forward pass so far.
    pub flops: u64,
}

/// Floating-point operations that count for the nonlinearity of one score or hidden unit, forward: two for the norm,
/// one for the scale, and seven for GELU. The backward pass has twice as many.
pub(crate) const FLOPS_PER_UNIT: usize = 10;

impl Recorder {
    pub fn records(&self) -> bool {
        self.vars.is_some()
    }

    pub fn temp(&self, len: usize) -> Result<Temp> {
        Temp::new(&self.device, len, Role::Activation)
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

/// The gradients of values during a walk back over a tape, and those of parameters.
pub(crate) struct Backward<'a> {
    pub device: &'a Arc<dyn Device>,
    /// By number of the value.
    pub values: Vec<Option<SharedTemp>>,
    pub params: &'a mut Gradients,
}

impl Backward<'_> {
    pub fn device(&self) -> &dyn Device {
        &**self.device
    }

    pub fn temp(&self, len: usize) -> Result<Temp> {
        Temp::new(self.device, len, Role::Activation)
    }

    /// Counts floating-point operations.
    pub fn count(&mut self, flops: usize) {
        self.params.flops += flops as u64;
    }

    /// Takes the gradient of a value that is complete, since everything that used the value lies behind.
    pub fn take(&mut self, var: Var) -> Option<SharedTemp> {
        self.values[var].take()
    }

    /// Lets `run` write the gradient of `var`, or add to it if there already is one.
    pub fn accumulate(
        &mut self,
        var: Var,
        len: usize,
        run: impl FnOnce(&mut Self, Write, &mut Temp) -> Result<()>,
    ) -> Result<()> {
        let (mut data, write) = match self.take(var) {
            Some(data) => (unshared(self.device, data)?, Write::Add),
            None => (self.temp(len)?.share(), Write::Replace),
        };
        run(self, write, temp_mut(&mut data))?;
        self.values[var] = Some(data);
        Ok(())
    }

    /// Takes out the gradients of two arrays that an operation computes together, to be put back with
    /// [`Backward::put_pair`]. That of a frozen one goes to memory that is never read; `None` if both are frozen.
    pub fn take_pair(&mut self, [a, b]: [&Param; 2]) -> Result<Option<[Temp; 2]>> {
        Ok(match (self.params.take(a)?, self.params.take(b)?) {
            (None, None) => None,
            (Some(da), Some(db)) => Some([da, db]),
            (Some(da), None) => Some([da, self.temp(b.len())?]),
            (None, Some(db)) => Some([self.temp(a.len())?, db]),
        })
    }

    pub fn put_pair(&mut self, [a, b]: [&Param; 2], [da, db]: [Temp; 2]) {
        self.params.put(a, da);
        self.params.put(b, db);
    }

    /// Adds a finished gradient to that of `var`.
    pub fn contribute(&mut self, var: Var, gradient: SharedTemp) -> Result<()> {
        if self.values[var].is_none() {
            self.values[var] = Some(gradient);
            return Ok(());
        }
        self.accumulate(var, gradient.len(), |back, _, to| {
            back.device().add(&gradient, to)
        })
    }
}

/// The same memory if this is its only user, else a copy.
pub(crate) fn unshared(device: &Arc<dyn Device>, mut data: SharedTemp) -> Result<SharedTemp> {
    if data.unique().is_none() {
        let mut copy = Temp::new(device, data.len(), Role::Activation)?;
        device.copy(&data, &mut copy)?;
        data = copy.share();
    }
    Ok(data)
}

/// The buffer of what [`unshared`] returned.
pub(crate) fn temp_mut(data: &mut SharedTemp) -> &mut Temp {
    // Called on what `unshared` or `share` returns alone, and the walk has one thread.
    data.unique()
        .expect("`unshared` has just made this the only user")
}

//! The operations that a model is written in, one file each with its forward and its backward pass.
//!
//! `forward` computes, and returns the result with a note of what the backward pass needs, if a tape records;
//! `backward` takes the gradient of the result from [`Backward`] and adds to those of its inputs. The tape in
//! [`crate::graph`] is a list of these notes.

mod add;
mod assemble;
mod attention;
mod embed;
mod gelu;
mod layer_norm;
mod linear;
mod loss;
mod mean;
mod pattention;
mod rotary;

pub(crate) use add::Add;
pub(crate) use assemble::Assemble;
pub(crate) use attention::{Attention, attention_cached, attention_each};
pub(crate) use embed::{Embed, Select};
pub(crate) use gelu::Gelu;
pub(crate) use layer_norm::LayerNorm;
pub(crate) use linear::Linear;
pub(crate) use loss::Loss;
pub use loss::{LossTargets, OutputHead};
pub(crate) use mean::Mean;
pub(crate) use pattention::{Pattention, SiteWeights, pattention_group, site_weights};
pub(crate) use rotary::Rotate;

use crate::gradients::{Finished, Gradients};
use crate::param::Param;
pub(crate) use crate::recorder::Recorder;
use crate::tensor::Var;
use std::sync::Arc;
use tokenformer_device::{Device, Result, Role, SharedTemp, Temp, Write};

/// Floating-point operations that count for the nonlinearity of one score or hidden unit, forward: two for the norm,
/// one for the scale, and seven for GELU. The backward pass has twice as many.
pub(crate) const FLOPS_PER_UNIT: usize = 10;

/// The gradients of values during a walk back over a tape, and those of parameters.
pub(crate) struct Backward<'a> {
    pub device: &'a Arc<dyn Device>,
    /// By number of the value.
    pub values: Vec<Option<SharedTemp>>,
    pub params: &'a mut Gradients,
    /// What takes gradients of parameters that are complete.
    pub finished: Option<&'a mut dyn Finished>,
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

    /// Takes the gradient of a value that is complete, since all operations that used the value were processed.
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

/// The same memory if this is its only owner, else a copy.
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
    // It is only called on results of `unshared` or `share`, and the backward pass has one thread.
    data.unique()
        .expect("`unshared` has just made this the only user")
}

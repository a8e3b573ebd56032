//! Exact GELU.

use super::{Backward, FLOPS_PER_UNIT, Recorder};
use crate::tensor::{Tensor, Var};
use tokenformer_device::Result;

/// `y = x·Φ(x)`.
pub(crate) struct Gelu {
    x: Tensor,
    out: Var,
}

impl Gelu {
    pub fn forward(rec: &mut Recorder, x: Tensor) -> Result<(Tensor, Option<Self>)> {
        let mut y = rec.temp(x.data.len())?;
        rec.device.gelu(&x.data, &mut y)?;
        rec.count(FLOPS_PER_UNIT * y.len());
        let y = rec.tensor(y.share(), x.shape());
        let note = y.var.map(|out| Self { x, out });
        Ok((y, note))
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let (Some(dy), Some(x)) = (back.take(self.out), self.x.var) else {
            return Ok(());
        };
        let mut dx = back.temp(dy.len())?;
        back.device().gelu_backward(&self.x.data, &dy, &mut dx)?;
        back.count(2 * FLOPS_PER_UNIT * dx.len());
        back.contribute(x, dx.share())
    }
}

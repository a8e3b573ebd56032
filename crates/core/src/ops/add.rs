//! The sum of two values.

use super::{Backward, Recorder, temp_mut, unshared};
use crate::tensor::{Tensor, Var};
use tokenformer_device::Result;

/// `y = a + b`.
pub(crate) struct Add {
    inputs: [Var; 2],
    out: Var,
}

impl Add {
    /// `a + b`, in the memory of `a` if nothing else needs it.
    pub fn forward(rec: &mut Recorder, a: Tensor, b: &Tensor) -> Result<(Tensor, Option<Self>)> {
        let (shape, vars) = (a.shape(), (a.var, b.var));
        let mut data = unshared(&rec.device, a.data)?;
        rec.device.add(&b.data, temp_mut(&mut data))?;
        let y = rec.tensor(data, shape);
        let note = match (vars, y.var) {
            ((Some(a), Some(b)), Some(out)) => Some(Self {
                inputs: [a, b],
                out,
            }),
            _ => None,
        };
        Ok((y, note))
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let Some(dy) = back.take(self.out) else {
            return Ok(());
        };
        back.contribute(self.inputs[0], dy.clone())?;
        back.contribute(self.inputs[1], dy)
    }
}

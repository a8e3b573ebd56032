//! The sum of two values, the second of which may count for some samples only.

use super::{Backward, Recorder, temp_mut, unshared};
use crate::tensor::{Tensor, Var};
use tokenformer_device::{Result, Temp, Write};

/// `y[b] = a[b] + factor[b] · b[b]`, with factors of 1 if there are none.
pub(crate) struct Add {
    inputs: [Var; 2],
    out: Var,
    factors: Option<Temp>,
}

impl Add {
    /// `a + b`, in the memory of `a` if nothing else needs it; `factors` `[B]` of the samples of `b`.
    pub fn forward(
        rec: &mut Recorder,
        a: Tensor,
        b: &Tensor,
        factors: Option<Temp>,
    ) -> Result<(Tensor, Option<Self>)> {
        let (shape, vars) = (a.shape(), (a.var, b.var));
        let mut data = unshared(&rec.device, a.data)?;
        let to = temp_mut(&mut data);
        match &factors {
            Some(factors) => rec.device.scale_rows(&b.data, factors, Write::Add, to)?,
            None => rec.device.add(&b.data, to)?,
        }
        let y = rec.tensor(data, shape);
        let note = match (vars, y.var) {
            ((Some(a), Some(b)), Some(out)) => Some(Self {
                inputs: [a, b],
                out,
                factors,
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
        let Some(factors) = self.factors else {
            return back.contribute(self.inputs[1], dy);
        };
        let mut db = back.temp(dy.len())?;
        let device = back.device();
        device.scale_rows(&dy, &factors, Write::Replace, &mut db)?;
        back.contribute(self.inputs[1], db.share())
    }
}

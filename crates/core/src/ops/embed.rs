//! Rows of a learned table, and rows of a value.

use super::{Backward, Recorder};
use crate::param::Param;
use crate::tensor::{Tensor, Var};
use tokenformer_device::{Result, Temp, Write};

/// `y[r] = table[index[r]]`.
pub(crate) struct Embed<'m> {
    table: &'m Param,
    index: Temp,
    out: Var,
}

impl<'m> Embed<'m> {
    /// Rows `index` `[B·T]` of `table` `[V, D]`: `[B, T, D]`.
    pub fn forward(
        rec: &mut Recorder,
        table: &'m Param,
        index: &[u32],
        batch: usize,
    ) -> Result<(Tensor, Option<Self>)> {
        let width = table.shape()[1];
        let index = Temp::indices(&rec.device, index)?;
        let mut y = rec.temp(index.len() * width)?;
        rec.device
            .gather_rows(table.value(), &index, width, &mut y)?;
        let y = rec.tensor(y.share(), [batch, index.len() / batch, width]);
        let note = y.var.map(|out| Self { table, index, out });
        Ok((y, note))
    }

    /// The parameter whose gradient the backward pass adds to.
    pub fn table(&self) -> &Param {
        self.table
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let device = &**back.device;
        if let Some(dy) = back.values[self.out].take()
            && let Some(to) = back.params.get_mut(self.table)?
        {
            device.scatter_add_rows(&self.index, &dy, self.table.shape()[1], to)?;
        }
        Ok(())
    }
}

/// `y[r] = x[index[r]]`.
pub(crate) struct Select {
    x: Var,
    out: Var,
    index: Temp,
    /// Lengths of `x` and of one of its rows.
    len: usize,
    width: usize,
}

impl Select {
    /// Rows `index` of a value, as `batch` sequences: `[batch, index.len() / batch, D]`.
    pub fn forward(
        rec: &mut Recorder,
        x: &Tensor,
        index: &[u32],
        batch: usize,
    ) -> Result<(Tensor, Option<Self>)> {
        let width = x.width();
        let index = Temp::indices(&rec.device, index)?;
        let mut y = rec.temp(index.len() * width)?;
        rec.device.gather_rows(&x.data, &index, width, &mut y)?;
        let y = rec.tensor(y.share(), [batch, index.len() / batch, width]);
        let note = x.var.zip(y.var).map(|(var, out)| Self {
            x: var,
            out,
            index,
            len: x.data.len(),
            width,
        });
        Ok((y, note))
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let Some(dy) = back.take(self.out) else {
            return Ok(());
        };
        back.accumulate(self.x, self.len, |back, write, dx| {
            let device = back.device();
            if write == Write::Replace {
                device.zero(dx)?;
            }
            device.scatter_add_rows(&self.index, &dy, self.width, dx)
        })
    }
}

//! The mean of the rows of each sequence.

use super::{Backward, Recorder};
use crate::tensor::{Tensor, Var};
use tokenformer_device::{Result, Temp, Write};

/// `y[b] = Σ_t x[b, t] / T`.
pub(crate) struct Mean {
    x: Var,
    out: Var,
    /// Number of its sequence, for each row.
    sequence: Temp,
    /// `1/T` for each sequence.
    factors: Temp,
    width: usize,
}

impl Mean {
    /// `x` `[B, T, D]` to `[B, 1, D]`; `index` and `factors` are work areas. Rows are added in their order.
    pub fn forward(
        rec: &mut Recorder,
        x: &Tensor,
        index: &mut Vec<u32>,
        factors: &mut Vec<f32>,
    ) -> Result<(Tensor, Option<Self>)> {
        let [batch, length, width] = x.shape();
        index.clear();
        index.extend((0..batch as u32).flat_map(|b| std::iter::repeat_n(b, length)));
        let sequence = Temp::indices(&rec.device, index)?;
        factors.clear();
        factors.resize(batch, 1.0 / length as f32);
        let (mut inverse, mut sum) = (rec.statistics(batch)?, rec.temp(batch * width)?);
        rec.device.write(factors, &mut inverse)?;
        rec.device.zero(&mut sum)?;
        rec.device
            .scatter_add_rows(&sequence, &x.data, width, &mut sum)?;
        let mut y = rec.temp(batch * width)?;
        rec.device
            .scale_rows(&sum, &inverse, Write::Replace, &mut y)?;
        let y = rec.tensor(y.share(), [batch, 1, width]);
        let note = x.var.zip(y.var).map(|(x, out)| Self {
            x,
            out,
            sequence,
            factors: inverse,
            width,
        });
        Ok((y, note))
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let Some(dy) = back.take(self.out) else {
            return Ok(());
        };
        let (mut scaled, mut dx) = (
            back.temp(dy.len())?,
            back.temp(self.sequence.len() * self.width)?,
        );
        let device = back.device();
        device.scale_rows(&dy, &self.factors, Write::Replace, &mut scaled)?;
        device.gather_rows(&scaled, &self.sequence, self.width, &mut dx)?;
        back.contribute(self.x, dx.share())
    }
}

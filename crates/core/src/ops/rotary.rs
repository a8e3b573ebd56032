//! Rotary position embedding.

use super::{Backward, Recorder, temp_mut, unshared};
use crate::tensor::{Tensor, Var};
use std::sync::Arc;
use tokenformer_device::{Result, RotaryDims, RotaryTable};

/// `x` `[B, T, H·C]` rotated by the angles of its positions.
pub(crate) struct Rotate {
    x: Var,
    out: Var,
    table: Arc<RotaryTable>,
    dims: RotaryDims,
}

impl Rotate {
    /// The first row of each sequence is at position `first`.
    pub fn forward(
        rec: &mut Recorder,
        x: Tensor,
        table: &Arc<RotaryTable>,
        heads: usize,
        first: usize,
    ) -> Result<(Tensor, Option<Self>)> {
        let (shape, var) = (x.shape(), x.var);
        let dims = RotaryDims {
            length: shape[1],
            heads,
            channels: shape[2] / heads,
            first,
        };
        let mut data = unshared(&rec.device, x.data)?;
        rec.device.rotate(table, dims, false, temp_mut(&mut data))?;
        let y = rec.tensor(data, shape);
        let note = match (var, y.var) {
            (Some(x), Some(out)) => Some(Self {
                x,
                out,
                table: Arc::clone(table),
                dims,
            }),
            _ => None,
        };
        Ok((y, note))
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let Some(dy) = back.take(self.out) else {
            return Ok(());
        };
        let mut dx = unshared(back.device, dy)?;
        back.device()
            .rotate(&self.table, self.dims, true, temp_mut(&mut dx))?;
        back.contribute(self.x, dx)
    }
}

//! LayerNorm, with or without gain and bias.

use super::{Backward, Recorder};
use crate::param::Param;
use crate::tensor::{Tensor, Var};
use tokenformer_device::{KeptForNorm, Result, Temp};

/// `y = (x − mean)/√(variance + ε) · gain + bias` along the width.
pub(crate) struct LayerNorm<'m> {
    x: Var,
    out: Var,
    affine: Option<[&'m Param; 2]>,
    kept: Tensor,
    stats: Temp,
}

impl<'m> LayerNorm<'m> {
    /// `affine` is gain and bias `[D]`.
    pub fn forward(
        rec: &mut Recorder,
        x: &Tensor,
        affine: Option<[&'m Param; 2]>,
        eps: f32,
    ) -> Result<(Tensor, Option<Self>)> {
        let (mut y, mut stats) = (rec.temp(x.data.len())?, rec.statistics(x.rows() * 2)?);
        let buffers = affine.map(|params| params.map(Param::value));
        rec.device
            .layer_norm(&x.data, buffers, eps, x.width(), &mut y, &mut stats)?;
        let y = rec.tensor(y.share(), x.shape());
        let note = match (x.var, y.var) {
            (Some(x_var), Some(out)) => Some(Self {
                x: x_var,
                out,
                affine,
                // Without gain and bias the output is all that backward needs, and the input can be reused.
                kept: if affine.is_some() { x } else { &y }.clone(),
                stats,
            }),
            _ => None,
        };
        Ok((y, note))
    }

    /// The parameters whose gradients the backward pass adds to.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        self.affine.into_iter().flatten()
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let Some(dy) = back.take(self.out) else {
            return Ok(());
        };
        let (kept, width) = (&self.kept.data, self.kept.width());
        let device = &**back.device;
        if let Some(affine) = self.affine
            && let Some(mut gradients) = back.take_pair(affine)?
        {
            let [d_gain, d_bias] = &mut gradients;
            device.layer_norm_backward_affine(kept, &self.stats, &dy, d_gain, d_bias)?;
            back.put_pair(affine, gradients);
        }
        let gain = self.affine.map(|[gain, _]| gain.value());
        back.accumulate(self.x, kept.len(), |_, write, dx| {
            let kept = match gain {
                Some(_) => KeptForNorm::Input(kept),
                None => KeptForNorm::Output(kept),
            };
            device.layer_norm_backward(kept, &self.stats, gain, &dy, width, write, dx)
        })
    }
}

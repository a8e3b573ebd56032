//! Cross-entropy through an output head. Its gradient is known as soon as a row's probabilities are, so the forward
//! pass of a training step computes it at once, instead of computing logits twice.

use super::{Backward, Recorder};
use crate::gradients::Gradients;
use crate::param::Param;
use crate::tensor::{Tensor, Var};
use tokenformer_device::{Head, LossGradient, Result, Targets, Temp};

/// The targets of the rows of a head, on the host.
#[derive(Clone, Copy, Debug)]
pub enum LossTargets<'a> {
    /// A class per row, `[R]`.
    Classes(&'a [u32]),
    /// A weight per row and class, `[R, V]`.
    Soft(&'a [f32]),
}

/// The gradient of the hidden states, which was computed with the losses.
pub(crate) struct Loss {
    hidden: Var,
    d_hidden: Temp,
}

impl Loss {
    /// Losses `[B, T, 1]` (nats) of hidden states `[B, T, D]` through the table `[V, D]`. With `gradients`, those of
    /// the objective `weight · Σ losses` by the table are added to them.
    pub fn forward(
        rec: &mut Recorder,
        hidden: &Tensor,
        table: &Param,
        scale: f32,
        targets: LossTargets<'_>,
        weight: f32,
        gradients: Option<&mut Gradients>,
    ) -> Result<(Tensor, Option<Self>)> {
        let [batch, length, width] = hidden.shape();
        let targets = match targets {
            LossTargets::Classes(classes) => (Temp::indices(&rec.device, classes)?, true),
            LossTargets::Soft(weights) => {
                let mut soft = rec.temp(weights.len())?;
                rec.device.write(weights, &mut soft)?;
                (soft, false)
            }
        };
        let mut losses = rec.temp(hidden.rows())?;
        let mut d_hidden = match gradients {
            Some(_) => Some(rec.temp(hidden.data.len())?),
            None => None,
        };
        let gradient = match (gradients, &mut d_hidden) {
            (Some(gradients), Some(d_hidden)) => Some(LossGradient {
                weight,
                d_hidden,
                d_table: gradients.get_mut(table)?,
            }),
            _ => None,
        };
        let head = Head {
            hidden: &hidden.data,
            table: table.value(),
            scale,
            width,
        };
        let targets = match &targets {
            (classes, true) => Targets::Classes(classes),
            (soft, false) => Targets::Soft(soft),
        };
        let product = 2 * hidden.rows() * table.len();
        let products = match &gradient {
            None => 1,
            Some(gradient) => 2 + usize::from(gradient.d_table.is_some()),
        };
        rec.device.loss(head, targets, &mut losses, gradient)?;
        rec.count(products * product);
        let note = match (hidden.var, d_hidden) {
            (Some(hidden), Some(d_hidden)) => Some(Self { hidden, d_hidden }),
            _ => None,
        };
        Ok((rec.tensor(losses.share(), [batch, length, 1]), note))
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        back.contribute(self.hidden, self.d_hidden.share())
    }
}

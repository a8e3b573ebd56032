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

/// An output head: `logits = scale · X·Wᵀ + b`.
#[derive(Clone, Copy, Debug)]
pub struct OutputHead<'m> {
    /// `W` `[V, D]`.
    pub table: &'m Param,
    /// `b` `[V]`.
    pub bias: Option<&'m Param>,
    /// Factor of the products.
    pub scale: f32,
}

/// The gradient of the hidden states, which was computed with the losses.
pub(crate) struct Loss<'m> {
    hidden: Var,
    d_hidden: Temp,
    head: OutputHead<'m>,
}

impl<'m> Loss<'m> {
    /// Losses `[B, T, 1]` (nats) of hidden states `[B, T, D]` through a head. With `gradients`, those of the objective
    /// `weight · Σ losses` by table and bias are added to them.
    pub fn forward(
        rec: &mut Recorder,
        hidden: &Tensor,
        head: OutputHead<'m>,
        targets: LossTargets<'_>,
        weight: f32,
        mut gradients: Option<&mut Gradients>,
    ) -> Result<(Tensor, Option<Self>)> {
        let [batch, length, width] = hidden.shape();
        let OutputHead { table, bias, scale } = head;
        let targets = match targets {
            LossTargets::Classes(classes) => (Temp::indices(&rec.device, classes)?, true),
            LossTargets::Soft(weights) => {
                let mut soft = rec.statistics(weights.len())?;
                rec.device.write(weights, &mut soft)?;
                (soft, false)
            }
        };
        let mut losses = rec.statistics(hidden.rows())?;
        let mut d_hidden = match gradients {
            Some(_) => Some(rec.temp(hidden.data.len())?),
            None => None,
        };
        let mut d_bias = match (&mut gradients, bias) {
            (Some(gradients), Some(bias)) => gradients.take(bias)?,
            _ => None,
        };
        let gradient = match (&mut gradients, &mut d_hidden) {
            (Some(gradients), Some(d_hidden)) => Some(LossGradient {
                weight,
                d_hidden,
                d_table: gradients.get_mut(table)?,
                d_bias: d_bias.as_deref_mut(),
            }),
            _ => None,
        };
        let device_head = Head {
            hidden: &hidden.data,
            table: table.value(),
            bias: bias.map(Param::value),
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
        rec.device
            .loss(device_head, targets, &mut losses, gradient)?;
        rec.count(products * product);
        if let (Some(gradients), Some(bias), Some(d_bias)) = (gradients, bias, d_bias) {
            gradients.put(bias, d_bias);
        }
        let note = match (hidden.var, d_hidden) {
            (Some(hidden), Some(d_hidden)) => Some(Self {
                hidden,
                d_hidden,
                head,
            }),
            _ => None,
        };
        Ok((rec.tensor(losses.share(), [batch, length, 1]), note))
    }

    /// The parameters whose gradients the forward pass has added to.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        std::iter::once(self.head.table).chain(self.head.bias)
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        back.contribute(self.hidden, self.d_hidden.share())
    }
}

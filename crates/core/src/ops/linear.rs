//! A linear layer.

use super::{Backward, Recorder};
use crate::param::Param;
use crate::tensor::{Tensor, Var};
use tokenformer_device::{Buffer, Device, Matmul, Operand, Output, Result, Role, Temp, Write};

/// `Y = scale · X·Wᵀ + b`.
pub(crate) struct Linear<'m> {
    x: Tensor,
    out: Var,
    weight: &'m Param,
    bias: Option<&'m Param>,
    scale: f32,
}

impl<'m> Linear<'m> {
    /// `x` `[B, T, inputs]`, `weight` `[outputs, inputs]`, `bias` `[outputs]`: `[B, T, outputs]`, numbers of a role.
    pub fn forward(
        rec: &mut Recorder,
        x: Tensor,
        weight: &'m Param,
        bias: Option<&'m Param>,
        scale: f32,
        role: Role,
    ) -> Result<(Tensor, Option<Self>)> {
        let [batch, length, inputs] = x.shape();
        let outputs = weight.shape()[0];
        let mut y = Temp::new(&rec.device, x.rows() * outputs, role)?;
        let product = Matmul {
            a: Operand::rows(&x.data, inputs),
            b: Operand::transposed(weight.value(), inputs),
            rows: x.rows(),
            inner: inputs,
            cols: outputs,
            scale,
        };
        rec.device
            .matmul(product, Write::Replace, Output::rows(&mut y, outputs))?;
        if let Some(bias) = bias {
            rec.device.add_to_rows(bias.value(), &mut y)?;
        }
        rec.count(2 * x.rows() * inputs * outputs);
        let y = rec.tensor(y.share(), [batch, length, outputs]);
        let note = y.var.map(|out| Self {
            x,
            out,
            weight,
            bias,
            scale,
        });
        Ok((y, note))
    }

    /// The parameters whose gradients the backward pass adds to.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        std::iter::once(self.weight).chain(self.bias)
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let Some(dy) = back.take(self.out) else {
            return Ok(());
        };
        let device = &**back.device;
        if let Some(bias) = self.bias
            && let Some(to) = back.params.get_mut(bias)?
        {
            device.sum_rows(&dy, to)?;
        }
        let flops = 2 * self.x.rows() * self.weight.len();
        if let Some(to) = back.params.get_mut(self.weight)? {
            self.weight_gradient(device, &dy, to)?;
            back.count(flops);
        }
        // Numbers that came from outside of the network need no gradient.
        let Some(x) = self.x.var else {
            return Ok(());
        };
        back.count(flops);
        back.accumulate(x, self.x.data.len(), |_, write, dx| {
            self.input_gradient(device, &dy, write, dx)
        })
    }

    /// `dW += scale · dYᵀ·X`.
    fn weight_gradient(&self, device: &dyn Device, dy: &Buffer, to: &mut Buffer) -> Result<()> {
        let (outputs, inputs) = (self.weight.shape()[0], self.x.width());
        let product = Matmul {
            a: Operand::transposed(dy, outputs),
            b: Operand::rows(&self.x.data, inputs),
            rows: outputs,
            inner: self.x.rows(),
            cols: inputs,
            scale: self.scale,
        };
        device.matmul(product, Write::Add, Output::rows(to, inputs))
    }

    /// `dX = scale · dY·W`.
    fn input_gradient(
        &self,
        device: &dyn Device,
        dy: &Buffer,
        write: Write,
        dx: &mut Buffer,
    ) -> Result<()> {
        let (outputs, inputs) = (self.weight.shape()[0], self.x.width());
        let product = Matmul {
            a: Operand::rows(dy, outputs),
            b: Operand::rows(self.weight.value(), inputs),
            rows: self.x.rows(),
            inner: outputs,
            cols: inputs,
            scale: self.scale,
        };
        device.matmul(product, write, Output::rows(dx, inputs))
    }
}

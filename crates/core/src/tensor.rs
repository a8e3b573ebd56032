//! Values that flow through the network.

use tokenformer_device::{Buffer, Device, Result, SharedTemp};

/// Number of a value on the tape that made it.
pub(crate) type Var = usize;

/// A value that flows through the network: `[batch, length, width]` numbers on a device.
///
/// Cloning is cheap, because the numbers are shared. Operations that no longer need an input take it by value, so that
/// its memory is free as soon as nothing else needs it.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(crate) data: SharedTemp,
    shape: [usize; 3],
    /// Number on the tape; `None` in inference.
    pub(crate) var: Option<Var>,
}

impl Tensor {
    pub(crate) fn new(data: SharedTemp, shape: [usize; 3], var: Option<Var>) -> Self {
        Self { data, shape, var }
    }

    /// `[batch, length, width]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Rows `R`: positions of all sequences.
    pub fn rows(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.shape[2]
    }

    /// Copies the numbers to the host.
    ///
    /// # Errors
    /// If the device fails.
    pub fn to_host(&self, device: &dyn Device) -> Result<Vec<f32>> {
        let mut host = vec![0.0; self.data.len()];
        device.read(&self.data, &mut host)?;
        Ok(host)
    }

    /// Copies the numbers to `host`, which has as many.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(&self, device: &dyn Device, host: &mut [f32]) -> Result<()> {
        device.read(&self.data, host)
    }

    /// The numbers on their device.
    pub fn buffer(&self) -> &Buffer {
        &self.data
    }
}

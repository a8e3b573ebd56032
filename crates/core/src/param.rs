//! Learnable arrays and their gradients.

use crate::device::{Buffer, Device, Result, Side, WeightFormat};
use crate::site::Segment;
use std::sync::Arc;

/// A learnable array of a model.
#[derive(Debug)]
pub struct Param {
    id: usize,
    name: String,
    shape: Vec<usize>,
    value: Buffer,
    /// Whether training changes it.
    pub trainable: bool,
    /// Whether weight decay applies (not to norms).
    pub decays: bool,
    /// Factor of the learning rate.
    pub lr_scale: f32,
}

impl Param {
    pub(crate) fn new(
        device: &Arc<dyn Device>,
        id: usize,
        name: String,
        shape: Vec<usize>,
        numbers: Vec<f32>,
    ) -> Result<Self> {
        let value = device.adopt(numbers)?;
        Ok(Self {
            id,
            name,
            shape,
            value,
            trainable: true,
            decays: true,
            lr_scale: 1.0,
        })
    }

    /// Puts a matrix into the device's form for inference.
    pub(crate) fn prepare(
        &mut self,
        device: &Arc<dyn Device>,
        side: Side,
        format: WeightFormat,
    ) -> Result<()> {
        let shape = [self.shape[0], self.shape[1]];
        let value = std::mem::replace(&mut self.value, Buffer::new((), 0));
        self.value = device.prepare(value, shape, side, format)?;
        Ok(())
    }

    /// Number of this parameter within its model, for as long as the model lives.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Its name in files, for example `blocks.0.query.segments.0.keys`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lengths of its axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Numbers in it.
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// Its numbers on the device.
    pub fn value(&self) -> &Buffer {
        &self.value
    }

    /// Its numbers on the device, to change.
    pub fn value_mut(&mut self) -> &mut Buffer {
        &mut self.value
    }
}

/// Gain and bias of a norm.
#[derive(Debug)]
pub struct Affine {
    /// `[D]`.
    pub gain: Param,
    /// `[D]`.
    pub bias: Param,
}

/// Gradients of a model's trainable parameters.
#[derive(Debug, Default)]
pub struct Gradients {
    /// By parameter number; `None` for frozen ones.
    by_id: Vec<Option<Buffer>>,
}

impl Gradients {
    /// Zero gradients for the trainable ones of `params`.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn zeros<'a>(
        device: &Arc<dyn Device>,
        params: impl IntoIterator<Item = &'a Param>,
    ) -> Result<Self> {
        let mut by_id = Vec::new();
        for param in params {
            if by_id.len() <= param.id {
                by_id.resize_with(param.id + 1, || None);
            }
            if param.trainable {
                by_id[param.id] = Some(device.allocate(param.len())?);
            }
        }
        Ok(Self { by_id })
    }

    /// Sets all gradients to zero.
    ///
    /// # Errors
    /// If the device fails.
    pub fn reset(&mut self, device: &Arc<dyn Device>) -> Result<()> {
        self.by_id
            .iter_mut()
            .flatten()
            .try_for_each(|g| device.zero(g))
    }

    /// Gradient of `param`; `None` if it is frozen.
    pub fn get(&self, param: &Param) -> Option<&Buffer> {
        self.by_id.get(param.id)?.as_ref()
    }

    /// Gradient of `param`, to add to.
    pub fn get_mut(&mut self, param: &Param) -> Option<&mut Buffer> {
        self.by_id.get_mut(param.id)?.as_mut()
    }

    pub(crate) fn get_two_mut(&mut self, a: &Param, b: &Param) -> Option<[&mut Buffer; 2]> {
        let [a, b] = self.by_id.get_disjoint_mut([a.id, b.id]).ok()?;
        Some([a.as_mut()?, b.as_mut()?])
    }

    /// Gradients of the keys and values of several segments.
    pub(crate) fn get_segments_mut(
        &mut self,
        segments: &[Segment],
    ) -> Vec<Option<[&mut Buffer; 2]>> {
        let mut found: Vec<[Option<&mut Buffer>; 2]> =
            segments.iter().map(|_| [None, None]).collect();
        for (id, buffer) in self.by_id.iter_mut().enumerate() {
            for (found, segment) in found.iter_mut().zip(segments) {
                if segment.keys.id == id {
                    found[0] = buffer.as_mut();
                    break;
                } else if segment.values.id == id {
                    found[1] = buffer.as_mut();
                    break;
                }
            }
        }
        found
            .into_iter()
            .map(|[keys, values]| Some([keys?, values?]))
            .collect()
    }
}

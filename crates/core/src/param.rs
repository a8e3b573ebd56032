//! Learnable arrays and their gradients.

use crate::device::{Buffer, Device, Result, Side, Temp, WeightFormat};
use crate::graph::Workspace;
use crate::site::Segment;
use smallvec::SmallVec;
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
        let value = std::mem::replace(&mut self.value, Buffer::empty());
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

/// Gradients of a model's trainable parameters. A gradient takes memory from when it is first added to
/// until [`Gradients::reset`], so that it can follow activations that are no longer needed.
#[derive(Debug)]
pub struct Gradients {
    device: Arc<dyn Device>,
    /// By parameter number; `None` for frozen ones.
    by_id: Vec<Option<Slot>>,
    /// Lists that the tape uses again in every step.
    pub(crate) workspace: Workspace,
}

#[derive(Debug)]
struct Slot {
    len: usize,
    /// `None` while it is zero.
    held: Option<Temp>,
}

/// Gradients of the keys and values of several segments; `None` for frozen ones.
pub(crate) type SegmentGradients = SmallVec<[Option<[Temp; 2]>; 4]>;

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
                by_id[param.id] = Some(Slot {
                    len: param.len(),
                    held: None,
                });
            }
        }
        Ok(Self {
            device: Arc::clone(device),
            by_id,
            workspace: Workspace::default(),
        })
    }

    /// Sets all gradients to zero and gives their memory back.
    pub fn reset(&mut self) {
        for slot in self.by_id.iter_mut().flatten() {
            slot.held = None;
        }
    }

    /// Numbers in memory.
    pub fn held(&self) -> usize {
        let slots = self.by_id.iter().flatten();
        slots
            .filter_map(|slot| Some(slot.held.as_ref()?.len()))
            .sum()
    }

    /// Gradient of `param`; `None` if it is frozen, or zero because nothing was added since the reset.
    /// After a backward pass those of all trainable parameters are there.
    pub fn get(&self, param: &Param) -> Option<&Buffer> {
        self.by_id.get(param.id)?.as_ref()?.held.as_deref()
    }

    /// Gradient of `param`, to add to; `None` if it is frozen.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn get_mut(&mut self, param: &Param) -> Result<Option<&mut Buffer>> {
        self.hold(param.id)?;
        let slot = self.by_id.get_mut(param.id).and_then(Option::as_mut);
        Ok(slot.and_then(|slot| slot.held.as_deref_mut()))
    }

    /// Makes sure that the gradient of a trainable parameter is in memory.
    fn hold(&mut self, id: usize) -> Result<()> {
        if let Some(Some(slot)) = self.by_id.get_mut(id)
            && slot.held.is_none()
        {
            let mut zeros = Temp::new(&self.device, slot.len)?;
            self.device.zero(&mut zeros)?;
            slot.held = Some(zeros);
        }
        Ok(())
    }

    /// Makes sure that all gradients are in memory.
    pub(crate) fn hold_all(&mut self) -> Result<()> {
        (0..self.by_id.len()).try_for_each(|id| self.hold(id))
    }

    pub(crate) fn get_two_mut(&mut self, a: &Param, b: &Param) -> Result<Option<[&mut Buffer; 2]>> {
        self.hold(a.id)?;
        self.hold(b.id)?;
        let Ok([Some(a), Some(b)]) = self.by_id.get_disjoint_mut([a.id, b.id]) else {
            return Ok(None);
        };
        Ok(match (a.held.as_deref_mut(), b.held.as_deref_mut()) {
            (Some(a), Some(b)) => Some([a, b]),
            _ => None,
        })
    }

    fn take(&mut self, param: &Param) -> Result<Option<Temp>> {
        self.hold(param.id)?;
        let slot = self.by_id.get_mut(param.id).and_then(Option::as_mut);
        Ok(slot.and_then(|slot| slot.held.take()))
    }

    /// Takes out the gradients of segments, to be put back with [`Gradients::give_segments`].
    pub(crate) fn take_segments(&mut self, segments: &[Segment]) -> Result<SegmentGradients> {
        let mut found = SegmentGradients::new();
        for segment in segments {
            let both = (self.take(&segment.keys)?, self.take(&segment.values)?);
            found.push(match both {
                (Some(keys), Some(values)) => Some([keys, values]),
                _ => None,
            });
        }
        Ok(found)
    }

    pub(crate) fn give_segments(&mut self, segments: &[Segment], gradients: SegmentGradients) {
        for (segment, gradient) in segments.iter().zip(gradients) {
            let Some(both) = gradient else { continue };
            for (param, gradient) in [&segment.keys, &segment.values].into_iter().zip(both) {
                if let Some(Some(slot)) = self.by_id.get_mut(param.id) {
                    slot.held = Some(gradient);
                }
            }
        }
    }
}

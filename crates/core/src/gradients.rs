//! Gradients of a model's trainable parameters.

use crate::param::Param;
use crate::scores::ScoreSums;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use tokenformer_device::{Buffer, Device, Result, Role, Temp};

/// Gradients of a model's trainable parameters. A gradient takes memory from when it is first added to
/// until [`Gradients::reset`], so that it can follow activations that are no longer needed.
#[derive(Debug)]
pub struct Gradients {
    device: Arc<dyn Device>,
    /// By parameter number; `None` for frozen ones.
    by_id: Vec<Option<Slot>>,
    /// Lists of the tape, kept between steps so that they are allocated once.
    pub(crate) spare: Spare,
    /// Statistics of the sites' scores.
    pub(crate) scores: ScoreSums,
    /// Floating-point operations since the reset.
    pub(crate) flops: u64,
}

#[derive(Debug)]
struct Slot {
    len: usize,
    /// `None` while it is zero.
    held: Option<Temp>,
}

/// Storage for a value of any type that is reused between steps.
#[derive(Default)]
pub(crate) struct Spare(Option<Box<dyn Any + Send + Sync>>);

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spare")
    }
}

impl Spare {
    pub(crate) fn get<T: Any + Default + Send + Sync>(&mut self) -> &mut T {
        if !self.0.as_ref().is_some_and(|spare| spare.is::<T>()) {
            self.0 = Some(Box::new(T::default()));
        }
        let spare = self.0.as_mut().and_then(|spare| spare.downcast_mut());
        // A value of another type, or none, was replaced two lines above.
        spare.expect("has just been made of this type")
    }
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
            if by_id.len() <= param.id() {
                by_id.resize_with(param.id() + 1, || None);
            }
            if param.trainable() {
                by_id[param.id()] = Some(Slot {
                    len: param.len(),
                    held: None,
                });
            }
        }
        Ok(Self {
            device: Arc::clone(device),
            by_id,
            spare: Spare::default(),
            scores: ScoreSums::default(),
            flops: 0,
        })
    }

    /// Sets all gradients to zero and returns their memory to the device.
    pub fn reset(&mut self) {
        for slot in self.by_id.iter_mut().flatten() {
            slot.held = None;
        }
        self.scores.reset();
        self.flops = 0;
    }

    /// Floating-point operations of the passes since the reset, two per multiply-add: products, attention without
    /// credit for the mask, and the nonlinearities of hidden units ([`crate::ModelConfig::train_flops_per_token`]).
    /// What is computed a second time to save memory is not counted.
    pub fn flops(&self) -> u64 {
        self.flops
    }

    /// Numbers in memory.
    pub fn held(&self) -> usize {
        let slots = self.by_id.iter().flatten();
        slots
            .filter_map(|slot| Some(slot.held.as_ref()?.len()))
            .sum()
    }

    /// Gradient of `param`; `None` if it is frozen, or zero because nothing was added since the reset.
    /// After a backward pass those of all trainable parameters exist.
    pub fn get(&self, param: &Param) -> Option<&Buffer> {
        self.by_id.get(param.id())?.as_ref()?.held.as_deref()
    }

    /// All gradients in memory, in the order of parameter numbers: what a collective reduces.
    pub fn buffers_mut(&mut self) -> impl Iterator<Item = &mut Buffer> {
        let slots = self.by_id.iter_mut().flatten();
        slots.filter_map(|slot| slot.held.as_deref_mut())
    }

    /// Gradient of `param`, to add to; `None` if it is frozen.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn get_mut(&mut self, param: &Param) -> Result<Option<&mut Buffer>> {
        self.hold(param.id())?;
        let slot = self.by_id.get_mut(param.id()).and_then(Option::as_mut);
        Ok(slot.and_then(|slot| slot.held.as_deref_mut()))
    }

    /// Makes sure that the gradient of a trainable parameter is in memory.
    fn hold(&mut self, id: usize) -> Result<()> {
        if let Some(Some(slot)) = self.by_id.get_mut(id)
            && slot.held.is_none()
        {
            let mut zeros = Temp::new(&self.device, slot.len, Role::Gradient)?;
            self.device.zero(&mut zeros)?;
            slot.held = Some(zeros);
        }
        Ok(())
    }

    /// Makes sure that all gradients are in memory.
    pub(crate) fn hold_all(&mut self) -> Result<()> {
        (0..self.by_id.len()).try_for_each(|id| self.hold(id))
    }

    /// Takes out the gradient of a parameter, to be put back with [`Gradients::put`]; `None` if it is frozen.
    pub(crate) fn take(&mut self, param: &Param) -> Result<Option<Temp>> {
        self.hold(param.id())?;
        let slot = self.by_id.get_mut(param.id()).and_then(Option::as_mut);
        Ok(slot.and_then(|slot| slot.held.take()))
    }

    /// Puts back what [`Gradients::take`] took out. Nothing is kept for a frozen parameter.
    pub(crate) fn put(&mut self, param: &Param, gradient: Temp) {
        if let Some(Some(slot)) = self.by_id.get_mut(param.id()) {
            slot.held = Some(gradient);
        }
    }
}

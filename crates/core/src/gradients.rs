//! Gradients of a model's trainable parameters.
//!
//! The gradient of an update is a sum over micro-batches. Each micro-batch's gradient is computed separately, from zero, and
//! added to the sum of those before it as soon as it is complete. So the sum is a chain in the order of micro-batches, which
//! several processes can compute together with the same bits ([`Finished`]).

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
    /// Parameter tokens and width, if it has a row for each of them.
    tokens: Option<[usize; 2]>,
    /// Gradient of the current micro-batch; `None` while it is zero.
    held: Option<Temp>,
    /// Sum of the gradients of earlier micro-batches; `None` before the first.
    sum: Option<Temp>,
    /// Noted operations that will add to the gradient of the micro-batch.
    pending: u32,
    /// Whether the gradient of the micro-batch is complete.
    complete: bool,
}

impl Slot {
    /// Memory for a gradient, with arbitrary content.
    fn temp(&self, device: &Arc<dyn Device>) -> Result<Temp> {
        match self.tokens {
            Some(size) => Temp::tokens(device, size, Role::Gradient),
            None => Temp::new(device, self.len, Role::Gradient),
        }
    }
}

/// Receives the gradients of a backward pass, each as soon as it is complete: the later layers first. The order depends on the
/// model alone.
pub trait Finished {
    /// Takes the gradient of the parameter with number `id`, with those of earlier micro-batches that were not taken.
    ///
    /// # Errors
    /// If the device or a connection fails, which ends the backward pass.
    fn finished(&mut self, id: usize, gradient: Temp) -> Result<()>;
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
                    tokens: param.tokens(),
                    held: None,
                    sum: None,
                    pending: 0,
                    complete: false,
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
            slot.sum = None;
            slot.pending = 0;
            slot.complete = false;
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
            .flat_map(|slot| [&slot.held, &slot.sum])
            .filter_map(|held| Some(held.as_ref()?.len()))
            .sum()
    }

    /// Gradient of `param` over all micro-batches since the reset; `None` if it is frozen, if there was no backward pass, or
    /// if something else took it ([`Finished`]).
    pub fn get(&self, param: &Param) -> Option<&Buffer> {
        self.by_id.get(param.id())?.as_ref()?.sum.as_deref()
    }

    /// Sets the gradient of the parameter with number `id`, which something else has added up.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn set(&mut self, id: usize, numbers: &[f32]) -> Result<()> {
        let Some(Some(slot)) = self.by_id.get_mut(id) else {
            return Ok(());
        };
        let mut sum = match slot.sum.take() {
            Some(sum) => sum,
            None => slot.temp(&self.device)?,
        };
        self.device.write(numbers, &mut sum)?;
        slot.sum = Some(sum);
        Ok(())
    }

    /// Numbers and lengths of the trainable parameters.
    pub fn trained(&self) -> impl Iterator<Item = (usize, usize)> {
        let slots = self.by_id.iter().enumerate();
        slots.filter_map(|(id, slot)| Some((id, slot.as_ref()?.len)))
    }

    /// Takes the sums of squared scores that were measured since the reset, in a fixed order; see
    /// [`Gradients::set_score_sums`].
    ///
    /// # Errors
    /// If the device fails.
    pub fn take_score_sums(&mut self) -> Result<Vec<f64>> {
        self.scores.take(&*self.device)
    }

    /// Replaces the sums of squared scores by those that several processes have added up.
    pub fn set_score_sums(&mut self, sums: &[f64]) {
        self.scores.set(sums);
    }

    /// Sets the number of floating-point operations to those of several processes.
    pub fn set_flops(&mut self, flops: u64) {
        self.flops = flops;
    }

    /// Gradient of `param` of the micro-batch at hand, to add to; `None` if it is frozen.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub(crate) fn get_mut(&mut self, param: &Param) -> Result<Option<&mut Buffer>> {
        self.hold(param.id())?;
        let slot = self.by_id.get_mut(param.id()).and_then(Option::as_mut);
        Ok(slot.and_then(|slot| slot.held.as_deref_mut()))
    }

    /// Makes sure that the gradient of a trainable parameter is in memory.
    fn hold(&mut self, id: usize) -> Result<()> {
        if let Some(Some(slot)) = self.by_id.get_mut(id)
            && slot.held.is_none()
        {
            let mut zeros = slot.temp(&self.device)?;
            self.device.zero(&mut zeros)?;
            slot.held = Some(zeros);
        }
        Ok(())
    }

    /// Notes that one more operation will add to the gradient of `param`.
    pub(crate) fn expect(&mut self, param: &Param) {
        if let Some(Some(slot)) = self.by_id.get_mut(param.id()) {
            slot.pending += 1;
        }
    }

    /// Notes that one of the operations has added to the gradient of the parameter, and completes it after the last.
    pub(crate) fn added(&mut self, id: usize, to: Option<&mut dyn Finished>) -> Result<()> {
        let Some(Some(slot)) = self.by_id.get_mut(id) else {
            return Ok(());
        };
        slot.pending = slot.pending.saturating_sub(1);
        match slot.pending {
            0 => self.complete(id, to),
            _ => Ok(()),
        }
    }

    /// Adds the complete gradient of the micro-batch to those before it, and gives it away if `to` takes it.
    fn complete(&mut self, id: usize, to: Option<&mut dyn Finished>) -> Result<()> {
        self.hold(id)?;
        let Some(Some(slot)) = self.by_id.get_mut(id) else {
            return Ok(());
        };
        slot.complete = true;
        let Some(held) = slot.held.take() else {
            return Ok(());
        };
        let whole = match slot.sum.take() {
            None => held,
            Some(mut sum) => {
                self.device.add(&held, &mut sum)?;
                sum
            }
        };
        match to {
            Some(to) => to.finished(id, whole)?,
            None => slot.sum = Some(whole),
        }
        Ok(())
    }

    /// Ends a backward pass: completes what no operation has added to.
    pub(crate) fn complete_all(&mut self, mut to: Option<&mut dyn Finished>) -> Result<()> {
        for id in 0..self.by_id.len() {
            let slot = self.by_id[id].as_ref();
            if slot.is_some_and(|slot| !slot.complete) {
                let to: Option<&mut dyn Finished> = match &mut to {
                    Some(to) => Some(&mut **to),
                    None => None,
                };
                self.complete(id, to)?;
            }
        }
        for slot in self.by_id.iter_mut().flatten() {
            slot.complete = false;
            slot.pending = 0;
        }
        Ok(())
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

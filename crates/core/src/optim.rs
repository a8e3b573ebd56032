//! AdamW over the parameters of a model, with gradient clipping.

use crate::device::{Buffer, Device, Update};
use crate::error::Result;
use crate::model::Model;
use crate::param::{Gradients, Param};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Settings of the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, on all parameters but norms.
    pub weight_decay: f64,
    /// Largest global L2 norm of the gradient; 0 for no limit.
    pub clip: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
        }
    }
}

/// Moments of one parameter.
#[derive(Debug)]
pub struct Moments {
    /// First moment.
    pub m: Buffer,
    /// Second moment.
    pub v: Buffer,
    /// Updates so far.
    pub step: u64,
}

/// What an update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied {
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// False if the gradient was not finite and nothing was changed.
    pub updated: bool,
}

/// AdamW. Each parameter counts its own updates, so tokens born late get their own bias correction.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    /// By parameter number.
    moments: Vec<Option<Moments>>,
}

impl AdamW {
    /// An optimizer with zero moments for the trainable parameters of `model`.
    ///
    /// # Errors
    /// If memory is short.
    pub fn new(config: AdamWConfig, model: &Model) -> Result<Self> {
        let mut optimizer = Self {
            config,
            moments: Vec::new(),
        };
        optimizer.adopt(model)?;
        Ok(optimizer)
    }

    /// Makes zero moments for trainable parameters that have none yet (after a growth).
    ///
    /// # Errors
    /// If memory is short.
    pub fn adopt(&mut self, model: &Model) -> Result<()> {
        let device = model.device();
        for param in model.params() {
            if self.moments.len() <= param.id() {
                self.moments.resize_with(param.id() + 1, || None);
            }
            let slot = &mut self.moments[param.id()];
            if param.trainable && slot.is_none() {
                let (m, v) = (device.allocate(param.len())?, device.allocate(param.len())?);
                *slot = Some(Moments { m, v, step: 0 });
            }
        }
        Ok(())
    }

    /// Moments of a parameter; `None` if it has never been trainable.
    pub fn moments(&self, param: &Param) -> Option<&Moments> {
        self.moments.get(param.id())?.as_ref()
    }

    /// As [`AdamW::moments`], to restore them.
    pub fn moments_mut(&mut self, param: &Param) -> Option<&mut Moments> {
        self.moments.get_mut(param.id())?.as_mut()
    }

    /// Clips the gradient and updates every trainable parameter. A gradient that is not finite changes
    /// nothing.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(&mut self, model: &mut Model, gradients: &Gradients, lr: f64) -> Result<Applied> {
        let device: Arc<dyn Device> = Arc::clone(model.device());
        let mut squares = 0.0;
        for gradient in model.each_param().filter_map(|p| gradients.get(p)) {
            squares += device.sum_of_squares(gradient)?;
        }
        let grad_norm = squares.sqrt();
        if !grad_norm.is_finite() {
            return Ok(Applied {
                grad_norm,
                updated: false,
            });
        }
        let clip = self.config.clip;
        let clips = clip > 0.0 && grad_norm > clip;
        let grad_scale = if clips {
            (clip / (grad_norm + 1e-6)) as f32
        } else {
            1.0
        };
        for param in model.each_param_mut() {
            let moments = self.moments.get_mut(param.id()).and_then(Option::as_mut);
            let (Some(gradient), Some(moments)) = (gradients.get(param), moments) else {
                continue;
            };
            moments.step += 1;
            let c = &self.config;
            let update = Update {
                lr: (lr * f64::from(param.lr_scale)) as f32,
                beta1: c.beta1 as f32,
                beta2: c.beta2 as f32,
                eps: c.eps as f32,
                weight_decay: if param.decays {
                    c.weight_decay as f32
                } else {
                    0.0
                },
                grad_scale,
                step: moments.step,
            };
            let Moments { m, v, .. } = moments;
            device.adamw(update, param.value_mut(), gradient, m, v)?;
        }
        Ok(Applied {
            grad_norm,
            updated: true,
        })
    }
}

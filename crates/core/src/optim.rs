//! AdamW over the parameters of a model, with gradient clipping.

use crate::error::Result;
use crate::gradients::Gradients;
use crate::model::Model;
use crate::param::Param;
use crate::path::{ParamPath, Place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokenformer_device::{Adam, AdamStep, Buffer, Device, Role};

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
    /// Decoupled weight decay, on all parameters but norms and biases.
    pub weight_decay: f64,
    /// Largest L2 norm of the gradient, of each generation of arrays; 0 for no limit.
    pub clip: f64,
    /// How both moments are kept between updates.
    pub moments: MomentFormat,
    /// Factor of the learning rate from a layer to the one before it, above 0 and at most 1: the head and the last norm
    /// learn at the full rate, block `b` of `L` at `layer_decay^(L-b)` of it, and what is before the blocks at
    /// `layer_decay^(L+1)`.
    #[serde(skip_serializing_if = "is_one")]
    pub layer_decay: f64,
}

/// How moments are kept between updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MomentFormat {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16: half the memory. The second moment must forget fast enough for its changes not to be rounded
    /// away, see [`MomentFormat::LARGEST_BETA2`].
    Bf16,
}

impl MomentFormat {
    /// Largest `beta2` with moments in bfloat16. A moment whose gradients vanish shrinks by the share `1 − beta2` an
    /// update, and a change of less than half a unit in the last place, 1/256 to 1/512 of the number, is lost.
    pub const LARGEST_BETA2: f64 = 0.99;

    /// Bytes of a moment.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn role(self) -> Role {
        match self {
            Self::F32 => Role::Moment,
            Self::Bf16 => Role::HalfMoment,
        }
    }
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            moments: MomentFormat::F32,
            layer_decay: 1.0,
        }
    }
}

impl AdamWConfig {
    /// Factor of the learning rate of an array in a network of `layers` blocks. It is computed for every update, so that
    /// a network which has grown by blocks decays over all of them.
    pub fn layer_factor(&self, path: &ParamPath, layers: usize) -> f64 {
        let layers_above = match (path.place, path.block()) {
            (_, Some(block)) => layers - block,
            (Place::Trunk("head") | Place::Image("head") | Place::Norm { .. }, None) => 0,
            _ => layers + 1,
        };
        std::iter::repeat_n(self.layer_decay, layers_above).product()
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

/// The outcome of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied {
    /// Global L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// False if the gradient was not finite and nothing was changed.
    pub updated: bool,
}

/// AdamW. Each parameter counts its own updates, so tokens that were added later get their own bias correction and
/// warm-up.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    /// By parameter number.
    moments: Vec<Option<Moments>>,
    /// The numbers that change in every step, on the device.
    step: StepState,
}

/// Numbers of a step on the device, and their copies on the host.
#[derive(Debug)]
struct StepState {
    /// [`Adam::SCALARS`] for each parameter number.
    scalars: Buffer,
    host: Vec<f32>,
    /// The generations of the model, each of which is clipped by its own norm.
    generations: Vec<u32>,
    /// Sums of the squares of their gradients.
    sums: Buffer,
    host_sums: Vec<f64>,
    /// Factors of their gradients.
    factors: Buffer,
}

impl StepState {
    fn new(device: &dyn Device, slots: usize, mut generations: Vec<u32>) -> Result<Self> {
        generations.sort_unstable();
        generations.dedup();
        let (len, groups) = (slots * Adam::SCALARS, generations.len());
        Ok(Self {
            scalars: device.alloc(len, Role::Statistic)?,
            host: vec![0.0; len],
            sums: device.alloc(groups, Role::Accumulator)?,
            host_sums: vec![0.0; groups],
            factors: device.alloc(groups, Role::Statistic)?,
            generations,
        })
    }

    /// Number of a parameter's generation among the groups.
    fn group(&self, param: &Param) -> usize {
        let known = self.generations.binary_search(&param.training.generation);
        // Training begins with `new` and continues after a growth with `extend`, which list the generations of all parameters.
        known.expect("`extend` has seen every parameter")
    }
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
            step: StepState::new(&**model.device(), 0, Vec::new())?,
        };
        optimizer.extend(model)?;
        Ok(optimizer)
    }

    /// Creates zero moments for trainable parameters that have none, and frees those of parameters that are frozen or
    /// no longer exist (after a growth).
    ///
    /// # Errors
    /// If memory is short.
    pub fn extend(&mut self, model: &Model) -> Result<()> {
        let device = model.device();
        let trained = model.each_param().filter(|param| param.trainable());
        let trained: BTreeSet<usize> = trained.map(Param::id).collect();
        for (id, moments) in self.moments.iter_mut().enumerate() {
            if !trained.contains(&id) {
                *moments = None;
            }
        }
        for param in model.each_param() {
            if self.moments.len() <= param.id() {
                self.moments.resize_with(param.id() + 1, || None);
            }
            let slot = &mut self.moments[param.id()];
            if param.trainable() && slot.is_none() {
                let zeros = || device.alloc(param.len(), self.config.moments.role());
                let (m, v) = (zeros()?, zeros()?);
                *slot = Some(Moments { m, v, step: 0 });
            }
        }
        let generations = model.each_param().map(|p| p.training.generation).collect();
        self.step = StepState::new(&**device, self.moments.len(), generations)?;
        Ok(())
    }

    /// Sets all moments to zero and counts updates from zero.
    ///
    /// # Errors
    /// If the device fails.
    pub fn reset(&mut self, model: &Model) -> Result<()> {
        for moments in self.moments.iter_mut().flatten() {
            model.device().zero(&mut moments.m)?;
            model.device().zero(&mut moments.v)?;
            moments.step = 0;
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

    /// Learning rate of update `step` (1 is the first) of a parameter of a network of `layers` blocks, where the schedule
    /// says `lr`.
    fn rate(config: &AdamWConfig, layers: usize, param: &Param, lr: f64, step: u64) -> f64 {
        let how = &param.training;
        let warmth = match how.warmup {
            0 => 1.0,
            warmup => (step as f64 / warmup as f64).min(1.0),
        };
        lr * f64::from(how.lr_scale) * warmth * config.layer_factor(&param.path(), layers)
    }

    /// Clips the gradient of each generation and updates every trainable parameter. A gradient that is not finite changes
    /// nothing. The device is waited for once, at the end.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(&mut self, model: &mut Model, gradients: &Gradients, lr: f64) -> Result<Applied> {
        let device: Arc<dyn Device> = Arc::clone(model.device());
        let c = &self.config;
        let layers = model.blocks().len();
        let adam = Adam {
            beta1: c.beta1 as f32,
            beta2: c.beta2 as f32,
            eps: c.eps as f32,
        };
        let state = &mut self.step;
        device.zero(&mut state.sums)?;
        for param in model.each_param() {
            if let Some(gradient) = gradients.get(param) {
                let group = state.group(param);
                device.sum_of_squares(gradient, &mut state.sums, group)?;
            }
        }
        device.clip_factors(&state.sums, c.clip, &mut state.factors)?;
        for param in model.each_param() {
            let Some(Some(moments)) = self.moments.get(param.id()) else {
                continue;
            };
            let decay = match param.path().decays() {
                true => c.weight_decay as f32,
                false => 0.0,
            };
            let step = moments.step + 1;
            let rate = Self::rate(c, layers, param, lr, step) as f32;
            let slot = param.id() * Adam::SCALARS;
            state.host[slot..slot + Adam::SCALARS]
                .copy_from_slice(&adam.scalars(rate, decay, step));
        }
        device.write(&state.host, &mut state.scalars)?;
        for param in model.each_param_mut() {
            let id = param.id();
            let moments = self.moments.get_mut(id).and_then(Option::as_mut);
            let (Some(gradient), Some(Moments { m, v, .. })) = (gradients.get(param), moments)
            else {
                continue;
            };
            let step = AdamStep {
                adam,
                scalars: &state.scalars,
                slot: id,
                factors: &state.factors,
                group: state.group(param),
            };
            device.adamw(step, param.value_mut(), gradient, m, v)?;
        }
        device.read_accumulator(&state.sums, &mut state.host_sums)?;
        let grad_norm = state.host_sums.iter().sum::<f64>().sqrt();
        let updated = grad_norm.is_finite();
        if updated {
            for param in model.each_param().filter(|p| gradients.get(p).is_some()) {
                if let Some(Some(moments)) = self.moments.get_mut(param.id()) {
                    moments.step += 1;
                }
            }
            model.follow_scores(gradients)?;
        }
        Ok(Applied { grad_norm, updated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::ParamRole;

    #[test]
    fn the_rate_decays_from_the_head_to_the_front() {
        let config = AdamWConfig {
            layer_decay: 0.5,
            ..AdamWConfig::default()
        };
        let norm = |block| Place::Norm {
            block,
            name: "attention_norm",
        };
        for (place, role, want) in [
            (Place::Image("head"), ParamRole::Head, 1.0),
            (Place::Image("head"), ParamRole::Bias, 1.0),
            (Place::Trunk("head"), ParamRole::Head, 1.0),
            (norm(None), ParamRole::Gain, 1.0),
            (norm(Some(2)), ParamRole::Gain, 0.5),
            (norm(Some(0)), ParamRole::Gain, 0.125),
            (Place::Image("patches"), ParamRole::Weight, 0.0625),
            (Place::Image("positions"), ParamRole::Positions, 0.0625),
            (Place::Trunk("embedding"), ParamRole::Embedding, 0.0625),
        ] {
            let path = ParamPath::new(place, role);
            assert_eq!(config.layer_factor(&path, 3), want, "{path}");
            assert_eq!(AdamWConfig::default().layer_factor(&path, 3), 1.0, "{path}");
        }
    }
}

//! AdamW over the parameters of a model, with gradient clipping; moments are on every rank, or on one rank for each array.

use crate::error::Result;
use crate::exchange::share_arrays;
use crate::gradients::Gradients;
use crate::model::Model;
use crate::owners::Owners;
use crate::param::Param;
use crate::path::{ParamPath, Place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokenformer_device::{Adam, AdamStep, Buffer, Collective, Device, Role, Single, clip_factors};

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

/// How several ranks share the work of an optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharding {
    /// This rank.
    pub rank: usize,
    /// Number of ranks; 0 counts as 1.
    pub world: usize,
    /// Whether each rank keeps the moments of the arrays that it owns only, and updates these (ZeRO, stage 1: Rajbhandari et
    /// al. 2020).
    pub is_sharded: bool,
}

/// Moments of one parameter.
#[derive(Debug)]
pub struct Moments {
    /// First moment; empty if another rank keeps it, as for the second.
    pub m: Buffer,
    /// Second moment.
    pub v: Buffer,
    /// Updates so far.
    pub step: u64,
}

/// The outcome of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
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
    among: Sharding,
    owners: Owners,
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
    /// Sums of squares by parameter number, where ranks add them up; else empty.
    by_param: Buffer,
}

impl StepState {
    fn new(
        device: &dyn Device,
        slots: usize,
        mut generations: Vec<u32>,
        among: Sharding,
    ) -> Result<Self> {
        generations.sort_unstable();
        generations.dedup();
        let (len, groups) = (slots * Adam::SCALARS, generations.len());
        Ok(Self {
            scalars: device.alloc(len, Role::Statistic)?,
            host: vec![0.0; len],
            sums: device.alloc(groups, Role::Accumulator)?,
            host_sums: vec![0.0; groups],
            factors: device.alloc(groups, Role::Statistic)?,
            by_param: match among.is_sharded {
                true => device.alloc(slots, Role::Accumulator)?,
                false => Buffer::empty(),
            },
            generations,
        })
    }

    /// Norms of the gradients, and the factors that clip them.
    fn norms(&mut self, model: &Model, gradients: &Gradients, limit: f64) -> Result<()> {
        let device = model.device();
        device.zero(&mut self.sums)?;
        for param in model.each_param() {
            if let Some(gradient) = gradients.get(param) {
                let group = self.group(param);
                device.sum_of_squares(gradient, &mut self.sums, group)?;
            }
        }
        device.clip_factors(&self.sums, limit, &mut self.factors)?;
        Ok(())
    }

    /// As [`StepState::norms`], when each gradient is held by one rank only. The sums over arrays are added in the same order.
    fn norms_on_ranks(
        &mut self,
        model: &Model,
        gradients: &Gradients,
        limit: f64,
        collective: &dyn Collective,
    ) -> Result<()> {
        let device = model.device();
        device.zero(&mut self.by_param)?;
        for param in model.each_param() {
            if let Some(gradient) = gradients.get(param) {
                device.sum_of_squares(gradient, &mut self.by_param, param.id())?;
            }
        }
        let mut by_param = vec![0.0; self.by_param.len()];
        device.read_accumulator(&self.by_param, &mut by_param)?;
        collective.all_reduce(&mut by_param)?;
        self.host_sums.fill(0.0);
        for param in model.each_param().filter(|param| param.trainable()) {
            let group = self.group(param);
            self.host_sums[group] += by_param[param.id()];
        }
        let mut factors = vec![0.0; self.host_sums.len()];
        clip_factors(&self.host_sums, limit, &mut factors);
        device.write(&factors, &mut self.factors)?;
        Ok(())
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
        Self::among(config, model, Sharding::default())
    }

    /// As [`AdamW::new`], of one of several ranks.
    ///
    /// # Errors
    /// If memory is short.
    pub fn among(config: AdamWConfig, model: &Model, among: Sharding) -> Result<Self> {
        let mut optimizer = Self {
            config,
            moments: Vec::new(),
            step: StepState::new(&**model.device(), 0, Vec::new(), among)?,
            owners: Owners::new(among.world),
            among,
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
        let arrays = model.each_param().filter(|param| param.trainable());
        self.owners
            .extend(arrays.map(|param| (param.id(), param.len())));
        for param in model.each_param() {
            if self.moments.len() <= param.id() {
                self.moments.resize_with(param.id() + 1, || None);
            }
            let owns = self.owns(param);
            let slot = &mut self.moments[param.id()];
            if param.trainable() && slot.is_none() {
                let zeros = || match owns {
                    true => param.zeros(&**device, self.config.moments.role()),
                    false => Ok(Buffer::empty()),
                };
                let (m, v) = (zeros()?, zeros()?);
                *slot = Some(Moments { m, v, step: 0 });
            }
        }
        let generations = model.each_param().map(|p| p.training.generation).collect();
        self.step = StepState::new(&**device, self.moments.len(), generations, self.among)?;
        Ok(())
    }

    /// Which rank owns which array.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Whether this rank keeps the moments of a parameter and updates it.
    pub fn owns(&self, param: &Param) -> bool {
        !self.among.is_sharded || self.owners.of(param.id()) == self.among.rank
    }

    /// Whether each rank keeps the moments of the arrays that it owns only.
    pub fn is_sharded(&self) -> bool {
        self.among.is_sharded
    }

    /// Sets all moments to zero and counts updates from zero.
    ///
    /// # Errors
    /// If the device fails.
    pub fn reset(&mut self, model: &Model) -> Result<()> {
        for moments in self.moments.iter_mut().flatten() {
            if !moments.m.is_empty() {
                model.device().zero(&mut moments.m)?;
                model.device().zero(&mut moments.v)?;
            }
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
        let factor = f64::from(how.lr_scale * how.old_lr);
        lr * factor * warmth * config.layer_factor(&param.path(), layers)
    }

    /// Clips the gradient of each generation and updates every trainable parameter. A gradient that is not finite changes
    /// nothing. The device is waited for once, at the end.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(
        &mut self,
        model: &mut Model,
        gradients: &Gradients,
        lr: f64,
    ) -> Result<StepOutcome> {
        self.step_on_ranks(model, gradients, lr, &Single)
    }

    /// As [`AdamW::step`], on all ranks at once. If the moments are sharded, the gradients of arrays that other ranks own are
    /// not needed, and afterwards every rank has all new weights. The bits are those of one process.
    ///
    /// # Errors
    /// If the device or a connection fails.
    pub fn step_on_ranks(
        &mut self,
        model: &mut Model,
        gradients: &Gradients,
        lr: f64,
        collective: &dyn Collective,
    ) -> Result<StepOutcome> {
        let device: Arc<dyn Device> = Arc::clone(model.device());
        let c = &self.config;
        let layers = model.blocks().len();
        let adam = Adam {
            beta1: c.beta1 as f32,
            beta2: c.beta2 as f32,
            eps: c.eps as f32,
        };
        match self.among.is_sharded {
            true => self
                .step
                .norms_on_ranks(model, gradients, c.clip, collective)?,
            false => self.step.norms(model, gradients, c.clip)?,
        }
        let state = &mut self.step;
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
        if !self.among.is_sharded {
            device.read_accumulator(&state.sums, &mut state.host_sums)?;
        }
        let grad_norm = state.host_sums.iter().sum::<f64>().sqrt();
        let updated = grad_norm.is_finite();
        if updated {
            for param in model.each_param() {
                let is_updated = gradients.get(param).is_some() || !self.owns(param);
                if let (true, Some(Some(moments))) = (is_updated, self.moments.get_mut(param.id()))
                {
                    moments.step += 1;
                }
            }
            if self.among.is_sharded {
                self.share_weights(model, collective)?;
            }
            model.follow_scores(gradients)?;
        }
        Ok(StepOutcome { grad_norm, updated })
    }

    /// Brings the weights from the ranks that have updated them to all.
    fn share_weights(&self, model: &mut Model, collective: &dyn Collective) -> Result<()> {
        let device = Arc::clone(model.device());
        let mut params: Vec<Option<&mut Param>> = Vec::new();
        for param in model.each_param_mut() {
            let id = param.id();
            if params.len() <= id {
                params.resize_with(id + 1, || None);
            }
            params[id] = Some(param);
        }
        let lens: Vec<usize> = (params.iter())
            .map(|param| param.as_ref().map_or(0, |param| param.len()))
            .collect();
        let params = std::cell::RefCell::new(params);
        share_arrays(
            collective,
            &self.owners.messages(),
            |id| lens[id],
            |part, to| match &params.borrow()[part.id] {
                Some(param) => device.read_part(param.value(), part.start, to),
                None => Ok(()),
            },
            |id, numbers| match &mut params.borrow_mut()[id] {
                Some(param) => device.write(numbers, param.value_mut()),
                None => Ok(()),
            },
        )?;
        Ok(())
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

//! The memory of a run, computed before it starts: each of its stages is run once with the same code as a dry run, on a
//! copy of the device that allocates the memory and computes nothing.

use crate::ema::Ema;
use crate::error::Result;
use crate::evaluate::ensure_held_out;
use crate::recipe::{GrowEvent, Recipe};
use serde::Serialize;
use std::sync::Arc;
use tokenformer_core::config::TrainingSettings;
use tokenformer_core::device::Usage;
use tokenformer_core::generate::Session;
use tokenformer_core::growth::{Birth, GrowthMap};
use tokenformer_core::optim::AdamW;
use tokenformer_core::param::Param;
use tokenformer_core::path::ParamRole;
use tokenformer_core::{Device, Gradients, Graph, LossTargets, Model, ModelConfig, Recompute};

/// Bytes of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// The program itself, and the dataset as far as it is mapped.
    pub base_bytes: u64,
    /// One by one, growths between them.
    pub stages: Vec<StageFootprint>,
    /// The most at any time.
    pub peak_bytes: u64,
}

/// Bytes of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StageFootprint {
    /// Updates done before it; those of the whole run for a growth of `[planner]`, whose step is not known.
    pub from_step: u64,
    /// Parameters.
    pub params: u64,
    /// Weights.
    pub weights_bytes: u64,
    /// Both moments of AdamW, and the average of the weights if there is one.
    pub moments_bytes: u64,
    /// All gradients.
    pub gradients_bytes: u64,
    /// Memory of the tape at the end of a forward pass.
    pub activations_bytes: u64,
    /// Memory that gradients, activations, temporaries and scratch memory of kernels share over time.
    pub arena_bytes: u64,
    /// Scratch memory of the threads.
    pub scratch_bytes: u64,
    /// Batches, losses, and the logits that a growth compares, on the host.
    pub host_bytes: u64,
    /// The most at any time of the stage, without the program and its data.
    pub peak_bytes: u64,
}

/// Inputs of a plan other than the recipe.
#[derive(Clone, Copy, Debug)]
pub struct PlanInputs {
    /// Tokens of the vocabulary, or classes.
    pub vocab: usize,
    /// Tokens of the held-out text, or held-out pictures; 0 if there is no dataset yet.
    pub held_out: usize,
    /// Bytes of the program and its data.
    pub base_bytes: u64,
}

impl Footprint {
    /// Plans the stages of a recipe on a device, with a backward pass that recomputes what `recompute` says.
    ///
    /// # Errors
    /// If the model or a growth is impossible, the held-out text has no token to predict, or the system refuses so much
    /// address space.
    pub fn plan(
        recipe: &Recipe,
        recompute: Recompute,
        device: &Arc<dyn Device>,
        around: PlanInputs,
    ) -> Result<Self> {
        let mut config = recipe.model.build(around.vocab)?;
        if config.input.is_tokens() && around.held_out > 0 {
            ensure_held_out(&recipe.data.dir, around.held_out)?;
        }
        let mut training = TrainingSettings::default();
        let mut stages = Vec::new();
        // The moments of the growths of `[planner]` are not known; they may all come.
        let planned = recipe.planner.grow.iter().map(|growth| GrowEvent {
            at_step: recipe.train.steps,
            growth: growth.clone(),
            ..GrowEvent::default()
        });
        let growths: Vec<GrowEvent> = recipe.grow.iter().cloned().chain(planned).collect();
        let mut growths = growths.iter();
        let mut from_step = 0;
        loop {
            let next = growths.next();
            let dry_run = DryRun {
                recipe,
                recompute,
                device,
                around,
                from_step,
                number: stages.len() as u32,
            };
            let (stage, grown) = dry_run.stage(&config, &training, next)?;
            // A growth that adds nothing does not happen.
            if grown.as_ref().is_none_or(|map| map.target != config) {
                stages.push(stage);
            }
            let (Some(event), Some(grown)) = (next, grown) else {
                break;
            };
            if grown.target != config {
                from_step = event.at_step;
                (config, training) = (grown.target, grown.training);
            }
        }
        let most = stages.iter().map(|s| s.peak_bytes).max().unwrap_or(0);
        Ok(Self {
            recompute,
            base_bytes: around.base_bytes,
            stages,
            peak_bytes: around.base_bytes + most,
        })
    }
}

struct DryRun<'a> {
    recipe: &'a Recipe,
    recompute: Recompute,
    device: &'a Arc<dyn Device>,
    around: PlanInputs,
    from_step: u64,
    number: u32,
}

impl DryRun<'_> {
    /// Runs everything that a stage does, and returns the model after the growth at its end.
    fn stage(
        &self,
        config: &ModelConfig,
        training: &TrainingSettings,
        next: Option<&GrowEvent>,
    ) -> Result<(StageFootprint, Option<GrowthMap>)> {
        let Recipe { train, sample, .. } = self.recipe;
        let device = self
            .device
            .dry_run()
            .map_err(tokenformer_core::Error::from)?;
        let mut model = Model::build(&device, config, &mut |_, shape| {
            Ok(vec![0.0; shape.iter().product()])
        })?;
        model.set_training(training);
        let weights = device.usage().persistent;
        let ema = Ema::new(self.recipe.ema, &model)?;
        let mut optimizer = AdamW::new(self.recipe.optimizer.clone(), &model)?;
        let state = device.usage().persistent;

        let inputs = Inputs::new(config, self.recipe, self.around);
        let logits_bytes = size_of::<f32>() * inputs.probe_rows() * config.vocab;
        let check = |model: &Model| inputs.probe(model, &mut Graph::inference(&device));
        // The logits before the growth and after it, both in memory.
        let mut born_peak = 0;
        if self.number > 0 {
            check(&model)?;
            born_peak = device.usage().total() + 2 * logits_bytes;
        }
        inputs.evaluate(&model, &mut Graph::inference(&device))?;
        if sample.tokens > 0 && config.input.is_tokens() {
            let mut session = Session::new(&model, config.context)?;
            session.feed(&[0])?;
        }

        let (mut activations, mut all_gradients) = (0, 0);
        for _ in 0..2 {
            let mut gradients = Gradients::zeros(&device, model.each_param())?;
            for _ in 0..train.accumulate.min(2) {
                let before = device.usage().temporary;
                let mut g = Graph::training(&device, &mut gradients).recomputing(self.recompute);
                inputs.learn(&model, &mut g)?;
                // Each micro-batch computes its gradients from zero.
                let table = match trains_table(&model) {
                    true => size_of::<f32>() * config.vocab * config.width,
                    false => 0,
                };
                let kept = device.usage().temporary - before;
                activations = kept.saturating_sub(table).max(activations);
                g.backward()?;
            }
            all_gradients = size_of::<f32>() * gradients.held();
            optimizer.step(&mut model, &gradients, 0.0)?;
        }
        let mut before_growth = 0;
        let grown = match next {
            Some(event) => {
                check(&model)?;
                before_growth = logits_bytes;
                let birth = Birth {
                    stage: self.number + 1,
                    step: event.at_step,
                    seed: self.recipe.seed,
                };
                Some(event.growth.map(&model, birth)?)
            }
            None => None,
        };
        let usage: Usage = device.usage();
        drop(ema);
        let host = inputs.host_bytes(config);
        let peak = (usage.total() + host + before_growth).max(born_peak);
        let stage = StageFootprint {
            from_step: self.from_step,
            params: config.params(),
            weights_bytes: weights as u64,
            moments_bytes: (state - weights) as u64,
            gradients_bytes: all_gradients as u64,
            activations_bytes: activations as u64,
            arena_bytes: usage.temporary_reserved as u64,
            scratch_bytes: usage.scratch as u64,
            host_bytes: (host + before_growth) as u64,
            peak_bytes: peak as u64,
        };
        Ok((stage, grown))
    }
}

/// What a run shows its model, all zeros.
enum Inputs {
    /// Sequences of tokens.
    Tokens {
        /// Tokens of a micro-batch, `[batch, T]`.
        train: Vec<u32>,
        batch: usize,
        /// Tokens of a pass of an evaluation, and their number of sequences.
        held_out: (Vec<u32>, usize),
        /// Tokens on which a growth compares logits.
        probe: Vec<u32>,
    },
    /// Pictures.
    Images {
        /// Pixels of a micro-batch, `[batch, C, H, W]`.
        train: Vec<f32>,
        batch: usize,
        /// Pictures of a pass of an evaluation, and of a growth.
        held_out: usize,
        /// Numbers of a picture.
        input: usize,
    },
}

impl Inputs {
    fn new(config: &ModelConfig, recipe: &Recipe, around: PlanInputs) -> Self {
        let (batch, context) = (recipe.train.batch, config.context);
        let valid = match around.held_out {
            0 => usize::MAX,
            there => there,
        };
        if let Some(image) = config.input.image() {
            let input = image.pixels();
            return Self::Images {
                train: vec![0.0; batch * input],
                batch,
                held_out: batch.min(valid),
                input,
            };
        }
        let length = context.min(valid - 1);
        let windows = match valid {
            usize::MAX => batch,
            tokens => batch.min((tokens - 1).div_ceil(length)),
        };
        Self::Tokens {
            train: vec![0; batch * context],
            batch,
            held_out: (vec![0; windows * length], windows),
            probe: vec![0; valid.min(context)],
        }
    }

    /// Rows of logits that a growth compares.
    fn probe_rows(&self) -> usize {
        match self {
            Self::Tokens { probe, .. } => probe.len(),
            Self::Images { held_out, .. } => *held_out,
        }
    }

    /// Bytes on the host: inputs, targets and losses, and the inputs that are prepared ahead.
    fn host_bytes(&self, config: &ModelConfig) -> usize {
        let (index, float) = (size_of::<u32>(), size_of::<f32>());
        match self {
            Self::Tokens { train, .. } => (2 * index + float) * train.len(),
            // Two micro-batches wait, and one is put together from a third.
            Self::Images { train, batch, .. } => float * (4 * train.len() + batch * config.vocab),
        }
    }

    fn probe<'m>(&self, model: &'m Model, g: &mut Graph<'m>) -> Result<()> {
        let features = match self {
            Self::Tokens { probe, .. } => model.hidden(g, probe, 1, None)?,
            Self::Images {
                train,
                held_out,
                input,
                ..
            } => model.pooled(g, &train[..held_out * input], *held_out)?,
        };
        model.logits(g, &features)?;
        Ok(())
    }

    fn evaluate<'m>(&self, model: &'m Model, g: &mut Graph<'m>) -> Result<()> {
        match self {
            Self::Tokens {
                held_out: (tokens, windows),
                ..
            } => {
                model.loss(g, tokens, tokens, *windows, 0.0)?;
                Ok(())
            }
            Self::Images { .. } => self.probe(model, g),
        }
    }

    fn learn<'m>(&self, model: &'m Model, g: &mut Graph<'m>) -> Result<()> {
        match self {
            Self::Tokens { train, batch, .. } => {
                model.loss(g, train, train, *batch, 1.0)?;
            }
            Self::Images { train, batch, .. } => {
                let pooled = model.pooled(g, train, *batch)?;
                let targets = vec![0.0; batch * model.vocab()];
                model.losses(g, &pooled, LossTargets::Soft(&targets), 1.0)?;
            }
        }
        Ok(())
    }
}

/// Whether the table of the output head has a gradient, which the forward pass takes memory for.
fn trains_table(model: &Model) -> bool {
    let tables = [ParamRole::Head, ParamRole::Embedding];
    let of = |role| model.each_param().find(|p| p.path().role == role);
    tables
        .into_iter()
        .find_map(of)
        .is_some_and(Param::trainable)
}

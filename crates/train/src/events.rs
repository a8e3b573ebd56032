//! Changes of the model between two updates; at present these are the growths of the recipe.

use crate::error::{Error, Result};
use crate::files::{PastGrowth, TrainState};
use crate::memory;
use crate::recipe::{GrowEvent, Recipe};
use crate::trainer::Trainer;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokenformer_core::Gradients;
use tokenformer_core::growth::{Amount, Birth, params_after};
use tokenformer_core::{Model, SiteKind};
use tokenformer_report::{ZOOM_AFTER, ZOOM_BEFORE};

impl Trainer<'_> {
    /// Does what the recipe plans for this step and what has not happened so far. Breaks if `stop` was set during that
    /// time; the run then resumes from the checkpoint before.
    pub(crate) fn events(&mut self, stop: &AtomicBool) -> Result<ControlFlow<()>> {
        let Some(event) = growth_due(&self.recipe, &self.state).cloned() else {
            return Ok(ControlFlow::Continue(()));
        };
        let more = adds(&self.model, &event)?;
        if more == 0 {
            let step = self.state.step;
            let text = format!("the growth at step {step} adds nothing");
            self.records.note(step, text)?;
            return Ok(ControlFlow::Continue(()));
        }
        ensure_memory(&self.model, &self.recipe, &event, more)?;
        if self.control(&event, stop)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.grow(event)?;
        Ok(match self.evaluate(stop)? {
            Some(_) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        })
    }

    fn grow(&mut self, event: GrowEvent) -> Result<()> {
        let birth = Birth {
            stage: self.state.stage + 1,
            step: self.state.step,
            seed: self.recipe.seed,
        };
        let report = self.task.grow(&mut self.model, &event.growth, birth)?;
        if let Some(ema) = &mut self.ema {
            let grow = |average: &mut Model| self.task.grow(average, &event.growth, birth);
            ema.grow(&self.model, &event.growth, birth, grow)?;
        }
        self.optimizer.extend(&self.model)?;
        if event.growth.resets_moments() {
            self.optimizer.reset(&self.model)?;
        }
        let device = Arc::clone(self.model.device());
        self.gradients = Gradients::zeros(&device, self.model.params())?;
        self.state.stage += 1;
        self.state.flops += report.probe_flops as f64;
        self.records.grow(&report, self.state.tokens)?;
        self.state.growths.push(PastGrowth {
            event: Some(event.without_control()),
            report,
        });
        Ok(())
    }

    /// Whether the stage ends here: with the run, or before a growth that adds something or cannot be done.
    pub(crate) fn stage_ends(&self) -> bool {
        let grows = |event| !matches!(adds(&self.model, event), Ok(0));
        self.state.step == self.recipe.train.steps
            || growth_due(&self.recipe, &self.state).is_some_and(grows)
    }
}

/// The growth of the recipe that is planned for now and has not happened.
fn growth_due<'r>(recipe: &'r Recipe, state: &TrainState) -> Option<&'r GrowEvent> {
    (recipe.grow.iter()).find(|event| event.at_step == state.step && !has_happened(event, state))
}

pub(crate) fn has_happened(event: &GrowEvent, state: &TrainState) -> bool {
    let past = state.growths.iter();
    past.filter_map(|g| g.event.as_ref())
        .any(|p| p.grows_as(event))
}

/// Whether the zoom plot of a growth shows update `step`, so that its loss is recorded by itself.
pub(crate) fn is_near_growth(recipe: &Recipe, step: u64) -> bool {
    let mut growths = recipe.grow.iter();
    recipe.log.around_growth
        && growths.any(|event| {
            let from = event.at_step.saturating_sub(ZOOM_BEFORE);
            (from..=event.at_step.saturating_add(ZOOM_AFTER)).contains(&step)
        })
}

/// Parameters that a growth adds.
fn adds(model: &Model, event: &GrowEvent) -> Result<u64> {
    let after = params_after(model, &event.growth)?;
    Ok(after.saturating_sub(model.param_count()))
}

/// Refuses a growth by `more` parameters that the memory cannot hold: weights, gradients and two moments, less the
/// gradients and moments of what the growth freezes.
fn ensure_memory(model: &Model, recipe: &Recipe, event: &GrowEvent, more: u64) -> Result<()> {
    let weight = size_of::<f32>() as u64;
    let trained = weight + 2 * recipe.optimizer.moments.bytes();
    let freed = match event.growth.freeze_old {
        true => model.each_param().filter(|param| param.trainable()),
        false => return ensure_bytes(more.saturating_mul(weight + trained)),
    };
    let freed: u64 = freed.map(|param| param.len() as u64 * trained).sum();
    // The new weights are there before the old moments are freed.
    let weights = more.saturating_mul(weight);
    let all = weights.saturating_add(more.saturating_mul(trained));
    ensure_bytes(all.saturating_sub(freed).max(weights))
}

fn ensure_bytes(bytes: u64) -> Result<()> {
    let help = "free memory and run the same command again, which goes on from here; or grow by fewer tokens";
    memory::ensure("the growth", bytes, help)
}

/// Returns an error if the next growth of the run is impossible, before anything is trained.
pub(crate) fn check_next(model: &Model, recipe: &Recipe, state: &TrainState) -> Result<()> {
    let is_next = |event: &&GrowEvent| event.at_step >= state.step && !has_happened(event, state);
    match recipe.grow.iter().find(is_next) {
        Some(event) => ensure_memory(model, recipe, event, adds(model, event)?),
        None => Ok(()),
    }
}

/// Returns an error if the recipe's growths before `state` are not those that happened.
pub(crate) fn check_past(
    recipe: &Recipe,
    state: &TrainState,
    refused: impl FnOnce(&str, String, String) -> Error,
) -> Result<()> {
    let past = state.growths.iter().filter_map(|g| g.event.as_ref());
    let past: Vec<&GrowEvent> = past.collect();
    let planned = recipe
        .grow
        .iter()
        .filter(|g| has_happened(g, state))
        .count();
    if planned < past.len() {
        let (expected, got) = (format!("{past:?}"), format!("{:?}", recipe.grow));
        return Err(refused(
            "the recipe's past growths have changed",
            expected,
            got,
        ));
    }
    let is_missed = |g: &&GrowEvent| {
        g.at_step < state.step && !has_happened(g, state) && !added_nothing(g, state)
    };
    match recipe.grow.iter().find(is_missed) {
        Some(missed) => Err(refused(
            "the recipe has a growth in the past",
            format!("growths from step {} on", state.step),
            format!("a growth at step {}", missed.at_step),
        )),
        None => Ok(()),
    }
}

/// Whether a growth of the past would have found every site as large as it asks for.
fn added_nothing(event: &GrowEvent, state: &TrainState) -> bool {
    let slots = &state.model.slots;
    let growth = &event.growth;
    let of_three = |own: Option<Amount>| own.unwrap_or(growth.qkv);
    let asked = [
        (SiteKind::Query, of_three(growth.query), slots.qkv),
        (SiteKind::Key, of_three(growth.key), slots.qkv),
        (SiteKind::Value, of_three(growth.value), slots.qkv),
        (SiteKind::Proj, growth.proj, slots.proj),
        (SiteKind::Ffn, growth.ffn, slots.ffn),
    ];
    let before = (state.growths.iter())
        .rev()
        .find(|g| g.report.step <= event.at_step);
    let is_nothing =
        growth.layers == 0 && growth.width == Amount::default() && growth.sites.is_empty();
    is_nothing
        && asked.into_iter().all(|(kind, amount, fresh)| {
            let site = before.and_then(|g| g.report.sites.iter().find(|s| s.site == kind));
            let tokens = site.map_or(fresh, |s| s.tokens_after);
            matches!(amount, Amount::Add(0)) || amount == Amount::To(tokens)
        })
}

//! The growths that a recipe plans, compared with those that a run has done.

use crate::error::{Error, Result};
use crate::files::{PastGrowth, TrainState};
use crate::memory;
use crate::recipe::{GrowEvent, Recipe};
use tokenformer_core::Model;
use tokenformer_core::config::TrainingSettings;
use tokenformer_core::device::Collective;
use tokenformer_core::growth::{Birth, Growth, Promise, params_after};
use tokenformer_report::{ZOOM_AFTER, ZOOM_BEFORE};

/// The growth of the recipe that is planned for now and has not happened.
pub(crate) fn growth_due<'r>(recipe: &'r Recipe, state: &TrainState) -> Option<&'r GrowEvent> {
    (recipe.grow.iter()).find(|event| event.at_step == state.step && !has_happened(event, state))
}

/// Whether a growth of the recipe is one of those that the run has done.
pub(crate) fn has_happened(event: &GrowEvent, state: &TrainState) -> bool {
    let past = state.growths.iter();
    past.filter_map(|g| g.event.as_ref())
        .any(|p| p.grows_as(event))
}

/// The recipe with the growths of `[planner]` that the run has done, each at the step at which it came.
pub(crate) fn with_past(recipe: &Recipe, state: &TrainState) -> Recipe {
    let mut recipe = recipe.clone();
    let past = state.growths.iter().filter_map(|g| g.event.as_ref());
    recipe
        .grow
        .extend(past.filter(|event| event.planned).cloned());
    recipe.grow.sort_by_key(|event| event.at_step);
    recipe
}

/// Number of the growths of `[planner]` that the run has done.
pub(crate) fn planned_so_far(state: &TrainState) -> usize {
    let past = state.growths.iter().filter_map(|g| g.event.as_ref());
    past.filter(|event| event.planned).count()
}

/// The next growth of `[planner]`, as if it came now.
pub(crate) fn planned_now(recipe: &Recipe, state: &TrainState) -> Option<GrowEvent> {
    let growth = recipe.planner.grow.get(planned_so_far(state))?;
    Some(as_planned(growth, state))
}

/// A growth of `[planner]` that comes now.
fn as_planned(growth: &Growth, state: &TrainState) -> GrowEvent {
    GrowEvent {
        at_step: state.step,
        growth: growth.clone(),
        planned: true,
        ..GrowEvent::default()
    }
}

/// Whether the zoom plot of a growth shows update `step`, so that its loss is recorded by itself. Growths of `[planner]` are in the
/// recipe once they have come.
pub(crate) fn is_near_growth(recipe: &Recipe, step: u64) -> bool {
    let mut growths = recipe.grow.iter();
    recipe.log.around_growth
        && growths.any(|event| {
            let from = event.at_step.saturating_sub(ZOOM_BEFORE);
            (from..=event.at_step.saturating_add(ZOOM_AFTER)).contains(&step)
        })
}

/// Parameters that a growth adds.
pub(crate) fn adds(model: &Model, event: &GrowEvent) -> Result<u64> {
    let after = params_after(model, &event.growth)?;
    Ok(after.saturating_sub(model.param_count()))
}

/// Refuses a growth by `more` parameters that the memory cannot hold: weights, gradients and two moments, less the
/// gradients and moments of what the growth freezes.
pub(crate) fn ensure_memory(
    model: &Model,
    recipe: &Recipe,
    event: &GrowEvent,
    more: u64,
    ranks: &dyn Collective,
) -> Result<()> {
    let float = size_of::<f32>() as u64;
    // Nearly all that a growth adds, and all that it freezes of sites, is divided between the ranks that have tokens.
    let parts = model.device().token_ranks() as u64;
    let more = more.div_ceil(parts);
    // The average of the weights grows as they do.
    let weight = float * (1 + u64::from(recipe.ema.decay > 0.0));
    let trained = float + 2 * recipe.optimizer.moments.bytes();
    let all = more.saturating_mul(weight + trained);
    let bytes = match event.growth.freeze_old {
        false => all,
        true => {
            let frozen = model.each_param().filter(|param| param.trainable());
            let freed = frozen
                .map(|param| param.len() as u64 * trained)
                .sum::<u64>()
                / parts;
            // The new weights exist before the old moments are freed.
            all.saturating_sub(freed).max(more.saturating_mul(weight))
        }
    };
    let help = "free memory and run the same command again, which goes on from here; or grow by fewer tokens";
    memory::ensure_on_ranks(&**model.device(), "the growth", bytes, help, ranks)
}

/// Returns an error if a growth that is still to come is impossible, before anything is trained. Whether there is memory
/// is asked for the next one only: it may change until the others come.
pub(crate) fn check_next(
    model: &Model,
    recipe: &Recipe,
    state: &TrainState,
    ranks: &dyn Collective,
) -> Result<()> {
    let mut config = model.config();
    let mut training = model.training_settings();
    let mut stage = state.stage;
    for (number, (place, event)) in to_come(recipe, state).into_iter().enumerate() {
        let birth = Birth {
            stage: stage + 1,
            step: event.at_step,
            seed: recipe.seed,
        };
        let map = event.growth.map_of(&config, &training, birth);
        let map = map.map_err(|error| at_place(&place, error))?;
        if event.planned && map.promise == Promise::Nothing {
            return Err(Error::Recipe {
                place,
                problem: "this growth changes what the model computes".into(),
                expected: "one that keeps it, as the law of [planner] assumes".into(),
                got: event.growth.summary(),
                help: "leave out its method, or give its step in a [[grow]] table".into(),
            });
        }
        let more = map.target.params().saturating_sub(config.params());
        if number == 0 {
            ensure_memory(model, recipe, &event, more, ranks)?;
        }
        // A growth that adds nothing does not happen.
        if more > 0 {
            (config, training) = (map.target, map.training);
            stage += 1;
        }
    }
    Ok(())
}

/// The growths of the recipe that have not come yet, first to last, each with its place in the recipe. Those of
/// `[planner]` are as if they came now.
fn to_come(recipe: &Recipe, state: &TrainState) -> Vec<(String, GrowEvent)> {
    let at_steps = (recipe.grow.iter().enumerate())
        .filter(|(_, event)| event.at_step >= state.step && !has_happened(event, state))
        .map(|(i, event)| {
            let place = format!("grow[{i}], at step {}", event.at_step);
            (place, event.clone())
        });
    let planned = (recipe.planner.grow.iter().enumerate())
        .skip(planned_so_far(state))
        .map(|(i, growth)| (format!("planner.grow[{i}]"), as_planned(growth, state)));
    at_steps.chain(planned).collect()
}

/// An impossible setting of a growth, with the place of the growth.
fn at_place(place: &str, error: tokenformer_core::Error) -> tokenformer_core::Error {
    match error {
        tokenformer_core::Error::Config {
            field,
            expected,
            got,
            help,
        } => tokenformer_core::Error::Config {
            field: format!("{place}: {field}"),
            expected,
            got,
            help,
        },
        other => other,
    }
}

/// What grew or grows when, for people.
fn listed<'a>(events: impl IntoIterator<Item = &'a GrowEvent>) -> String {
    let one = |event: &GrowEvent| format!("step {}: {}", event.at_step, event.growth.summary());
    let all: Vec<String> = events.into_iter().map(one).collect();
    match all.is_empty() {
        true => "none".into(),
        false => all.join("; "),
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
        return Err(refused(
            "the recipe's past growths have changed",
            listed(past),
            listed(&recipe.grow),
        ));
    }
    let planned = past.iter().filter(|event| event.planned);
    let asked = recipe.planner.grow.iter().map(Some);
    for (event, asked) in planned.zip(asked.chain(std::iter::repeat(None))) {
        if asked != Some(&event.growth) {
            return Err(refused(
                "the growths of [planner] that came have changed",
                event.growth.summary(),
                asked.map_or("none".into(), |growth| growth.summary()),
            ));
        }
    }
    let is_missed = |event: &&GrowEvent| {
        let is_past = event.at_step < state.step && !has_happened(event, state);
        is_past && !added_nothing(event, state).unwrap_or(false)
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

/// Whether a growth of the past found a network to which it had nothing to add.
///
/// # Errors
/// If the growths before it can no longer be repeated.
fn added_nothing(event: &GrowEvent, state: &TrainState) -> Result<bool> {
    // No growth looks at the vocabulary, which the recipe may have left to the tokenizer.
    let mut config = state.model.build(1)?;
    let mut training = TrainingSettings::default();
    let before = (state.growths.iter()).filter(|past| past.report.step <= event.at_step);
    for PastGrowth { report, .. } in before {
        let birth = Birth {
            stage: report.stage,
            step: report.step,
            seed: state.seed,
        };
        let map = report.growth.map_of(&config, &training, birth)?;
        (config, training) = (map.target, map.training);
    }
    let birth = Birth {
        stage: 0,
        step: event.at_step,
        seed: state.seed,
    };
    let map = event.growth.map_of(&config, &training, birth)?;
    Ok(map.target.params() <= config.params())
}

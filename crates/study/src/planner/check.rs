//! Predicts trainings that were left out, to see how far the planner can be trusted.

use super::evidence::Observation;
use super::fit::Problem;
use super::law::Law;
use super::{DRAWS, Estimate};
use serde::Serialize;
use std::collections::BTreeMap;
use tokenformer_core::init::normal;

/// Predictions of trainings that the fit did not see.
#[derive(Clone, Debug, Serialize)]
pub struct Coverage {
    /// Name, measured loss and predicted interval of each loss after a decay, or of the last one of a training without.
    pub predictions: Vec<(String, f64, Estimate)>,
}

impl Coverage {
    /// Share of the 80 % intervals that hold the measured loss.
    pub fn share(&self) -> f64 {
        let holds = |(_, loss, interval): &&(String, f64, Estimate)| {
            (interval.low..=interval.high).contains(loss)
        };
        let count = self.predictions.iter().filter(holds).count();
        count as f64 / self.predictions.len().max(1) as f64
    }
}

/// The observations by training.
fn groups(observations: &[Observation]) -> BTreeMap<&str, Vec<&Observation>> {
    let mut groups: BTreeMap<&str, Vec<&Observation>> = BTreeMap::new();
    for observation in observations {
        groups
            .entry(&observation.name)
            .or_default()
            .push(observation);
    }
    groups
}

fn without(observations: &[Observation], name: &str) -> Vec<Observation> {
    let others = observations.iter().filter(|o| o.name != name);
    others.cloned().collect()
}

/// Relative errors of each training's observations, predicted from the other trainings.
fn left_out(observations: &[Observation]) -> Vec<(&str, Vec<f64>)> {
    let mut errors = Vec::new();
    for (name, own) in groups(observations) {
        let others = without(observations, name);
        if others.is_empty() {
            continue;
        }
        let law = Problem::new(&others).fit().law;
        let error = |o: &&Observation| Some((o.loss / predicted(&law, o)?).ln());
        errors.push((name, own.iter().filter_map(error).collect()));
    }
    errors
}

fn predicted(law: &Law, observation: &Observation) -> Option<f64> {
    let above = if observation.decayed {
        0.0
    } else {
        law.undecayed
    };
    Some(law.loss_after(&observation.stages)? * (1.0 + above))
}

/// Root mean square of errors; at least `least`.
fn typical<'a>(errors: impl Iterator<Item = &'a f64>, least: f64) -> f64 {
    let (squares, count) = errors.fold((0.0, 0), |(sum, n), error| (sum + error * error, n + 1));
    match count {
        0 => least,
        _ => (squares / f64::from(count)).sqrt().max(least),
    }
}

/// Root mean square of the relative errors when each training is predicted from the others; at least `least`.
pub(super) fn left_out_error(observations: &[Observation], least: f64) -> f64 {
    let errors = left_out(observations);
    typical(errors.iter().flat_map(|(_, errors)| errors), least)
}

/// Predicts each training from the others alone.
pub fn coverage(observations: &[Observation]) -> Coverage {
    let mut predictions = Vec::new();
    let errors = left_out(observations);
    for (name, own) in groups(observations) {
        let others = without(observations, name);
        if others.is_empty() {
            continue;
        }
        let problem = Problem::new(&others);
        let fit = problem.fit();
        let of_others = errors.iter().filter(|(other, _)| *other != name);
        let error = typical(of_others.flat_map(|(_, errors)| errors), fit.error);
        let noise = normal(0, &format!("planner, {name}"), DRAWS as usize, error);
        let laws: Vec<Law> = (0..DRAWS)
            .map(|number| problem.draw(&fit, number))
            .collect();
        let decayed = own.iter().filter(|o| o.decayed);
        let last = own.last().filter(|_| !own.iter().any(|o| o.decayed));
        for observation in decayed.chain(last) {
            let draws = laws.iter().zip(&noise).filter_map(|(law, &noise)| {
                let above = if observation.decayed {
                    0.0
                } else {
                    law.undecayed
                };
                let loss = law.loss_after(&observation.stages)?;
                Some(loss * (1.0 + above) * f64::from(noise).exp())
            });
            let interval = Estimate::of(draws.collect());
            predictions.push((name.to_string(), observation.loss, interval));
        }
    }
    Coverage { predictions }
}

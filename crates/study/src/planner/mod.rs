//! The planner: when, how much and whether to grow, under a budget.
//!
//! A [`Law`] is fitted to the losses of the user's own runs ([`Evidence`]), with published exponents as a prior, so that few runs
//! give wide intervals instead of wrong numbers. Schedules of growth are searched by it, together with
//! training from scratch at every size, and all are judged by laws drawn near the fit. Growth is recommended only if it beats the best training
//! from scratch in more than 80 % of them.

mod check;
mod evidence;
mod fit;
mod law;
mod online;
mod recipe;
mod search;
mod sites;

pub use check::{Coverage, coverage};
pub use evidence::{Evidence, Observation, StudyEnd};
pub use law::{Law, Stage};
pub use online::Online;
pub use recipe::Sizes;
pub use search::{Budget, Schedule, Size};
pub use sites::{Reading, SitePlan, UNIT, exact_method, plan_sites};

use fit::Problem;
use search::Search;
use serde::Serialize;
use tokenformer_core::init::normal;

/// Laws drawn near the fit.
pub(crate) const DRAWS: u64 = 200;
/// Probability from which on growth is recommended.
pub const CONFIDENT: f64 = 0.8;
/// Grown schedules that are judged.
const SHOWN: usize = 5;
/// Sizes and tokens beyond this factor of the evidence are called extrapolated.
const REACH: f64 = 4.0;

/// A number with its 80 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// 10th percentile.
    pub low: f64,
    /// Median.
    pub middle: f64,
    /// 90th percentile.
    pub high: f64,
}

impl Estimate {
    /// Percentiles of drawn numbers.
    pub(crate) fn of(mut draws: Vec<f64>) -> Self {
        draws.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (share * (draws.len().saturating_sub(1)) as f64).round() as usize;
            draws.get(index).copied().unwrap_or(f64::NAN)
        };
        Self {
            low: at(0.1),
            middle: at(0.5),
            high: at(0.9),
        }
    }
}

/// A schedule and what is expected of it.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// The training.
    pub schedule: Schedule,
    /// Held-out loss at the end, in nats per token.
    pub loss: Estimate,
    /// Cost from scratch, at the best size, of the same loss, over the budget.
    pub saving: Estimate,
    /// Probability that its loss is below that of the best training from scratch.
    pub beats_scratch: f64,
    /// What lies far beyond the evidence.
    pub extrapolated: Vec<&'static str>,
}

/// The planner's answer.
#[derive(Clone, Debug, Serialize)]
pub struct Advice {
    /// The fitted law.
    pub law: Law,
    /// Its parameters with intervals, by name.
    pub parameters: Vec<(&'static str, Estimate)>,
    /// Relative error of a prediction, by leaving out one training after the other.
    pub error: f64,
    /// The best training from scratch.
    pub scratch: Candidate,
    /// The best schedules of growth, best first.
    pub grown: Vec<Candidate>,
    /// Whether the best of them is recommended.
    pub grow: bool,
    /// Tokens of the base after which a growth by a factor pays, by factor.
    pub pays_after: Vec<(f64, f64)>,
}

impl Advice {
    /// The recommended training.
    pub fn recommended(&self) -> &Candidate {
        match self.grown.first().filter(|_| self.grow) {
            Some(grown) => grown,
            None => &self.scratch,
        }
    }
}

/// Plans a training of a model whose sizes are `size` under a budget; `None` if no size is allowed or there is no
/// evidence.
pub fn plan(
    evidence: &Evidence,
    budget: Budget,
    size: &dyn Fn(f64) -> Option<Size>,
) -> Option<Advice> {
    let observations = &evidence.observations;
    if observations.is_empty() {
        return None;
    }
    let problem = Problem::new(observations);
    let fit = problem.fit();
    let draws: Vec<Law> = (0..DRAWS)
        .map(|number| problem.draw(&fit, number))
        .collect();
    let error = check::left_out_error(observations, fit.error);
    let search = Search {
        law: &fit.law,
        budget,
        size,
    };
    let loss = |law: &Law, schedule: &Schedule| law.loss_after(&schedule.stages());
    let from_scratch = search.scratch();
    let best = |law: &Law| {
        let losses = from_scratch
            .iter()
            .filter_map(|schedule| loss(law, schedule));
        losses.min_by(f64::total_cmp)
    };
    let judge = |schedule: Schedule, number: u64| {
        let noise = |name: &str| normal(number, name, DRAWS as usize, error);
        let [own_noise, other_noise] = [noise("planner, schedule"), noise("planner, scratch")];
        let (mut losses, mut savings, mut better) = (Vec::new(), Vec::new(), 0);
        for ((law, own), other) in draws.iter().zip(own_noise).zip(other_noise) {
            let (Some(expected), Some(rival)) = (loss(law, &schedule), best(law)) else {
                continue;
            };
            let at_end = expected * f64::from(own).exp();
            losses.push(at_end);
            better += u64::from(at_end < rival * f64::from(other).exp());
            let cost = search.cost_from_scratch(law, expected);
            savings.push(cost.unwrap_or(f64::INFINITY) / cost_of(budget, &schedule));
        }
        Candidate {
            beats_scratch: better as f64 / losses.len().max(1) as f64,
            loss: Estimate::of(losses),
            saving: Estimate::of(savings),
            extrapolated: extrapolated(observations, &schedule),
            schedule,
        }
    };
    let by_loss = |a: &&Schedule, b: &&Schedule| {
        let [a, b] = [a, b].map(|schedule| loss(&fit.law, schedule).unwrap_or(f64::INFINITY));
        a.total_cmp(&b)
    };
    let scratch = judge(from_scratch.iter().min_by(by_loss)?.clone(), 0);
    let grown: Vec<Candidate> = (search.grown().into_iter().take(SHOWN))
        .zip(1..)
        .map(|((schedule, _), number)| judge(schedule, number))
        .collect();
    let grow = grown
        .first()
        .is_some_and(|best| best.beats_scratch > CONFIDENT);
    Some(Advice {
        law: fit.law,
        parameters: parameters(&draws),
        error,
        scratch,
        grown,
        grow,
        pays_after: search.pays_after(),
    })
}

fn cost_of(budget: Budget, schedule: &Schedule) -> f64 {
    match budget {
        Budget::Flops(_) => schedule.flops(),
        Budget::Tokens(_) => schedule.tokens(),
    }
}

fn parameters(draws: &[Law]) -> Vec<(&'static str, Estimate)> {
    let of = |value: fn(&Law) -> f64| Estimate::of(draws.iter().map(value).collect());
    vec![
        ("E", of(|law| law.e)),
        ("A", of(|law| law.a)),
        ("B", of(|law| law.b)),
        ("alpha", of(|law| law.alpha)),
        ("beta", of(|law| law.beta)),
        ("undecayed", of(|law| law.undecayed)),
        ("k", of(|law| law.k)),
    ]
}

/// Names the quantities of a schedule that are extrapolated far beyond the observations.
fn extrapolated(observations: &[Observation], schedule: &Schedule) -> Vec<&'static str> {
    let stages = schedule.stages();
    let largest = |numbers: &mut dyn Iterator<Item = f64>| numbers.fold(0.0, f64::max);
    let size = |stages: &[Stage]| largest(&mut stages.iter().map(|stage| stage.size));
    let seen_size = largest(&mut observations.iter().map(|o| size(&o.stages)));
    let seen_tokens = largest(&mut observations.iter().map(Observation::tokens));
    let grows = |o: &Observation| o.stages.len() > 1;
    let found = [
        (size(&stages) > REACH * seen_size, "size"),
        (schedule.tokens() > REACH * seen_tokens, "tokens"),
        (
            schedule.grows() && !observations.iter().any(grows),
            "growth",
        ),
    ];
    (found.into_iter().filter(|(is, _)| *is))
        .map(|(_, what)| what)
        .collect()
}

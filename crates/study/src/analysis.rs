//! Computes tables, contrasts and speed-ups from the results so far.

mod ends;
mod map;
mod shift;

pub(crate) use ends::Ends;
pub use ends::Row;
pub use map::Cell;
pub use shift::Shifted;

use crate::arms::{ARMS, Arm, Kind, is_scratch};
use crate::plan::Plan;
use crate::result::Results;
use crate::stats::{Beyond, Contrast, Curve, Losses, error_of_mean, holm, mean, quantile};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tokenformer_core::config::Family;

/// Smallest difference of interest: 0.5 % of perplexity, in nats per token.
pub const MARGIN: f64 = 0.005;
/// Largest difference of comparable models: 2 % of perplexity, in nats per token.
pub const TOLERANCE: f64 = 0.0198;
/// The arm that the study is about.
pub const GROWN: &str = "t-seg";
/// The other recipes that it is compared with.
pub const RECIPES: [&str; 3] = ["t-zero", "t-near", "t-rel"];
/// The base that is trained further without a growth.
pub const STAY: &str = "t-stay";

/// How much less a grown model costs than a plain one from scratch of the same loss.
#[derive(Clone, Debug, Serialize)]
pub struct SpeedUp {
    /// A description of the comparison.
    pub name: String,
    /// Geometric mean over the seeds.
    pub factor: f64,
    /// 95 % interval, from the scatter of the seeds. If the loss is outside the measured range, only a bound is known; of one
    /// seed, nothing.
    pub interval: [f64; 2],
    /// Whether the loss is outside the measured range for a seed, so that one end of the interval is open.
    pub is_bound: bool,
    /// The factor of each seed.
    pub by_seed: Vec<f64>,
}

/// Everything that is derived from the results.
#[derive(Clone, Debug, Serialize)]
pub struct Analysis {
    /// Ends of arms with results.
    pub rows: Vec<Row>,
    /// Paired differences of the claims.
    pub contrasts: BTreeMap<String, Contrast>,
    /// Paired differences of every arm to the grown one, at each size.
    pub forest: Vec<(String, Contrast)>,
    /// Speed-ups by name.
    pub speed_ups: BTreeMap<String, SpeedUp>,
    /// The map of where growth pays, as far as it was run.
    pub map: Vec<Cell>,
    /// Arms from scratch that the plan leaves out: with them scratch can only be better.
    pub left_out: Vec<&'static str>,
    /// What the arms that learn a second text lose of the first.
    pub shift: Vec<Shifted>,
    /// Standard error of the difference of two arms that began with the base of the grown one, and its degrees of freedom.
    pub pooled: Option<(f64, f64)>,
    /// Floating-point operations of the whole search for learning rates.
    pub tuning_flops: f64,
    /// Smallest and largest ratio of counted operations to the formula's.
    pub audit: Option<(f64, f64)>,
}

/// Costs within this factor are equal.
const EQUAL_COST: f64 = 1.05;

/// Models of one size have numbers of parameters within this factor.
const SAME_SIZE: f64 = 1.3;

/// The plain Transformer from scratch of the size `params`, the nearest one among arms with their numbers of parameters; `None` if
/// none is of this size.
pub(crate) fn nearest_in_size<'a>(
    arms: impl Iterator<Item = (&'a str, u64)>,
    params: u64,
) -> Option<&'a str> {
    let distance = |own: u64| (own as f64 / params as f64).ln().abs();
    let nearest = arms
        .filter(|(arm, own)| is_scratch(arm) && distance(*own) <= SAME_SIZE.ln())
        .min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
    Some(nearest?.0)
}

/// Whether an arm grows a TokenFormer, or a plain Transformer; `None` for arms that do not grow.
pub(crate) fn grows(arm: &str) -> Option<Family> {
    let arm = ARMS.iter().find(|known| known.name == arm)?;
    match arm.kind {
        Kind::Grown(ladder) => Some(ladder.family),
        Kind::Late(_) => Some(Family::Gpt),
        Kind::Base | Kind::Stay | Kind::Scratch(_) | Kind::Final | Kind::Shift(..) | Kind::Map => {
            None
        }
    }
}

impl SpeedUp {
    /// The interval as text.
    pub fn reach(&self) -> String {
        match self.interval {
            [0.0, high] if high.is_infinite() => "not known".into(),
            [low, high] if high.is_infinite() => format!("at least {low:.2}"),
            [0.0, high] => format!("at most {high:.2}"),
            [low, high] => format!("{low:.2} to {high:.2}"),
        }
    }
}

impl Analysis {
    /// Analyses the results of a plan.
    pub fn new(plan: &Plan, results: &Results) -> Self {
        let ends = Ends { plan, results };
        let rows = ends.rows();
        let mut analysis = Self {
            contrasts: BTreeMap::new(),
            forest: Vec::new(),
            speed_ups: BTreeMap::new(),
            left_out: ends.left_out(),
            map: map::cells(&ends),
            shift: shift::shifted(&ends),
            pooled: None,
            tuning_flops: tuning_flops(plan, results),
            audit: audit(plan, results),
            rows,
        };
        let sizes = ends.sizes(GROWN);
        if let Some(size) = sizes.last() {
            analysis.compare(&ends, size);
            analysis.compare_all(&ends, &sizes);
            analysis.measure_speed_ups(&ends, &sizes);
        }
        analysis
    }

    /// A row.
    pub fn row(&self, arm: &str, size: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.arm == arm && row.size == size)
    }

    /// By how much an end of an arm costs more than the grown model of its size, as a share; `None` if it does not.
    pub fn costs_more(&self, arm: &str, size: &str) -> Option<f64> {
        let [own, grown] = [arm, GROWN].map(|arm| Some(self.row(arm, size)?.flops));
        let ratio = own? / grown?;
        (ratio > EQUAL_COST).then_some(ratio - 1.0)
    }

    /// Losses, by seed, of all arms at the size and of the models that they are compared with.
    fn table(&self, ends: &Ends<'_>, size: &str) -> Losses {
        let seeds = ends.seeds();
        let by_seed = |loss: &dyn Fn(u64) -> Option<f64>| -> Vec<Option<f64>> {
            seeds.iter().map(|&seed| loss(seed)).collect()
        };
        let mut rows: Vec<(String, Vec<Option<f64>>)> = Vec::new();
        // Arms of the second text are no rivals on the first.
        let of_first = |arm: &&Arm| !matches!(arm.kind, Kind::Shift(..));
        for arm in ARMS.iter().filter(of_first) {
            let sizes = ends.sizes(arm.name);
            let own = match (sizes.iter().any(|own| own == size), arm.kind) {
                (true, _) => size,
                // It has a size of its own, at the cost of the whole ladder.
                (false, Kind::Late(_)) if ends.last_size(GROWN) == Some(size) => {
                    let Some(own) = sizes.last() else { continue };
                    own.as_str()
                }
                _ => continue,
            };
            let losses = by_seed(&|seed| ends.outcome(arm.name, own, seed));
            rows.push((arm.name.into(), losses));
        }
        let Some(grown) = self.row(GROWN, size) else {
            return Losses::new(rows);
        };
        let sizes = self.rows.iter().map(|row| (&*row.arm, row.params));
        if let Some(same) = nearest_in_size(sizes, grown.params) {
            let curve = |seed| Curve::new(&ends.points(same, seed));
            rows.push((
                "scratch, same size and cost".into(),
                by_seed(&|seed| curve(seed)?.at(grown.flops)),
            ));
            let tokens = |seed| {
                let stage = ends.growth_tokens(GROWN, size, seed)?;
                let plain = self.rows.iter().find(|row| row.arm == same)?;
                let per_token = plain.flops / plain.tokens as f64;
                curve(seed)?.at(per_token * (grown.tokens - stage) as f64)
            };
            rows.push((
                "scratch, same size and the stage's tokens".into(),
                by_seed(&tokens),
            ));
        }
        let frontier = |seed| ends.frontier(seed, grown.flops);
        rows.push(("best scratch of the same cost".into(), by_seed(&frontier)));
        Losses::new(rows)
    }

    /// The contrasts of the claims.
    fn compare(&mut self, ends: &Ends<'_>, size: &str) {
        let table = self.table(ends, size);
        let origin = ends.origin(GROWN);
        self.pooled = table.error(|arm| ends.origin(arm) == origin);
        // Where all rivals have an end, as far as they are planned.
        let own = ends.sizes(GROWN);
        let of_rivals = own.iter().rev().find(|size| ends.rivals_reach(size));
        let among = match of_rivals {
            Some(of_rivals) if of_rivals != size => Some((of_rivals, self.table(ends, of_rivals))),
            _ => None,
        };
        let at_rivals = among.as_ref().map_or(&table, |(_, table)| table);
        // Over the seeds that an arm has in common with the grown one: others may be luckier.
        let best = |family: Family| {
            let arms = at_rivals.arms().filter(|arm| grows(arm) == Some(family));
            let found = arms.filter_map(|arm| Some((arm, at_rivals.difference(arm, GROWN)?)));
            let best = found.min_by(|a, b| a.1.total_cmp(&b.1))?;
            Some(best.0.to_string())
        };
        let wanted = [
            (
                "C2",
                GROWN.to_string(),
                "scratch, same size and the stage's tokens".to_string(),
            ),
            ("C3", GROWN.into(), "scratch, same size and cost".into()),
            ("C4", GROWN.into(), "best scratch of the same cost".into()),
        ];
        let best = best(Family::Tokenformer).zip(best(Family::Gpt));
        let found = wanted.into_iter().filter_map(|(claim, arm, reference)| {
            let name = format!("{claim}: {arm} against {reference}");
            ends.contrast(&table, name, &arm, &reference)
        });
        let mut found: Vec<Contrast> = found.collect();
        if let Some((t, g)) = &best {
            let at = among.as_ref().map_or(size, |(size, _)| size);
            let mut name = format!("C6: {t} against {g}");
            if among.is_some() {
                name += &format!(", {at}");
            }
            if let Some(more) = self.costs_more(g, at) {
                name += &format!(", which costs {:.0} % more", 100.0 * more);
            }
            found.extend(ends.contrast(at_rivals, name, t, g));
        }
        // Other recipes may end at an earlier size: they are compared at the last one of both.
        for rival in RECIPES {
            let sizes = ends.sizes(rival);
            let Some(size) = own.iter().rev().find(|size| sizes.contains(size)) else {
                continue;
            };
            let name = format!("C7: {GROWN} against {rival}, {size}");
            found.extend(ends.contrast(&self.table(ends, size), name, GROWN, rival));
        }
        holm(&mut found);
        let named = found
            .into_iter()
            .map(|contrast| (contrast.name.clone(), contrast));
        self.contrasts = named.collect();
    }

    /// Every arm against the grown one, at every size.
    fn compare_all(&mut self, ends: &Ends<'_>, sizes: &[String]) {
        for size in sizes {
            let table = self.table(ends, size);
            for arm in table.arms().filter(|arm| *arm != GROWN) {
                if let Some(contrast) = ends.contrast(&table, arm.into(), arm, GROWN) {
                    self.forest.push((size.clone(), contrast));
                }
            }
        }
    }

    fn measure_speed_ups(&mut self, ends: &Ends<'_>, sizes: &[String]) {
        let Some(size) = sizes.last() else { return };
        let grown: Vec<String> = (self.rows.iter())
            .filter(|row| row.size == *size && grows(&row.arm).is_some())
            .map(|row| row.arm.clone())
            .collect();
        for arm in grown {
            for (name, easier) in [("same loss", 0.0), ("within 2 %", TOLERANCE)] {
                let name = format!("{arm} {size}, {name}");
                let models = [(&*arm, &**size)];
                let cost = |seed| ends.series_flops(&models, seed);
                self.measure_speed_up(ends, name, &models, easier, &cost);
            }
        }
        // What it is worth to whoever has the base already.
        for (arm, size) in [GROWN, STAY]
            .iter()
            .flat_map(|arm| sizes.iter().map(move |size| (*arm, size)))
        {
            let name = format!("{arm} {size}, same loss, base not charged");
            let cost = |seed| ends.flops_after_base(arm, size, seed);
            self.measure_speed_up(ends, name, &[(arm, size)], 0.0, &cost);
        }
        let family: Vec<(&str, &str)> = std::iter::once(("base", "x1"))
            .chain(sizes.iter().map(|size| (GROWN, size.as_str())))
            .collect();
        let cost = |seed| ends.series_flops(&family, seed);
        self.measure_speed_up(ends, "series".into(), &family, 0.0, &cost);
    }

    /// Measures the cost from scratch of the losses of all `models`, divided by `own_cost` of a seed. With `easier`, the loss of
    /// the scratch model may be lower by that much and the grown model still counts as comparable.
    fn measure_speed_up(
        &mut self,
        ends: &Ends<'_>,
        name: String,
        models: &[(&str, &str)],
        easier: f64,
        own_cost: &dyn Fn(u64) -> Option<f64>,
    ) {
        let (mut by_seed, mut is_measured) = (Vec::new(), false);
        let (mut at_least, mut at_most) = (false, false);
        for seed in ends.seeds() {
            let curves = ends.scratch(seed);
            let found = models.iter().map(|(arm, size)| {
                let loss = ends.loss(arm, size, seed)? - easier;
                cost_from_scratch(&curves, loss)
            });
            // Seeds with missing runs are left out.
            let found: Option<Vec<FromScratch>> = found.collect();
            let (Some(found), Some(own)) = (found, own_cost(seed)) else {
                continue;
            };
            for one in &found {
                match one.place {
                    Place::Inside => is_measured = true,
                    Place::AtLeast => at_least = true,
                    Place::AtMost => at_most = true,
                }
            }
            by_seed.push(found.iter().map(|one| one.cost).sum::<f64>() / own);
        }
        if by_seed.is_empty() {
            return;
        }
        let logs: Vec<f64> = by_seed.iter().map(|s| s.ln()).collect();
        let middle = mean(&logs);
        let reach = match error_of_mean(&logs) {
            // Every seed is outside the range, so only the bound is known.
            _ if !is_measured => 0.0,
            Some((error, freedom)) => quantile(0.975, freedom) * error,
            None => f64::INFINITY,
        };
        let interval = [
            if at_most { 0.0 } else { (middle - reach).exp() },
            if at_least {
                f64::INFINITY
            } else {
                (middle + reach).exp()
            },
        ];
        let found = SpeedUp {
            name: name.clone(),
            factor: middle.exp(),
            interval,
            is_bound: at_least || at_most,
            by_seed,
        };
        self.speed_ups.insert(name, found);
    }
}

/// What a loss costs from scratch, at the cheapest size.
pub(crate) struct FromScratch {
    pub cost: f64,
    pub place: Place,
}

/// Where a loss is among the measured ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// Among them.
    Inside,
    /// Below all: the cost is at least the largest.
    AtLeast,
    /// Above all: the cost is at most the smallest.
    AtMost,
}

/// The cost of a loss by the curves of all sizes; `None` without curves.
pub(crate) fn cost_from_scratch(
    curves: &[(&'static str, Curve)],
    loss: f64,
) -> Option<FromScratch> {
    let costs = curves.iter().map(|(_, curve)| curve.cost_of(loss));
    let reached = costs.clone().filter_map(Result::ok);
    let above = costs.clone().filter_map(|cost| match cost {
        Err(Beyond::Above(cost)) => Some(cost),
        _ => None,
    });
    let below = costs.filter_map(|cost| match cost {
        Err(Beyond::Below(cost)) => Some(cost),
        _ => None,
    });
    // A size whose first end is better already reaches the loss for that cost or less. If no size reaches it, it costs at least
    // as much as the longest run.
    let (cost, place) = match (reached.reduce(f64::min), below.reduce(f64::min)) {
        (Some(cost), at_most) if at_most.is_none_or(|most| cost < most) => (cost, Place::Inside),
        (_, Some(cost)) => (cost, Place::AtMost),
        (_, None) => (above.reduce(f64::max)?, Place::AtLeast),
    };
    Some(FromScratch { cost, place })
}

/// Operations of the runs that were made to find learning rates and are no part of an arm.
fn tuning_flops(plan: &Plan, results: &Results) -> f64 {
    let graph = &plan.graph;
    let on_paths = |counts: bool| -> BTreeSet<usize> {
        let ends = plan.endpoints.iter().filter(|end| end.counts == counts);
        ends.flat_map(|end| graph.path(end.node)).collect()
    };
    let mut tried = on_paths(false);
    tried.extend(plan.tuning.iter().copied());
    let used = on_paths(true);
    let paid = tried.difference(&used);
    let done = paid.filter(|&&at| results.of(graph.node(at)).is_some());
    done.map(|&at| graph.node(at).flops_per_step * graph.node(at).steps() as f64)
        .sum()
}

fn audit(plan: &Plan, results: &Results) -> Option<(f64, f64)> {
    let nodes = plan.graph.nodes().iter();
    let found = nodes.filter_map(|node| Some((node, results.of(node)?)));
    let ratios = found
        .filter(|(_, result)| result.diverged.is_none())
        .map(|(node, result)| result.counted_flops / node.flops);
    ratios.fold(None, |range, ratio| {
        let (low, high) = range.unwrap_or((ratio, ratio));
        Some((f64::min(low, ratio), f64::max(high, ratio)))
    })
}

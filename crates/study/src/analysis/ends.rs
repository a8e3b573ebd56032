//! The results of a plan by arm, size and seed.

use super::STAY;
use crate::arms::{ARMS, Arm, Group, Kind, is_scratch};
use crate::plan::{Endpoint, Plan, ended};
use crate::result::{NodeResult, Results};
use crate::stats::{Contrast, Curve, Losses};
use serde::Serialize;

/// The results of an end of an arm over its seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the arm.
    pub arm: String,
    /// Size of the end.
    pub size: String,
    /// Number of parameters.
    pub params: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Tokens seen divided by the tokens of the training text.
    pub epochs: f64,
    /// Floating-point operations, since the first update of the base.
    pub flops: f64,
    /// Seconds of training since then, mean of the seeds.
    pub seconds: f64,
    /// Learning rate of the last stage.
    pub lr: f64,
    /// Seeds with a result, in order.
    pub seeds: Vec<u64>,
    /// Their losses in nats per token.
    pub losses: Vec<f64>,
    /// Their losses in bits per byte.
    pub bits_per_byte: Vec<f64>,
    /// Seeds whose run diverged.
    pub diverged: Vec<u64>,
    /// Spikes of the growth of this stage, by seed.
    pub spikes: Vec<f64>,
    /// What the base that is trained further without a growth has at the same updates, for each of these, where it was run.
    pub controls: Vec<Option<f64>>,
    /// Largest and relative logit difference of the growth, of the worst seed.
    pub moved: Option<(f64, f64)>,
}

/// The results of a plan, by end and seed.
pub(crate) struct Ends<'a> {
    pub plan: &'a Plan,
    pub results: &'a Results,
}

impl<'a> Ends<'a> {
    /// Ends that count, with their results; of a run that diverged before its end was begun, the result of that.
    fn counting(&self) -> impl Iterator<Item = (&'a Endpoint, &'a NodeResult)> {
        let ends = self
            .plan
            .endpoints
            .iter()
            .filter(|end| end.counts && end.settled);
        let (graph, results) = (&self.plan.graph, self.results);
        ends.filter_map(move |end| Some((end, ended(graph, results, end.node)?)))
    }

    /// The result of an end.
    pub fn of(&self, arm: &str, size: &str, seed: u64) -> Option<&'a NodeResult> {
        let mut ends = self.counting();
        ends.find(|(end, _)| (end.arm, &*end.size, end.seed) == (arm, size, seed))
            .map(|(_, result)| result)
    }

    pub fn loss(&self, arm: &str, size: &str, seed: u64) -> Option<f64> {
        Some(self.of(arm, size, seed)?.held_out.as_ref()?.loss)
    }

    /// The loss of an end; infinite for one that diverged.
    pub fn outcome(&self, arm: &str, size: &str, seed: u64) -> Option<f64> {
        let diverged = self.of(arm, size, seed)?.diverged.is_some();
        match diverged {
            true => Some(f64::INFINITY),
            false => self.loss(arm, size, seed),
        }
    }

    /// Seeds with any result, in order.
    pub fn seeds(&self) -> Vec<u64> {
        let mut seeds: Vec<u64> = self.counting().map(|(end, _)| end.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds
    }

    /// The first run of an arm, without its seed: arms of one base share it. `None` for what is no planned arm.
    pub fn origin(&self, arm: &str) -> Option<&'a str> {
        let end = self.plan.endpoints.iter().find(|end| end.arm == arm)?;
        let graph = &self.plan.graph;
        let first = graph.node(graph.path(end.node).last()?);
        first.label.split_once('/').map(|(_, run)| run)
    }

    /// The paired difference of two rows of `losses`. Effects of a shared base cancel in it, so all arms of that base are
    /// pooled to estimate its error. Arms of different bases also vary with their bases, so only their own differences count.
    pub fn contrast(
        &self,
        losses: &Losses,
        name: String,
        arm: &str,
        reference: &str,
    ) -> Option<Contrast> {
        let origin = self.origin(arm);
        let is_kin = |row: &str| origin.is_some() && self.origin(row) == origin;
        let is_pair = |row: &str| row == arm || row == reference;
        match is_kin(reference) {
            true => losses.contrast(name, arm, reference, is_kin),
            false => losses.contrast(name, arm, reference, is_pair),
        }
    }

    /// The sizes of an arm with a result, in the order of the plan.
    pub fn sizes(&self, arm: &str) -> Vec<String> {
        let mut sizes: Vec<String> = Vec::new();
        for (end, _) in self.counting().filter(|(end, _)| end.arm == arm) {
            if !sizes.contains(&end.size) {
                sizes.push(end.size.clone());
            }
        }
        sizes
    }

    /// Whether every planned rival that grows on the ladder has an end of this size in the plan.
    pub fn rivals_reach(&self, size: &str) -> bool {
        let on_ladder =
            |arm: &&Arm| arm.group == Group::Rival && matches!(arm.kind, Kind::Grown(_));
        ARMS.iter().filter(on_ladder).all(|arm| {
            let mut sizes = (self.plan.endpoints.iter())
                .filter(|end| end.arm == arm.name)
                .map(|end| end.size == size)
                .peekable();
            sizes.peek().is_none() || sizes.any(|is_it| is_it)
        })
    }

    /// Number of the planned ends of an arm, or of all arms from scratch, that have no result for a seed and may get one.
    pub fn missing_from_scratch(&self, arm: Option<&str>, seed: u64) -> usize {
        let asked = |name: &str| match arm {
            Some(arm) => name == arm,
            None => is_scratch(name),
        };
        let ends = self
            .plan
            .endpoints
            .iter()
            .filter(|end| end.counts && end.seed == seed);
        let ends = ends.filter(|end| asked(end.arm));
        ends.filter(|end| ended(&self.plan.graph, self.results, end.node).is_none())
            .count()
    }

    /// The arms from scratch that have no end in the plan.
    pub fn left_out(&self) -> Vec<&'static str> {
        let is_planned = |name: &str| self.plan.endpoints.iter().any(|end| end.arm == name);
        let arms = ARMS.iter().map(|arm| arm.name);
        arms.filter(|name| is_scratch(name) && !is_planned(name))
            .collect()
    }

    /// Cost and loss of the ends of an arm from scratch; none before all that are planned have ended, since a part of them would
    /// be a weaker rival.
    pub fn points(&self, arm: &str, seed: u64) -> Vec<(f64, f64)> {
        if self.missing_from_scratch(Some(arm), seed) > 0 {
            return Vec::new();
        }
        let of = self
            .counting()
            .filter(|(end, _)| (end.arm, end.seed) == (arm, seed));
        let flops = |end: &Endpoint| self.plan.graph.node(end.node).flops;
        of.filter_map(|(end, result)| Some((flops(end), result.held_out.as_ref()?.loss)))
            .collect()
    }

    /// Curves of the plain Transformers from scratch, small to large; none before all of them have ended.
    pub fn scratch(&self, seed: u64) -> Vec<(&'static str, Curve)> {
        if self.missing_from_scratch(None, seed) > 0 {
            return Vec::new();
        }
        let arms = ARMS.iter().filter(|arm| is_scratch(arm.name));
        arms.filter_map(|arm| Some((arm.name, Curve::new(&self.points(arm.name, seed))?)))
            .collect()
    }

    /// Lowest loss that any plain Transformer from scratch has at this cost.
    pub fn frontier(&self, seed: u64, flops: f64) -> Option<f64> {
        let curves = self.scratch(seed);
        let losses = curves.iter().filter_map(|(_, curve)| curve.at(flops));
        losses.reduce(f64::min)
    }

    /// Total training time of an end in seconds.
    pub fn seconds(&self, node: usize) -> f64 {
        let path = self.plan.graph.path(node);
        path.filter_map(|at| self.results.of(self.plan.graph.node(at)))
            .map(|result| result.seconds)
            .sum()
    }

    /// The run with the growth of an end's stage.
    pub fn growth(&self, node: usize) -> Option<&'a NodeResult> {
        let graph = &self.plan.graph;
        let at = graph.path(node).find(|&at| graph.node(at).grows)?;
        self.results.of(graph.node(at))
    }

    /// The spike, after `step`, of the base that is trained further without a growth.
    pub fn control(&self, seed: u64, step: u64) -> Option<f64> {
        let name = format!("s{seed}/{STAY}/");
        let mut nodes = self.plan.graph.nodes().iter();
        let node = nodes.find(|n| n.from_step == step && n.label.starts_with(&name))?;
        self.results.of(node)?.spike
    }

    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let common = self.plan.graph.common();
        for (end, result) in self.counting() {
            let node = self.plan.graph.node(end.node);
            let tokens = node.to_step * (common.batch * common.context) as u64;
            let known = rows
                .iter()
                .position(|r| r.arm == end.arm && r.size == end.size);
            let at = known.unwrap_or_else(|| {
                rows.push(Row {
                    arm: end.arm.into(),
                    size: end.size.clone(),
                    params: node.config.params(),
                    tokens,
                    epochs: result.epochs * tokens as f64 / result.tokens as f64,
                    flops: node.flops,
                    seconds: 0.0,
                    lr: node.peak_rate(),
                    seeds: Vec::new(),
                    losses: Vec::new(),
                    bits_per_byte: Vec::new(),
                    diverged: Vec::new(),
                    spikes: Vec::new(),
                    controls: Vec::new(),
                    moved: None,
                });
                rows.len() - 1
            });
            let row = &mut rows[at];
            let Some(held_out) = &result.held_out else {
                row.diverged.push(end.seed);
                continue;
            };
            row.seeds.push(end.seed);
            row.losses.push(held_out.loss);
            row.bits_per_byte.push(held_out.bits_per_byte);
            row.seconds += self.seconds(end.node);
            if let Some(grown) = self.growth(end.node) {
                if let Some(spike) = grown.spike {
                    row.spikes.push(spike);
                    row.controls.push(self.control(end.seed, grown.from_step));
                }
                if let Some(facts) = &grown.growth {
                    let (max, relative) = row.moved.unwrap_or_default();
                    let now = (facts.max_logit_diff, facts.relative_logit_diff);
                    row.moved = Some((max.max(now.0), relative.max(now.1)));
                }
            }
        }
        for row in &mut rows {
            row.seconds /= row.seeds.len().max(1) as f64;
        }
        rows
    }

    /// The last planned size of an arm.
    pub fn last_size(&self, arm: &str) -> Option<&'a str> {
        let mut ends = self.plan.endpoints.iter().rev();
        Some(ends.find(|end| end.arm == arm)?.size.as_str())
    }

    /// Tokens seen when the last growth of an end happened.
    pub fn growth_tokens(&self, arm: &str, size: &str, seed: u64) -> Option<u64> {
        let ends = self.plan.endpoints.iter();
        let mut ends = ends.filter(|end| end.counts && end.seed == seed);
        let end = ends.find(|end| end.arm == arm && end.size == size)?;
        let graph = &self.plan.graph;
        let at = graph.path(end.node).find(|&at| graph.node(at).grows)?;
        let common = graph.common();
        Some(graph.node(at).from_step * (common.batch * common.context) as u64)
    }

    /// Operations of a run, from its beginning to its end.
    fn own_flops(&self, node: usize) -> f64 {
        let node = self.plan.graph.node(node);
        node.flops_per_step * node.steps() as f64
    }

    /// Operations on the way to a node since it left the first run of that way, the base.
    pub fn flops_after(&self, node: usize) -> f64 {
        let graph = &self.plan.graph;
        let run = |at: usize| graph.node(at).label.split('/').nth(1);
        let base = graph.path(node).last().and_then(run);
        let own = graph.path(node).filter(|&at| run(at) != base);
        own.map(|at| self.own_flops(at)).sum()
    }

    /// The cost of an end of an arm to whoever has the base already; `None` for one that is a base itself.
    pub fn flops_after_base(&self, arm: &str, size: &str, seed: u64) -> Option<f64> {
        let ends = self.plan.endpoints.iter();
        let mut ends = ends.filter(|end| end.counts && end.seed == seed);
        let end = ends.find(|end| end.arm == arm && end.size == size)?;
        Some(self.flops_after(end.node)).filter(|flops| *flops > 0.0)
    }

    /// The cost of a series of models; parts of the training that they share count once.
    pub fn series_flops(&self, models: &[(&str, &str)], seed: u64) -> Option<f64> {
        let graph = &self.plan.graph;
        let mut paid = std::collections::BTreeSet::new();
        for (arm, size) in models {
            let ends = self.plan.endpoints.iter();
            let mut ends = ends.filter(|end| end.counts && end.seed == seed);
            let end = ends.find(|end| end.arm == *arm && end.size == *size)?;
            paid.extend(graph.path(end.node));
        }
        Some(paid.iter().map(|&at| self.own_flops(at)).sum())
    }
}

//! Plans the runs of the study from a profile and the results so far.
//!
//! The plan is rebuilt after every run: the learning rate of all arms is known only after the search at the bases, and
//! the rate of an arm's stage only after its first seed has tried three. Everything that decides which runs there are is in this
//! one file, because each decision depends on the ones before it.

mod ladders;
mod map;
mod scratch;
mod shift;

pub use map::Place;

use crate::arms::{Arm, Group, Kind, Rung};
use crate::graph::{Common, Graph, Node, OnText, Rate, Root, Stretch};
use crate::profile::Profile;
use crate::result::{NodeResult, Results};
use crate::shapes::Shapes;
use crate::tuning::{Curve, for_length};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokenformer_core::config::{BaseSizes, Family, NormSpan, Slots};
use tokenformer_train::Result;
use tokenformer_train::recipe::ModelTable;

/// The settings of the study.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sizes and budgets.
    pub profile: Profile,
    /// Hash of the corpus.
    pub corpus: String,
    /// Hash of the second corpus, if there is one.
    pub second: Option<String>,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Seeds, from 1 on.
    pub seeds: u64,
    /// The arms.
    pub arms: Vec<Arm>,
}

/// A decayed end of an arm.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Name of the arm.
    pub arm: &'static str,
    /// Size of the end: a factor of the ladder, or the updates of a model from scratch.
    pub size: String,
    /// Seed.
    pub seed: u64,
    /// Factor of the learning rate of its largest stage.
    pub scale: f64,
    /// Whether this factor is used for the arm's result.
    pub counts: bool,
    /// Whether the factor is known; until then it must not be run.
    pub settled: bool,
    /// Number of the node.
    pub node: usize,
}

/// The search for a learning rate, for the report.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What was tried.
    pub label: String,
    /// Rates or factors, and bits per byte.
    pub curve: Curve,
}

/// The runs of the study that are known so far.
#[derive(Debug)]
pub struct Plan {
    /// All runs.
    pub graph: Graph,
    /// Ends of arms, in the order in which they are run.
    pub endpoints: Vec<Endpoint>,
    /// Nodes of the search for the learning rate.
    pub tuning: Vec<usize>,
    /// The search's curves, and those of the checks.
    pub curves: Vec<Tried>,
    /// The ends of the map, which are among the endpoints.
    pub map: Vec<Place>,
    /// Whether the learning rate is known.
    pub tuned: bool,
}

/// The result of a node, or that of a run before it that diverged: after such a one the node is not run.
pub(crate) fn ended<'a>(
    graph: &Graph,
    results: &'a Results,
    node: usize,
) -> Option<&'a NodeResult> {
    graph.path(node).find_map(|at| {
        let result = results.of(graph.node(at))?;
        (at == node || result.diverged.is_some()).then_some(result)
    })
}

/// Bits per byte of an end; infinite for a run that diverged.
pub fn bits(result: &NodeResult) -> Option<f64> {
    match (&result.held_out, &result.diverged) {
        (_, Some(_)) => Some(f64::INFINITY),
        (Some(held_out), None) => Some(held_out.bits_per_byte),
        (None, None) => None,
    }
}

impl Plan {
    /// The plan for `settings` with these results.
    ///
    /// # Errors
    /// If a model or growth is impossible.
    pub fn new(settings: &Settings, results: &Results, shapes: &mut Shapes) -> Result<Self> {
        let profile = &settings.profile;
        let common = Common {
            corpus: settings.corpus.clone(),
            batch: profile.batch,
            context: profile.context,
            warmup_steps: profile.warmup_steps,
            eval: profile.eval,
        };
        let mut planner = Planner {
            settings,
            results,
            shapes,
            rates: [0.0; 2],
            plan: Self {
                graph: Graph::new(common, settings.second.clone()),
                endpoints: Vec::new(),
                tuning: Vec::new(),
                curves: Vec::new(),
                map: Vec::new(),
                tuned: true,
            },
        };
        planner.tune()?;
        let mut groups: Vec<Group> = settings.arms.iter().map(|arm| arm.group).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            for seed in 1..=settings.seeds {
                for arm in settings.arms.iter().filter(|arm| arm.group == group) {
                    planner.arm(arm, seed)?;
                }
            }
        }
        Ok(planner.plan)
    }

    /// Nodes without which the study is not done, in the order in which they are run.
    pub fn targets(&self) -> Vec<usize> {
        let endpoints = self.endpoints.iter().map(|end| end.node);
        let mut targets: Vec<usize> = self.tuning.iter().copied().chain(endpoints).collect();
        let mut seen = BTreeSet::new();
        targets.retain(|&node| seen.insert(node));
        targets
    }

    /// Nodes that must be run for the targets without a result, parents before children. A finished node is run again
    /// only if a child needs its checkpoint and `has_checkpoint` says that it is missing.
    pub fn missing(
        &self,
        results: &Results,
        has_checkpoint: &mut dyn FnMut(&Node) -> bool,
    ) -> Vec<usize> {
        self.missing_for(&self.targets(), results, has_checkpoint)
    }

    fn missing_for(
        &self,
        targets: &[usize],
        results: &Results,
        has_checkpoint: &mut dyn FnMut(&Node) -> bool,
    ) -> Vec<usize> {
        let mut missing = Vec::new();
        for &target in targets {
            if ended(&self.graph, results, target).is_some() {
                continue;
            }
            let mut path = Vec::new();
            for at in self.graph.path(target) {
                let node = self.graph.node(at);
                if missing.contains(&at) || at != target && has_checkpoint(node) {
                    break;
                }
                path.push(at);
            }
            missing.extend(path.into_iter().rev());
        }
        missing
    }

    /// The nodes that can be run now, in order: those that lead to ends whose learning rate is known and that begin with
    /// nothing that is missing itself.
    pub fn ready(
        &self,
        results: &Results,
        has_checkpoint: &mut dyn FnMut(&Node) -> bool,
    ) -> Vec<usize> {
        let settled = self.endpoints.iter().filter(|end| end.settled);
        let settled: BTreeSet<usize> = settled.map(|end| end.node).collect();
        let mut targets = self.targets();
        targets.retain(|node| match self.tuned {
            true => settled.contains(node) || self.tuning.contains(node),
            false => self.tuning.contains(node),
        });
        let missing = self.missing_for(&targets, results, has_checkpoint);
        let begins = |node: &usize| {
            let parent = self.graph.node(*node).parent;
            parent.is_none_or(|parent| !missing.contains(&parent))
        };
        missing.iter().copied().filter(begins).collect()
    }
}

/// Index of a family in pairs.
fn index(family: Family) -> usize {
    match family {
        Family::Tokenformer => 0,
        Family::Gpt => 1,
    }
}

struct Planner<'a> {
    settings: &'a Settings,
    results: &'a Results,
    shapes: &'a mut Shapes,
    /// Learning rates of the bases, by family; provisional until they are found.
    rates: [f64; 2],
    plan: Plan,
}

impl Planner<'_> {
    /// The fresh model of a family and width.
    fn model(&self, family: Family, width: usize) -> Result<ModelTable> {
        let profile = &self.settings.profile;
        let slots = match family {
            Family::Tokenformer => {
                let [attention, ffn] = Rung::base_slots(width);
                Slots {
                    qkv: attention,
                    proj: attention,
                    ffn,
                }
            }
            Family::Gpt => Slots::default(),
        };
        Ok(ModelTable {
            family,
            vocab: self.settings.vocab,
            width,
            layers: profile.layers,
            heads: width / Profile::HEAD,
            context: profile.context,
            slots,
            norm: NormSpan::Segment,
            ..ModelTable::from_preset("nano")?
        })
    }

    fn base(&self, family: Family) -> Result<Arc<Root>> {
        Ok(Arc::new(Root {
            model: self.model(family, self.settings.profile.width)?,
            base: BaseSizes::default(),
        }))
    }

    /// The search for the bases' learning rates.
    fn tune(&mut self) -> Result<()> {
        let profile = &self.settings.profile;
        let steps = profile.tuning.steps;
        for (family, name) in [(Family::Tokenformer, "t"), (Family::Gpt, "g")] {
            let root = self.base(family)?;
            let rates = profile.tuning.rates.clone();
            let mut nodes = BTreeMap::new();
            // Every rate of the final grid is requested, including added ones.
            loop {
                let (results, graph) = (self.results, &self.plan.graph);
                let loss = |lr: f64| {
                    let node: usize = *nodes.get(&lr.to_bits())?;
                    bits(results.of(graph.node(node))?)
                };
                let curve = Curve::of(&rates, profile.tuning.widenings, loss);
                let unknown = curve.tries.iter().map(|(lr, _)| *lr);
                let unknown: Vec<f64> = unknown
                    .filter(|lr| !nodes.contains_key(&lr.to_bits()))
                    .collect();
                if unknown.is_empty() {
                    self.plan.tuned &= curve.best.is_some();
                    let best = curve.best.unwrap_or(rates[rates.len() / 2]);
                    self.rates[index(family)] = for_length(best, steps, profile.base_steps);
                    let label = format!("{} of width {}", long_name(family), profile.width);
                    self.plan.curves.push(Tried { label, curve });
                    break;
                }
                for lr in unknown {
                    let stretch = Stretch {
                        label: format!("tune/{name}/{lr:.2e}"),
                        to_step: steps,
                        rate: Rate::Whole(lr, profile.decay_of(steps)),
                        growth: None,
                        text: OnText::First,
                    };
                    let node = self.plan.graph.root(self.shapes, &root, 1, stretch)?;
                    nodes.insert(lr.to_bits(), node);
                    self.plan.tuning.push(node);
                }
            }
        }
        Ok(())
    }

    fn arm(&mut self, arm: &Arm, seed: u64) -> Result<()> {
        match arm.kind {
            Kind::Base => {
                let steps = self.settings.profile.base_steps;
                let (_, end) = self.decayed_base(Family::Tokenformer, seed, steps)?;
                self.end(arm, "x1".into(), seed, end);
            }
            Kind::Stay => self.stay(arm, seed)?,
            Kind::Grown(ladder) => self.grown(arm, ladder, seed)?,
            Kind::Scratch(size) => self.scratch(arm, size, seed)?,
            Kind::Final => self.last_size(arm, seed)?,
            Kind::Late(growth) => self.late(arm, growth, seed)?,
            Kind::Shift(family, growth) => self.shift(arm, family, growth, seed)?,
            Kind::Map => self.map(arm, seed)?,
        }
        Ok(())
    }

    /// Adds an end that has no checks.
    fn end(&mut self, arm: &Arm, size: String, seed: u64, node: usize) {
        self.plan.endpoints.push(Endpoint {
            arm: arm.name,
            size,
            seed,
            scale: 1.0,
            counts: true,
            settled: true,
            node,
        });
    }

    /// Continues the training from `parent`, or starts from scratch, with a cut after each of `cuts` (in any order);
    /// returns the nodes by their last updates.
    fn trunk(
        &mut self,
        from: Begin,
        name: &str,
        rate: f64,
        cuts: &[u64],
    ) -> Result<BTreeMap<u64, usize>> {
        let mut cuts = cuts.to_vec();
        cuts.sort_unstable();
        cuts.dedup();
        let mut nodes = BTreeMap::new();
        let (mut last, root) = match from {
            Begin::Node(parent) => (Some(parent), None),
            Begin::Scratch(root, seed) => (None, Some((root, seed))),
        };
        let begin = last.map_or(0, |parent| self.plan.graph.node(parent).to_step);
        for to_step in cuts.into_iter().filter(|&cut| cut > begin) {
            let stretch = Stretch {
                label: format!("{name}/{to_step}"),
                to_step,
                rate: Rate::Flat(rate),
                growth: None,
                text: last.map_or(OnText::First, |parent| self.plan.graph.node(parent).text),
            };
            let graph = &mut self.plan.graph;
            let node = match (last, &root) {
                (None, Some((root, seed))) => graph.root(self.shapes, root, *seed, stretch)?,
                (last, _) => graph.child(self.shapes, last.unwrap_or_default(), stretch)?,
            };
            nodes.insert(to_step, node);
            last = Some(node);
        }
        Ok(nodes)
    }

    /// A branch of `node` whose rate decays to 0 at `to_step`.
    fn decay(&mut self, node: usize, name: &str, rate: f64, to_step: u64) -> Result<usize> {
        let stretch = Stretch {
            label: format!("{name}/{to_step}-decayed"),
            to_step,
            rate: Rate::Decay(rate),
            growth: None,
            text: self.plan.graph.node(node).text,
        };
        self.plan.graph.child(self.shapes, node, stretch)
    }

    /// Updates of a family's base at which branches begin.
    fn base_cuts(&self, family: Family) -> Vec<u64> {
        let profile = &self.settings.profile;
        let mut cuts = vec![
            profile.base_steps - profile.decay_of(profile.base_steps),
            profile.base_steps,
        ];
        if family == Family::Gpt {
            let ends = profile.scratch[0].ends.iter();
            cuts.extend(ends.map(|end| end - profile.decay_of(*end)));
        }
        cuts
    }

    /// The base of a family, and its branch that has decayed after `end`.
    fn decayed_base(&mut self, family: Family, seed: u64, end: u64) -> Result<(usize, usize)> {
        let (root, rate) = (self.base(family)?, self.rates[index(family)]);
        let name = format!("s{seed}/{}-base", short_name(family));
        let nodes = self.trunk(
            Begin::Scratch(root, seed),
            &name,
            rate,
            &self.base_cuts(family),
        )?;
        let base = nodes[&self.settings.profile.base_steps];
        let from = nodes[&(end - self.settings.profile.decay_of(end))];
        Ok((base, self.decay(from, &name, rate, end)?))
    }

    /// The factors of the learning rate to run: all for the first seed, the one that was best there for others.
    fn scales(&self, checks: bool, arm: &Arm, size: &str, seed: u64) -> Vec<f64> {
        match (checks, seed) {
            (false, _) => vec![1.0],
            (true, 1) => self.settings.profile.checks.clone(),
            (true, _) => vec![self.best_scale(arm, size).unwrap_or(1.0)],
        }
    }

    /// The factor that was best for the first seed, if all have ended.
    fn best_scale(&self, arm: &Arm, size: &str) -> Option<f64> {
        let of_first = (self.plan.endpoints.iter())
            .filter(|end| (end.arm, &*end.size, end.seed) == (arm.name, size, 1));
        let losses = of_first.map(|end| {
            let result = ended(&self.plan.graph, self.results, end.node)?;
            Some((end.scale, bits(result)?))
        });
        let losses: Option<Vec<(f64, f64)>> = losses.collect();
        let best = losses?.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(best.0)
    }

    /// Adds ends that try several factors of the rate at `sizes[at]`. The best factor is used for all sizes; the other sizes
    /// wait until it is known.
    fn checked(
        &mut self,
        arm: &Arm,
        sizes: &[String],
        at: usize,
        seed: u64,
        ends: &[Vec<(f64, usize)>],
    ) {
        let checks = ends.iter().map(Vec::len).max().unwrap_or(0);
        let is_checked = checks > 1 || seed > 1 && self.was_checked(arm, &sizes[at]);
        for (number, (size, ends)) in sizes.iter().zip(ends).enumerate() {
            for &(scale, node) in ends {
                self.plan.endpoints.push(Endpoint {
                    arm: arm.name,
                    size: size.clone(),
                    seed,
                    scale,
                    counts: true,
                    settled: !is_checked || seed == 1 && number == at,
                    node,
                });
            }
        }
        if !is_checked {
            return;
        }
        let best = self.best_scale(arm, &sizes[at]);
        if seed == 1 {
            let tries = ends[at].iter().map(|&(scale, node)| {
                let result = ended(&self.plan.graph, self.results, node);
                (scale, result.and_then(bits))
            });
            let mut tries: Vec<(f64, Option<f64>)> = tries.collect();
            tries.sort_by(|a, b| a.0.total_cmp(&b.0));
            let label = format!("{} {}", arm.name, sizes[at]);
            self.plan.curves.push(Tried {
                label,
                curve: Curve { tries, best },
            });
        }
        let own = |end: &&mut Endpoint| {
            (end.arm, end.seed) == (arm.name, seed) && sizes.contains(&end.size)
        };
        for end in self.plan.endpoints.iter_mut().filter(own) {
            end.counts = seed > 1 || end.scale == best.unwrap_or(1.0);
            end.settled |= best == Some(end.scale);
        }
        if best.is_some() {
            // The other sizes with another factor are not needed any more.
            self.plan
                .endpoints
                .retain(|end| end.settled || end.arm != arm.name || !sizes.contains(&end.size));
        }
    }

    /// Whether an arm's first seed tries several factors of the learning rate at a size.
    fn was_checked(&self, arm: &Arm, size: &str) -> bool {
        let mut of_first = (self.plan.endpoints.iter())
            .filter(|end| (end.arm, &*end.size, end.seed) == (arm.name, size, 1));
        of_first.any(|end| end.scale != 1.0)
    }
}

/// The beginning of a trunk.
enum Begin {
    Node(usize),
    Scratch(Arc<Root>, u64),
}

fn scaled_name(name: &str, scale: f64) -> String {
    match scale {
        1.0 => name.into(),
        scale => format!("{name}@{scale:.2}"),
    }
}

fn short_name(family: Family) -> &'static str {
    match family {
        Family::Tokenformer => "t",
        Family::Gpt => "g",
    }
}

fn long_name(family: Family) -> &'static str {
    match family {
        Family::Tokenformer => "TokenFormer",
        Family::Gpt => "plain Transformer",
    }
}

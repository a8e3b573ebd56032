//! Arms that begin with a base: grown, trained further, or with one block at first.

use super::{Begin, Planner, index, scaled_name};
use crate::arms::{self, Arm, Group, Ladder, Rung};
use crate::graph::{OnText, Rate, Root, Stretch};
use crate::tuning::{for_length, significant};
use std::sync::Arc;
use tokenformer_core::config::{BaseSizes, Family};
use tokenformer_train::Result;
use tokenformer_train::recipe::GrowEvent;
use tokenformer_train::schedule::{Schedule, Shape};

/// A stage that begins with a growth.
struct Grows<'a> {
    name: &'a str,
    rate: f64,
    steps: u64,
    /// Updates at its end over which the rate decays.
    decay: u64,
}

/// Rounds a number of updates to tens, so that it is the same on every machine.
fn tens(steps: f64) -> u64 {
    ((steps / 10.0).round() as u64).max(1) * 10
}

impl Planner<'_> {
    /// Floating-point operations of the growths of a TokenFormer's ladder, up to the end of each stage.
    fn ladder_flops(&mut self) -> Result<Vec<f64>> {
        let profile = &self.settings.profile;
        let model = self.model(Family::Tokenformer, profile.width)?;
        let (mut growths, mut flops, mut ends) = (Vec::new(), 0.0, Vec::new());
        for (number, stage) in profile.stages.iter().enumerate() {
            growths.push(arms::event(profile, number, Rung::segment));
            let config = self.shapes.of(&model, &growths)?;
            let per_token = config.train_flops_per_token(profile.context);
            flops += per_token * (stage.steps * profile.tokens_per_step()) as f64;
            ends.push(flops);
        }
        Ok(ends)
    }

    /// Floating-point operations of a TokenFormer's base and all of its growths.
    pub(super) fn whole_ladder_flops(&mut self) -> Result<f64> {
        let profile = &self.settings.profile;
        let base = self.model(Family::Tokenformer, profile.width)?;
        let per_token = self
            .shapes
            .of(&base, &[])?
            .train_flops_per_token(profile.context);
        let base = per_token * (profile.base_steps * profile.tokens_per_step()) as f64;
        Ok(base + self.ladder_flops()?.last().copied().unwrap_or_default())
    }

    /// The base trained further up to the cost of each size of the ladder.
    pub(super) fn stay(&mut self, arm: &Arm, seed: u64) -> Result<()> {
        let profile = &self.settings.profile;
        let (base, _) = self.decayed_base(Family::Tokenformer, seed, profile.base_steps)?;
        let per_step = self.plan.graph.node(base).flops_per_step;
        let mut start = profile.base_steps;
        let (mut cuts, mut ends) = (Vec::new(), Vec::new());
        for (stage, flops) in profile.stages.iter().zip(self.ladder_flops()?) {
            let end = profile.base_steps + tens(flops / per_step);
            ends.push((stage.factor, end));
            // Cuts at the steps where the ladder grows, so that spikes can be compared.
            cuts.extend([start, end - profile.decay_of(end)]);
            start += stage.steps;
        }
        let rate = self.rates[index(Family::Tokenformer)];
        let name = format!("s{seed}/{}", arm.name);
        let nodes = self.trunk(Begin::Node(base), &name, rate, &cuts)?;
        for (factor, end) in ends {
            let from = nodes.get(&(end - profile.decay_of(end)));
            let node = self.decay(from.copied().unwrap_or(base), &name, rate, end)?;
            self.end(arm, format!("x{factor}"), seed, node);
        }
        Ok(())
    }

    /// The base of a family grown stage by stage, each with an end that has decayed. The next stage continues at the rate of
    /// the base, whichever was best for the end of this one.
    pub(super) fn grown(&mut self, arm: &Arm, ladder: Ladder, seed: u64) -> Result<()> {
        let profile = &self.settings.profile;
        let most = match arm.group {
            Group::Main => ladder.stages,
            _ => ladder.stages.min(profile.rival_stages),
        };
        let stages = &profile.stages[..profile.stages.len().min(most)];
        let (mut trunk, _) = self.decayed_base(ladder.family, seed, profile.base_steps)?;
        let rate = self.rates[index(ladder.family)];
        for (number, stage) in stages.iter().enumerate() {
            let event = arms::event(profile, number, ladder.growth);
            let size = format!("x{}", stage.factor);
            let name = format!("s{seed}/{}-{size}", arm.name);
            let grow = |planner: &mut Self, scale: f64| {
                let of = Grows {
                    name: &scaled_name(&name, scale),
                    rate: significant(rate * scale, 4),
                    steps: stage.steps,
                    decay: stage.decay,
                };
                match ladder.rewarmed {
                    true => planner.rewarmed(trunk, event.clone(), &of),
                    false => planner.grow(trunk, event.clone(), &of),
                }
            };
            let mut ends = Vec::new();
            for scale in self.scales(true, arm, &size, seed) {
                ends.push((scale, grow(self, scale)?));
            }
            self.checked(arm, &[size], 0, seed, &[ends]);
            if number + 1 < stages.len() {
                let end = grow(self, 1.0)?;
                let node = self.plan.graph.node(end);
                let to_step = node.to_step;
                trunk = match node.parent.filter(|_| !ladder.rewarmed) {
                    Some(flat) => self.trunk(Begin::Node(flat), &name, rate, &[to_step])?[&to_step],
                    None => end,
                };
            }
        }
        Ok(())
    }

    /// A growth of `parent`, a part at constant rate, and a branch of it that decays; returns the end of the branch.
    fn grow(&mut self, parent: usize, event: GrowEvent, of: &Grows<'_>) -> Result<usize> {
        let end = self.plan.graph.node(parent).to_step + of.steps;
        let branch = end - of.decay;
        let stretch = Stretch {
            label: format!("{}/{branch}", of.name),
            to_step: branch,
            rate: Rate::Flat(of.rate),
            growth: Some(event),
            text: OnText::First,
        };
        let grown = self.plan.graph.child(self.shapes, parent, stretch)?;
        self.decay(grown, of.name, of.rate, end)
    }

    /// A growth of `parent` with a separate warm-up and cosine decay.
    fn rewarmed(&mut self, parent: usize, event: GrowEvent, of: &Grows<'_>) -> Result<usize> {
        let to_step = self.plan.graph.node(parent).to_step + of.steps;
        let schedule = Schedule {
            shape: Shape::Cosine,
            lr: of.rate,
            warmup_steps: self.settings.profile.warmup_steps.min(of.steps / 8),
            min_ratio: 0.0,
            ..Schedule::default()
        };
        let stretch = Stretch {
            label: format!("{}/{to_step}", of.name),
            to_step,
            rate: Rate::Own,
            growth: Some(GrowEvent {
                schedule: Some(schedule),
                ..event
            }),
            text: OnText::First,
        };
        self.plan.graph.child(self.shapes, parent, stretch)
    }

    /// A model of one block for most of the tokens, then of many, at the cost of the whole ladder.
    pub(super) fn late(
        &mut self,
        arm: &Arm,
        growth: fn(&Rung) -> tokenformer_core::growth::Growth,
        seed: u64,
    ) -> Result<()> {
        const BEFORE: f64 = 0.8;
        let profile = &self.settings.profile;
        let flops = self.whole_ladder_flops()?;
        let mut model = self.model(Family::Gpt, profile.width)?;
        model.layers = 1;
        let event = GrowEvent {
            growth: growth(&Rung {
                width: profile.width,
                layers: 1,
                before: 1,
                after: arms::LATE_LAYERS,
            }),
            ..GrowEvent::default()
        };
        let [small, large] =
            [&[][..], std::slice::from_ref(&event)].map(|growths| self.shapes.of(&model, growths));
        let [small, large] = [small?, large?].map(|c| c.train_flops_per_token(profile.context));
        let per_step = (BEFORE * small + (1.0 - BEFORE) * large) * profile.tokens_per_step() as f64;
        let steps = flops / per_step;
        let [before, after] = [BEFORE * steps, (1.0 - BEFORE) * steps].map(tens);
        let rate = for_length(
            self.rates[index(Family::Gpt)],
            profile.base_steps,
            before + after,
        );
        let root = Arc::new(Root {
            model,
            base: BaseSizes::default(),
        });
        let name = format!("s{seed}/g-one-base");
        let begin = Begin::Scratch(root, seed);
        let trunk = self.trunk(begin, &name, rate, &[before])?[&before];
        let size = format!("L{}", arms::LATE_LAYERS);
        let mut ends = Vec::new();
        for scale in self.scales(true, arm, &size, seed) {
            let of = Grows {
                name: &scaled_name(&format!("s{seed}/{}", arm.name), scale),
                rate: significant(rate * scale, 4),
                steps: after,
                decay: after / 2,
            };
            ends.push((scale, self.grow(trunk, event.clone(), &of)?));
        }
        self.checked(arm, &[size], 0, seed, &[ends]);
        Ok(())
    }
}

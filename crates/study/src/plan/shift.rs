//! Arms that go on with a second text, to see what they forget of the first one.

use super::{Planner, index};
use crate::arms::{self, Arm, Rung};
use crate::graph::{OnText, Rate, Stretch};
use tokenformer_core::config::Family;
use tokenformer_core::growth::Growth;
use tokenformer_train::Result;

impl Planner<'_> {
    /// The base of a family on the second text, for as long as the ladder's first stage, with its growth or without.
    pub(super) fn shift(
        &mut self,
        arm: &Arm,
        family: Family,
        growth: Option<fn(&Rung) -> Growth>,
        seed: u64,
    ) -> Result<()> {
        let profile = &self.settings.profile;
        let (Some(stage), true) = (profile.stages.first(), self.settings.second.is_some()) else {
            return Ok(());
        };
        let (base, _) = self.decayed_base(family, seed, profile.base_steps)?;
        let (name, rate) = (format!("s{seed}/{}", arm.name), self.rates[index(family)]);
        let end = profile.base_steps + stage.steps;
        let branch = end - stage.decay;
        let stretch = Stretch {
            label: format!("{name}/{branch}"),
            to_step: branch,
            rate: Rate::Flat(rate),
            growth: growth.map(|growth| arms::event(profile, 0, growth)),
            text: OnText::Second,
        };
        let flat = self.plan.graph.child(self.shapes, base, stretch)?;
        let end = self.decay(flat, &name, rate, end)?;
        self.end(
            arm,
            format!("x{}", if growth.is_some() { stage.factor } else { 1 }),
            seed,
            end,
        );
        Ok(())
    }
}

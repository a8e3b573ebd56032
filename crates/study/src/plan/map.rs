//! The map of where growth pays: one TokenFormer, grown once at many moments, by many factors, for many lengths.

use super::{Begin, Planner, index};
use crate::arms::{self, Arm, Rung};
use crate::graph::{OnText, Rate, Stretch};
use tokenformer_core::config::Family;
use tokenformer_train::Result;

/// A decayed end of the map.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Updates of the base.
    pub base: u64,
    /// The growth's factor and the updates after it; none for the base itself.
    pub growth: Option<(usize, u64)>,
    /// Number of the node.
    pub node: usize,
}

impl Planner<'_> {
    /// All growths of the map; the first seed alone, because they are many.
    pub(super) fn map(&mut self, arm: &Arm, seed: u64) -> Result<()> {
        if seed > 1 {
            return Ok(());
        }
        let profile = &self.settings.profile;
        let map = &profile.map;
        let (root, rate) = (
            self.base(Family::Tokenformer)?,
            self.rates[index(Family::Tokenformer)],
        );
        let begin_of_decay = |end: u64| end - profile.decay_of(end);
        let cuts: Vec<u64> = (map.bases.iter())
            .flat_map(|&base| [base, begin_of_decay(base)])
            .collect();
        let name = format!("s{seed}/{}-base", arm.name);
        let trunk = self.trunk(Begin::Scratch(root, seed), &name, rate, &cuts)?;
        let mut places = Vec::new();
        for &base in &map.bases {
            let node = self.decay(trunk[&begin_of_decay(base)], &name, rate, base)?;
            let growth = None;
            places.push(Place { base, growth, node });
            for &factor in &map.factors {
                let name = format!("s{seed}/{}-{base}-x{factor}", arm.name);
                let mut cuts: Vec<u64> = (map.after.iter())
                    .map(|&after| base + begin_of_decay(after))
                    .collect();
                cuts.sort_unstable();
                let Some(&first) = cuts.first() else {
                    continue;
                };
                let grown = Stretch {
                    label: format!("{name}/{first}"),
                    to_step: first,
                    rate: Rate::Flat(rate),
                    growth: Some(arms::event_between(profile, [1, factor], Rung::segment)),
                    text: OnText::First,
                };
                let grown = self.plan.graph.child(self.shapes, trunk[&base], grown)?;
                let mut nodes = self.trunk(Begin::Node(grown), &name, rate, &cuts)?;
                nodes.insert(first, grown);
                for &after in &map.after {
                    let from = nodes[&(base + begin_of_decay(after))];
                    let node = self.decay(from, &name, rate, base + after)?;
                    let growth = Some((factor, after));
                    places.push(Place { base, growth, node });
                }
            }
        }
        // The cheapest first: a part of the map shows the part where growth is early.
        let flops = |place: &Place| self.plan.graph.node(place.node).flops;
        places.sort_by(|a, b| flops(a).total_cmp(&flops(b)));
        for place in places {
            self.place(arm, seed, place);
        }
        Ok(())
    }

    fn place(&mut self, arm: &Arm, seed: u64, place: Place) {
        let size = match place.growth {
            None => place.base.to_string(),
            Some((factor, after)) => format!("{} x{factor} +{after}", place.base),
        };
        self.end(arm, size, seed, place.node);
        self.plan.map.push(place);
    }
}

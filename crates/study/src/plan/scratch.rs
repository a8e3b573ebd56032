//! Arms from scratch: trunks with branches that decay.

use super::{Begin, Planner, index, scaled_name};
use crate::arms::{Arm, Rung};
use crate::graph::Root;
use crate::tuning::{for_length, significant};
use std::sync::Arc;
use tokenformer_core::config::{BaseSizes, Family, Slots};
use tokenformer_train::Result;
use tokenformer_train::recipe::ModelTable;

/// A model from scratch with branches.
struct Trunk {
    root: Arc<Root>,
    name: String,
    rate: f64,
    /// Whether other rates are tried; the base's own is known already.
    checks: bool,
}

impl Planner<'_> {
    /// A plain Transformer from scratch.
    pub(super) fn scratch(&mut self, arm: &Arm, size: usize, seed: u64) -> Result<()> {
        let profile = &self.settings.profile;
        let Some(of) = profile.scratch.get(size) else {
            return Ok(());
        };
        let at_base = self.rates[index(Family::Gpt)];
        let longest = of.ends.iter().copied().max().unwrap_or(profile.base_steps);
        let trunk = match of.width == profile.width {
            true => Trunk {
                root: self.base(Family::Gpt)?,
                name: format!("s{seed}/g-base"),
                rate: at_base,
                checks: false,
            },
            false => Trunk {
                root: Arc::new(Root {
                    model: self.model(Family::Gpt, of.width)?,
                    base: BaseSizes {
                        width: profile.width,
                        mlp_hidden: 4 * profile.width,
                        ..BaseSizes::default()
                    },
                }),
                name: format!("s{seed}/{}", arm.name),
                // The base's rate is the one tuned for its length.
                rate: for_length(at_base, profile.base_steps, longest),
                checks: true,
            },
        };
        self.branches(arm, &trunk, &of.ends, seed)
    }

    /// A TokenFormer of the ladder's last size from scratch, as long as the largest plain Transformer.
    pub(super) fn last_size(&mut self, arm: &Arm, seed: u64) -> Result<()> {
        let profile = &self.settings.profile;
        let (Some(stage), Some(of)) = (profile.stages.last(), profile.scratch.last()) else {
            return Ok(());
        };
        let [attention, ffn] = Rung::base_slots(profile.width);
        let mut model = self.model(Family::Tokenformer, profile.width)?;
        model.slots = Slots {
            qkv: attention * stage.factor,
            proj: attention * stage.factor,
            ffn: ffn * stage.factor,
        };
        let base = BaseSizes {
            width: profile.width,
            qkv: attention,
            proj: attention,
            ffn,
            ..BaseSizes::default()
        };
        let longest = of.ends.iter().copied().max().unwrap_or(profile.base_steps);
        let at_base = self.rates[index(Family::Tokenformer)];
        let trunk = Trunk {
            root: Arc::new(Root { model, base }),
            name: format!("s{seed}/{}", arm.name),
            rate: for_length(at_base, profile.base_steps, longest),
            checks: true,
        };
        self.branches(arm, &trunk, &of.ends, seed)
    }

    /// A trunk with branches that have decayed after each of `ends`.
    fn branches(&mut self, arm: &Arm, of: &Trunk, ends: &[u64], seed: u64) -> Result<()> {
        if ends.is_empty() {
            return Ok(());
        }
        let profile = &self.settings.profile;
        let mut cuts: Vec<u64> = ends
            .iter()
            .map(|end| end - profile.decay_of(*end))
            .collect();
        if !of.checks {
            cuts.extend(self.base_cuts(Family::Gpt));
        }
        let sizes: Vec<String> = ends.iter().map(u64::to_string).collect();
        let at = self.compared(&of.root.model, ends)?;
        let mut found = vec![Vec::new(); ends.len()];
        for scale in self.scales(of.checks, arm, &sizes[at], seed) {
            let rate = significant(of.rate * scale, 4);
            let name = scaled_name(&of.name, scale);
            let begin = Begin::Scratch(Arc::clone(&of.root), seed);
            let nodes = self.trunk(begin, &name, rate, &cuts)?;
            for (end, found) in ends.iter().zip(&mut found) {
                let from = nodes[&(end - profile.decay_of(*end))];
                found.push((scale, self.decay(from, &name, rate, *end)?));
            }
        }
        self.checked(arm, &sizes, at, seed, &found);
        Ok(())
    }

    /// Number of the end whose cost is nearest to that of the grown TokenFormer: the one that it is compared with.
    fn compared(&mut self, model: &ModelTable, ends: &[u64]) -> Result<usize> {
        let profile = &self.settings.profile;
        let per_token = self
            .shapes
            .of(model, &[])?
            .train_flops_per_token(profile.context);
        let per_step = per_token * profile.tokens_per_step() as f64;
        let wanted = self.whole_ladder_flops()?;
        let distance = |end: u64| (end as f64 * per_step / wanted).ln().abs();
        let nearest =
            (0..ends.len()).min_by(|&a, &b| distance(ends[a]).total_cmp(&distance(ends[b])));
        Ok(nearest.unwrap_or(0))
    }
}

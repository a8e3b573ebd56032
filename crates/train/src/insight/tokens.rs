//! What parameter tokens do: which of them fire at all, for which class, and how much each growth stage contributes.

use crate::error::Result;
use tokenformer_core::{ImageTrace, Model, SiteKind};

/// A token is dead below this share of the mean of its site.
const DEAD: f64 = 0.01;

/// The parameter tokens of a model over many pictures.
#[derive(Clone, Debug)]
pub struct TokenUse {
    classes: usize,
    labels: Vec<u32>,
    sites: Vec<SiteUse>,
    /// How strongly the tokens of the last feed-forward network fire, `[pictures, N]`.
    last_ffn: Vec<f32>,
}

/// The tokens of a site over many pictures.
#[derive(Clone, Debug)]
pub struct SiteUse {
    /// The block of the site.
    pub block: usize,
    /// Its place in the block.
    pub kind: SiteKind,
    /// Growth stage of birth of each token.
    pub stages: Vec<u32>,
    /// Norms of the tokens' values.
    norms: Vec<f32>,
    /// Firing of each token, added up over pictures.
    firing: Vec<f64>,
    /// Energy of each stage's part of the output, added up over pictures.
    energies: Vec<f64>,
}

/// A token that a class uses more than the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selective {
    /// Its number in the last feed-forward network.
    pub token: usize,
    /// Growth stage of birth.
    pub stage: u32,
    /// Mean firing on the class over the mean of the classes' means: 1 means alike, the number of classes is the most.
    pub selectivity: f64,
    /// Mean firing on the class, times the norm of its value.
    pub effect: f64,
}

impl SiteUse {
    /// Mean size of what each token adds, up to a factor that all share.
    fn effects(&self) -> Vec<f64> {
        let pairs = self.firing.iter().zip(&self.norms);
        pairs.map(|(f, &norm)| f * f64::from(norm)).collect()
    }

    /// Whether each token does next to nothing: below 1 % of the mean of the site.
    pub fn dead(&self) -> Vec<bool> {
        let effects = self.effects();
        let mean = effects.iter().sum::<f64>() / effects.len().max(1) as f64;
        effects.iter().map(|e| *e < DEAD * mean).collect()
    }

    /// Share of each stage in the energy of the output, by stage of birth. What stages add may cancel out or reinforce each
    /// other; the shares are of the sum of their energies.
    pub fn energy_shares(&self) -> Vec<f64> {
        let total: f64 = self.energies.iter().sum();
        let share = |energy: &f64| match total {
            0.0 => 0.0,
            _ => energy / total,
        };
        self.energies.iter().map(share).collect()
    }

    /// How many tokens were born in each stage.
    pub fn tokens_by_stage(&self) -> Vec<usize> {
        let mut counts = vec![0; self.energies.len()];
        for &stage in &self.stages {
            counts[stage as usize] += 1;
        }
        counts
    }
}

impl TokenUse {
    /// Nothing yet.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(model: &Model, classes: usize) -> Result<Self> {
        let mut sites = Vec::new();
        for (block, layers) in model.blocks().iter().enumerate() {
            for (kind, layer) in layers.layers() {
                let Some(site) = layer.site() else { continue };
                let segments = site.segments().iter().map(|segment| segment.config());
                let stages: Vec<u32> = segments
                    .flat_map(|s| std::iter::repeat_n(s.stage, s.tokens))
                    .collect();
                let newest = stages.iter().max().map_or(0, |stage| *stage as usize);
                sites.push(SiteUse {
                    block,
                    kind,
                    norms: model.value_norms(block, kind)?,
                    firing: vec![0.0; stages.len()],
                    energies: vec![0.0; newest + 1],
                    stages,
                });
            }
        }
        Ok(Self {
            classes,
            labels: Vec::new(),
            sites,
            last_ffn: Vec::new(),
        })
    }

    /// The sites; none in a plain Transformer.
    pub fn sites(&self) -> &[SiteUse] {
        &self.sites
    }

    /// Takes in pictures of the classes `labels`, as the model saw them.
    ///
    /// # Panics
    /// If they are not of the model that this was made for.
    pub fn add(&mut self, seen: &ImageTrace, labels: &[u32]) {
        assert_eq!(seen.sites.len(), self.sites.len(), "one model");
        for (site, seen) in self.sites.iter_mut().zip(&seen.sites) {
            for picture in seen.firing.chunks_exact(site.firing.len()) {
                for (sum, &f) in site.firing.iter_mut().zip(picture) {
                    *sum += f64::from(f);
                }
            }
            for &(stage, energy) in &seen.energies {
                site.energies[stage as usize] += energy;
            }
        }
        if let Some(at) = self.last_ffn_site() {
            self.last_ffn.extend_from_slice(&seen.sites[at].firing);
        }
        self.labels.extend_from_slice(labels);
    }

    fn last_ffn_site(&self) -> Option<usize> {
        self.sites
            .iter()
            .rposition(|site| site.kind == SiteKind::Ffn)
    }

    /// The `count` tokens of the last feed-forward network that are most selective for a class; none if no picture of it was
    /// seen. Dead tokens are left out, because a ratio of next to nothing says nothing.
    pub fn selective(&self, class: u32, count: usize) -> Vec<Selective> {
        let Some(site) = self.last_ffn_site().map(|at| &self.sites[at]) else {
            return Vec::new();
        };
        let means = self.class_means(site.firing.len());
        let Some(own) = means.get(class as usize).and_then(Option::as_ref) else {
            return Vec::new();
        };
        let seen: Vec<&Vec<f64>> = means.iter().flatten().collect();
        let dead = site.dead();
        let alive = (0..site.firing.len()).filter(|&token| !dead[token]);
        let mut found: Vec<Selective> = alive
            .map(|token| {
                let mean = seen.iter().map(|means| means[token]).sum::<f64>() / seen.len() as f64;
                Selective {
                    token,
                    stage: site.stages[token],
                    selectivity: own[token] / mean,
                    effect: own[token] * f64::from(site.norms[token]),
                }
            })
            .filter(|found| found.selectivity.is_finite())
            .collect();
        found.sort_by(|a, b| {
            let order = b.selectivity.total_cmp(&a.selectivity);
            order
                .then(b.effect.total_cmp(&a.effect))
                .then(a.token.cmp(&b.token))
        });
        found.truncate(count);
        found
    }

    /// The pictures, in the order in which they were added, that fire a token of the last feed-forward network most.
    pub fn strongest(&self, token: usize, count: usize) -> Vec<usize> {
        let Some(tokens) = self.last_ffn_site().map(|at| self.sites[at].firing.len()) else {
            return Vec::new();
        };
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
        let firing = |picture: usize| self.last_ffn[picture * tokens + token];
        order.sort_by(|&a, &b| firing(b).total_cmp(&firing(a)).then(a.cmp(&b)));
        order.truncate(count);
        order
    }

    /// Mean firing of the last feed-forward network's tokens by class; `None` for classes without pictures.
    fn class_means(&self, tokens: usize) -> Vec<Option<Vec<f64>>> {
        let mut counts = vec![0u64; self.classes];
        let mut sums: Vec<Option<Vec<f64>>> = vec![None; self.classes];
        for (&label, firing) in self.labels.iter().zip(self.last_ffn.chunks_exact(tokens)) {
            counts[label as usize] += 1;
            let sums = sums[label as usize].get_or_insert_with(|| vec![0.0; tokens]);
            for (sum, &f) in sums.iter_mut().zip(firing) {
                *sum += f64::from(f);
            }
        }
        for (sums, count) in sums.iter_mut().zip(counts) {
            for sum in sums.iter_mut().flatten() {
                *sum /= count as f64;
            }
        }
        sums
    }
}

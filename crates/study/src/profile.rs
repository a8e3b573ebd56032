//! Sizes and budgets of the study, one table per profile.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};
use tokenformer_train::{Error, Result};

/// The size of the study.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Its purpose in one line.
    pub about: &'static str,
    /// Blocks of every model.
    pub layers: usize,
    /// Width of the base.
    pub width: usize,
    /// Positions.
    pub context: usize,
    /// Windows per update.
    pub batch: usize,
    /// Vocabulary of the BPE that is learnt on the training text; `None` for bytes.
    pub vocab: Option<usize>,
    /// Updates of the base.
    pub base_steps: u64,
    /// The growths, one after the other.
    pub stages: Vec<Stage>,
    /// Growths of the arms that the first claims do not need: the last ones cost most.
    pub rival_stages: usize,
    /// Plain Transformers from scratch, the base's width first.
    pub scratch: Vec<Scratch>,
    /// Single growths at many moments, for the map of where growth pays.
    pub map: Map,
    /// Share of the updates over which a model from scratch decays.
    pub decay_share: f64,
    /// Updates of linear warm-up of every run.
    pub warmup_steps: u64,
    /// The search for the learning rate.
    pub tuning: Tuning,
    /// Factors of the learning rate with which every stage of an arm is checked, 1 among them.
    pub checks: Vec<f64>,
    /// Updates between two evaluations along the way, and the held-out tokens of each.
    pub eval: (u64, usize),
    /// Wanted size of the held-out text in bytes.
    pub held_out_bytes: u64,
    /// Default number of seeds.
    pub seeds: u64,
}

/// A growth of the main ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Parameter tokens over those of the base.
    pub factor: usize,
    /// Updates.
    pub steps: u64,
    /// Updates at the end over which the branch that is measured decays.
    pub decay: u64,
}

/// A plain Transformer trained from scratch.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// Width.
    pub width: usize,
    /// Updates at which a branch has decayed, in order.
    pub ends: Vec<u64>,
}

/// Single growths of one TokenFormer: every combination of a moment, a factor and a length is run.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// Updates before the growth.
    pub bases: Vec<u64>,
    /// Parameter tokens over those of the base.
    pub factors: Vec<usize>,
    /// Updates after the growth, at the end of which a branch has decayed.
    pub after: Vec<u64>,
}

/// The search for the base's learning rate.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Rates tried first, in order.
    pub rates: Vec<f64>,
    /// Updates of each try, the decay included.
    pub steps: u64,
    /// Number of rates that may be added if the best one is at an edge.
    pub widenings: usize,
}

impl Profile {
    /// Channels of a head, in every model.
    pub const HEAD: usize = 16;

    /// All profiles, small to large.
    pub fn all() -> [Self; 3] {
        [smoke(), laptop(), gpu()]
    }

    /// Finds a profile.
    ///
    /// # Errors
    /// [`Error::Recipe`] with the known names.
    pub fn named(name: &str) -> Result<Self> {
        let known = Self::all().map(|profile| profile.name);
        (Self::all().into_iter())
            .find(|profile| profile.name == name)
            .ok_or_else(|| Error::Recipe {
                place: "--profile".into(),
                problem: "no such profile".into(),
                expected: format!("one of {}", known.join(", ")),
                got: name.into(),
                help: "smoke takes minutes, laptop about two days of one core, gpu wants an accelerator".into(),
            })
    }

    /// Tokens of an update.
    pub fn tokens_per_step(&self) -> u64 {
        (self.batch * self.context) as u64
    }

    /// Updates over which a run of `steps` decays.
    pub fn decay_of(&self, steps: u64) -> u64 {
        ((steps as f64 * self.decay_share).round() as u64).max(1)
    }
}

fn scratch<const N: usize>(ends: [(usize, &[u64]); N]) -> Vec<Scratch> {
    let one = |(width, ends): (usize, &[u64])| Scratch {
        width,
        ends: ends.into(),
    };
    ends.into_iter().map(one).collect()
}

fn map<const B: usize, const A: usize>(bases: [u64; B], factors: &[usize], after: [u64; A]) -> Map {
    Map {
        bases: bases.into(),
        factors: factors.into(),
        after: after.into(),
    }
}

fn stage(factor: usize, steps: u64, decay: u64) -> Stage {
    Stage {
        factor,
        steps,
        decay,
    }
}

fn smoke() -> Profile {
    Profile {
        name: "smoke",
        about: "every arm in minutes, on text that it makes itself: shows that all of it works",
        layers: 2,
        width: 32,
        context: 64,
        batch: 4,
        vocab: None,
        base_steps: 400,
        stages: vec![stage(4, 60, 30), stage(16, 40, 15)],
        rival_stages: 2,
        scratch: scratch([
            (32, &[100, 200, 400, 800]),
            (64, &[50, 100, 200]),
            (128, &[30, 60, 100]),
        ]),
        map: map([200, 400], &[2, 4], [20, 40]),
        decay_share: 0.2,
        warmup_steps: 20,
        tuning: Tuning {
            rates: vec![2e-3, 4e-3, 8e-3],
            steps: 100,
            widenings: 1,
        },
        checks: vec![1.0],
        eval: (100, 2048),
        held_out_bytes: 20_000,
        seeds: 2,
    }
}

fn laptop() -> Profile {
    Profile {
        name: "laptop",
        about: "the main study: about two days of one core",
        layers: 3,
        width: 64,
        context: 256,
        batch: 16,
        vocab: Some(1024),
        base_steps: 4000,
        stages: vec![stage(4, 800, 400), stage(16, 800, 300)],
        rival_stages: 1,
        scratch: scratch([
            (64, &[1000, 2000, 4000, 8000]),
            (128, &[600, 1200, 2500, 5000]),
            (256, &[500, 1000, 2000]),
        ]),
        map: map([500, 1000, 2000, 4000, 8000], &[2, 4, 16], [200, 400, 800]),
        decay_share: 0.2,
        warmup_steps: 100,
        tuning: Tuning {
            rates: vec![0.75e-3, 1.1e-3, 1.5e-3, 2.1e-3, 3e-3, 4.2e-3],
            steps: 1000,
            widenings: 4,
        },
        checks: vec![1.0, FRAC_1_SQRT_2, SQRT_2],
        eval: (200, 65_536),
        held_out_bytes: 2_000_000,
        seeds: 3,
    }
}

fn gpu() -> Profile {
    Profile {
        name: "gpu",
        about: "the same arms at 7M, 28M and 113M parameters",
        layers: 6,
        width: 256,
        context: 512,
        batch: 64,
        vocab: Some(4096),
        base_steps: 4600,
        stages: vec![stage(4, 920, 460), stage(16, 920, 345)],
        rival_stages: 2,
        scratch: scratch([
            (256, &[1150, 2300, 4600, 9200]),
            (512, &[700, 1400, 2900, 5800]),
            (1024, &[575, 1150, 2300]),
        ]),
        map: map([575, 1150, 2300, 4600, 9200], &[2, 4, 16], [230, 460, 920]),
        decay_share: 0.2,
        warmup_steps: 200,
        tuning: Tuning {
            rates: vec![0.5e-3, 0.75e-3, 1.1e-3, 1.5e-3, 2.1e-3],
            steps: 1150,
            widenings: 4,
        },
        checks: vec![1.0, FRAC_1_SQRT_2, SQRT_2],
        eval: (230, 131_072),
        held_out_bytes: 4_000_000,
        seeds: 3,
    }
}

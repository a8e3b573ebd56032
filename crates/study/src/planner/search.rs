//! Schedules of growth under a budget, and training from scratch at every size.

use super::law::{Law, Stage};
use serde::Serialize;

/// Factors of a growth.
const FACTORS: [f64; 5] = [1.5, 2.0, 3.0, 4.0, 8.0];
/// Growths of a schedule at most.
const MAX_GROWTHS: usize = 4;
/// Sizes over the base that a training from scratch may have.
const FROM_SCRATCH: [f64; 13] = [
    1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0,
];
/// Moments of the growths over those at which each of them pays for itself.
const MOMENTS: [f64; 5] = [0.5, 0.7, 1.0, 1.4, 2.0];
/// Share of the budget that a stage gets at least: a shorter one would be over before its new tokens have learnt.
const LEAST_SHARE: f64 = 0.03;

/// What a training may cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Floating-point operations.
    Flops(f64),
    /// Tokens of text.
    Tokens(f64),
}

impl Budget {
    fn amount(self) -> f64 {
        match self {
            Self::Flops(amount) | Self::Tokens(amount) => amount,
        }
    }

    /// Cost of a token at a size.
    pub(super) fn per_token(self, size: f64) -> f64 {
        match self {
            Self::Flops(_) => 6.0 * size,
            Self::Tokens(_) => 1.0,
        }
    }
}

/// A size of the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Size {
    /// Parameter tokens over those of the base.
    pub factor: f64,
    /// Learnable numbers.
    pub params: u64,
    /// Floating-point operations of training on one token, divided by 6.
    pub effective: f64,
}

/// A training: sizes and the tokens at each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// Sizes, and tokens of each stage.
    pub legs: Vec<(Size, f64)>,
}

impl Schedule {
    /// The stages of the law.
    pub fn stages(&self) -> Vec<Stage> {
        let stage = |&(size, tokens): &(Size, f64)| Stage {
            size: size.effective,
            tokens,
        };
        self.legs.iter().map(stage).collect()
    }

    /// Tokens of all stages.
    pub fn tokens(&self) -> f64 {
        self.legs.iter().map(|(_, tokens)| tokens).sum()
    }

    /// Floating-point operations.
    pub fn flops(&self) -> f64 {
        let own = |(size, tokens): &(Size, f64)| 6.0 * size.effective * tokens;
        self.legs.iter().map(own).sum()
    }

    /// Whether it has a growth.
    pub fn grows(&self) -> bool {
        self.legs.len() > 1
    }
}

/// Sizes, a budget and the law by which schedules are made.
pub(super) struct Search<'a> {
    pub law: &'a Law,
    pub budget: Budget,
    /// The size for a factor, if it is allowed.
    pub size: &'a dyn Fn(f64) -> Option<Size>,
}

impl Search<'_> {
    /// Trainings from scratch, a size each.
    pub fn scratch(&self) -> Vec<Schedule> {
        let sizes = FROM_SCRATCH
            .into_iter()
            .filter_map(|factor| (self.size)(factor));
        sizes
            .map(|size| {
                let tokens = self.budget.amount() / self.budget.per_token(size.effective);
                Schedule {
                    legs: vec![(size, tokens)],
                }
            })
            .collect()
    }

    /// Tokens of the base after which a growth by each factor pays.
    pub fn pays_after(&self) -> Vec<(f64, f64)> {
        let base = (self.size)(1.0);
        let after = |factor| {
            let [size, larger] = [base?, (self.size)(factor)?].map(|size| size.effective);
            let ratio = self.budget.per_token(larger) / self.budget.per_token(size);
            Some((factor, self.law.tokens_before_growth(size, larger, ratio)?))
        };
        FACTORS.into_iter().filter_map(after).collect()
    }

    /// The best moments of every sequence of growths that fits into the budget, with the predicted loss.
    pub fn grown(&self) -> Vec<(Schedule, f64)> {
        let mut found = Vec::new();
        let Some(base) = (self.size)(1.0) else {
            return found;
        };
        let mut chains = vec![vec![base]];
        for _ in 0..MAX_GROWTHS {
            chains = (chains.iter())
                .flat_map(|chain| {
                    let before = chain[chain.len() - 1].factor;
                    let sizes = FACTORS.iter().filter_map(move |f| (self.size)(before * f));
                    sizes.map(|size| [chain.as_slice(), &[size]].concat())
                })
                .collect();
            for chain in &chains {
                let moments = MOMENTS.into_iter();
                let schedules = moments.filter_map(|moment| self.schedule(chain, moment));
                let with_loss = schedules.filter_map(|schedule| {
                    let loss = self.law.loss_after(&schedule.stages())?;
                    Some((schedule, loss))
                });
                found.extend(with_loss.min_by(|a, b| a.1.total_cmp(&b.1)));
            }
        }
        found.sort_by(|a, b| a.1.total_cmp(&b.1));
        found
    }

    /// The sequence of sizes, each growth at `moment` times the tokens after which it pays.
    fn schedule(&self, chain: &[Size], moment: f64) -> Option<Schedule> {
        let least = LEAST_SHARE * self.budget.amount();
        let mut left = self.budget.amount();
        let (mut legs, mut seen): (Vec<(Size, f64)>, f64) = (Vec::new(), 0.0);
        for pair in chain.windows(2) {
            let [size, larger] = [pair[0], pair[1]];
            let [price, dearer] = [size, larger].map(|s| self.budget.per_token(s.effective));
            let (now, then) = (size.effective, larger.effective);
            // A model that has grown needs `k` times the tokens with and without the next growth.
            let (k, law) = match legs.is_empty() {
                true => (1.0, *self.law),
                false => (self.law.k, self.law.of_grown()),
            };
            let pays = law.tokens_before_growth(now, then, dearer / price)?;
            let tokens = (k * (pays * moment - seen)).max(least / price);
            let loss = self.law.loss(size.effective, seen + tokens / k);
            seen = self.law.tokens_for(larger.effective, loss)?;
            left -= tokens * price;
            legs.push((size, tokens));
            if left < least {
                return None;
            }
        }
        let last = *chain.last()?;
        legs.push((last, left / self.budget.per_token(last.effective)));
        Some(Schedule { legs })
    }

    /// The least budget with which a training from scratch of any size reaches a loss; `None` if none does.
    pub fn cost_from_scratch(&self, law: &Law, loss: f64) -> Option<f64> {
        let sizes = FROM_SCRATCH
            .into_iter()
            .filter_map(|factor| (self.size)(factor));
        let costs = sizes.filter_map(|size| {
            let tokens = law.tokens_for(size.effective, loss)?;
            Some(tokens * self.budget.per_token(size.effective))
        });
        costs.min_by(f64::total_cmp)
    }
}

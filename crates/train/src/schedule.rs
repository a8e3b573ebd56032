//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// Shape of a schedule after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Half a cosine down to `min_ratio · lr` at the last step.
    #[default]
    Cosine,
    /// Stays at `lr`.
    Constant,
    /// Stays at `lr`, then falls linearly to `min_ratio · lr` over the last `decay_share` of the steps.
    Wsd,
}

/// A schedule over a number of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub shape: Shape,
    /// Highest learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Lowest learning rate over the highest.
    pub min_ratio: f64,
    /// Share of the steps that `wsd` decays for.
    pub decay_share: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            shape: Shape::Cosine,
            lr: 1e-3,
            warmup_steps: 50,
            min_ratio: 0.1,
            decay_share: 0.2,
        }
    }
}

impl Schedule {
    /// Learning rate of update `step` (1 is the first) of `steps`.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        let warmup = self.warmup_steps.min(steps);
        if step < warmup {
            return self.lr * step as f64 / warmup as f64;
        }
        let min = self.lr * self.min_ratio;
        match self.shape {
            Shape::Constant => self.lr,
            Shape::Cosine => {
                let done = share(step - warmup, steps - warmup);
                min + (self.lr - min) / 2.0 * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Shape::Wsd => {
                let decay = ((steps as f64 * self.decay_share) as u64).min(steps - warmup);
                let done = share(step.saturating_sub(steps - decay), decay);
                self.lr + (min - self.lr) * done
            }
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        (part as f64 / whole as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Schedule, Shape};

    #[test]
    fn cosine_gives_the_released_rates_of_the_pile_recipe() {
        let pile = Schedule {
            lr: 6e-4,
            warmup_steps: 1430,
            ..Schedule::default()
        };
        for (step, lr) in [
            (500, 2.098e-4),
            (10_000, 5.951e-4),
            (71_500, 3.343e-4),
            (143_000, 6.0e-5),
        ] {
            let got = pile.at(step, 143_000);
            assert!(
                (got / lr - 1.0).abs() < 2e-4,
                "step {step}: {got} instead of {lr}"
            );
        }
    }

    #[test]
    fn wsd_holds_then_falls_to_the_minimum() {
        let wsd = Schedule {
            shape: Shape::Wsd,
            lr: 1.0,
            warmup_steps: 10,
            ..Schedule::default()
        };
        assert_eq!(
            (wsd.at(5, 100), wsd.at(10, 100), wsd.at(80, 100)),
            (0.5, 1.0, 1.0)
        );
        assert!((wsd.at(90, 100) - 0.55).abs() < 1e-12);
        assert!((wsd.at(100, 100) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn degenerate_lengths_are_finite() {
        for shape in [Shape::Cosine, Shape::Constant, Shape::Wsd] {
            let schedule = Schedule {
                shape,
                warmup_steps: 50,
                ..Schedule::default()
            };
            for steps in 1..60 {
                assert!((1..=steps).all(|s| schedule.at(s, steps).is_finite()));
            }
        }
    }
}

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
    /// Stays at `lr`, then falls to `min_ratio · lr` over the last `decay_steps`, or the last `decay_share` of the steps.
    Wsd,
}

/// Shape of the fall at the end of [`Shape::Wsd`], where `x` goes from 0 to 1: the share of the way from the highest to
/// the lowest learning rate that is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayShape {
    /// `1 − x`.
    #[default]
    Linear,
    /// `(1 + cos πx)/2`.
    Cosine,
    /// `1 − √x`: fast at first.
    Sqrt,
}

impl DecayShape {
    fn left(self, done: f64) -> f64 {
        match self {
            Self::Linear => 1.0 - done,
            Self::Cosine => (1.0 + (std::f64::consts::PI * done).cos()) / 2.0,
            Self::Sqrt => 1.0 - done.sqrt(),
        }
    }
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
    /// Steps that `wsd` decays for, instead of a share; 0 for the share.
    #[serde(skip_serializing_if = "is_default")]
    pub decay_steps: u64,
    /// Shape of that decay.
    #[serde(skip_serializing_if = "is_default")]
    pub decay: DecayShape,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            shape: Shape::Cosine,
            lr: 1e-3,
            warmup_steps: 50,
            min_ratio: 0.1,
            decay_share: 0.2,
            decay_steps: 0,
            decay: DecayShape::Linear,
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
                let decay = self.decay_of(steps);
                let done = share(step.saturating_sub(steps - decay), decay);
                match self.decay {
                    DecayShape::Linear => self.lr + (min - self.lr) * done,
                    decay => min + (self.lr - min) * decay.left(done),
                }
            }
        }
    }

    /// Steps at the end of `steps` over which `wsd` decays.
    fn decay_of(&self, steps: u64) -> u64 {
        let asked = match self.decay_steps {
            0 => (steps as f64 * self.decay_share) as u64,
            steps => steps,
        };
        asked.min(steps - self.warmup_steps.min(steps))
    }

    /// Whether the learning rate of the update after `step` of `steps` is the highest, and stays so while nothing
    /// decays: where a decay can branch off.
    pub fn is_flat(&self, step: u64, steps: u64) -> bool {
        let warm = step >= self.warmup_steps.min(steps);
        warm && match self.shape {
            Shape::Constant => true,
            Shape::Cosine => false,
            Shape::Wsd => step <= steps - self.decay_of(steps),
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
    use super::{DecayShape, Schedule, Shape};

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
    fn a_decay_of_so_many_steps_has_a_shape() {
        let at = |decay, step| {
            let wsd = Schedule {
                shape: Shape::Wsd,
                lr: 1.0,
                warmup_steps: 10,
                min_ratio: 0.1,
                decay_steps: 40,
                decay,
                ..Schedule::default()
            };
            assert!(wsd.is_flat(60, 100) && !wsd.is_flat(61, 100) && !wsd.is_flat(9, 100));
            wsd.at(step, 100)
        };
        let shapes = [DecayShape::Linear, DecayShape::Cosine, DecayShape::Sqrt];
        for shape in shapes {
            assert_eq!(at(shape, 60), 1.0);
            assert!((at(shape, 100) - 0.1).abs() < 1e-12);
        }
        // A quarter of the way: 3/4, (1 + cos 45 degrees)/2 and 1 - 1/2 of 0.9 are left.
        let quarter = [0.775, 0.1 + 0.9 * 0.853_553_390_593, 0.55];
        for (shape, want) in shapes.into_iter().zip(quarter) {
            assert!((at(shape, 70) - want).abs() < 1e-9, "{shape:?}");
        }
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

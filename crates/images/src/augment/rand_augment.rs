//! RandAugment (Cubuk et al., 2019) with the operations and strengths of timm's `rand-mM-mstdS-inc1`.

use serde::{Deserialize, Serialize};

use super::{Operation, Warp, check_range, check_share};
use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::preprocess::Preprocess;
use crate::random::Draws;

/// How many operations, how often and how strong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandAugment {
    /// Operations drawn for a picture, with replacement, out of 15; default 2.
    pub operations: usize,
    /// Probability that each is applied; default 0.5.
    pub probability: f64,
    /// Mean strength, 0 to 10; default 9.
    pub magnitude: f64,
    /// Deviation of the strength, which is clipped to 0..=10; default 0.5.
    pub magnitude_std: f64,
}

impl Default for RandAugment {
    fn default() -> Self {
        Self {
            operations: 2,
            probability: 0.5,
            magnitude: 9.0,
            magnitude_std: 0.5,
        }
    }
}

/// Number of operations to draw from.
const KINDS: usize = 15;

impl RandAugment {
    pub(super) fn check(&self) -> Result<()> {
        if self.operations > 16 {
            return Err(Error::Option {
                option: "rand_augment.operations",
                expected: "0 to 16",
                got: self.operations.to_string(),
            });
        }
        check_share("rand_augment.probability", self.probability)?;
        check_range(
            "rand_augment.magnitude",
            self.magnitude,
            0.0,
            10.0,
            "0 to 10",
        )?;
        check_range(
            "rand_augment.magnitude_std",
            self.magnitude_std,
            0.0,
            100.0,
            "0 to 100",
        )
    }

    pub(super) fn apply(
        &self,
        mut picture: Picture,
        preprocess: &Preprocess,
        draws: &mut Draws,
    ) -> Picture {
        let warp = Warp {
            filter: preprocess.filter,
            fill: preprocess.fill(),
        };
        for _ in 0..self.operations {
            if let Some(operation) = self.draw(draws) {
                picture = operation.apply(&picture, warp);
            }
        }
        picture
    }

    fn draw(&self, draws: &mut Draws) -> Option<Operation> {
        let kind = draws.below(KINDS);
        if !draws.chance(self.probability) {
            return None;
        }
        let magnitude = self.magnitude + self.magnitude_std * draws.normal();
        Some(operation(kind, magnitude.clamp(0.0, 10.0) / 10.0, draws))
    }
}

/// The operation with index `kind`, below [`KINDS`], at `level`, 0 to 1.
fn operation(kind: usize, level: f64, draws: &mut Draws) -> Operation {
    // A strong operation has a factor far from 1, which changes nothing; every drawn factor is above the lower limit.
    let mut factor = || (1.0 + draws.sign(0.9 * level)).max(0.1);
    match kind {
        0 => Operation::AutoContrast,
        1 => Operation::Equalize,
        2 => Operation::Invert,
        3 => Operation::Rotate(draws.sign(30.0 * level)),
        4 => Operation::Posterize(4 - (4.0 * level) as u32),
        5 => Operation::Solarize(256 - (256.0 * level) as u32),
        6 => Operation::SolarizeAdd((110.0 * level) as u32),
        7 => Operation::Color(factor()),
        8 => Operation::Contrast(factor()),
        9 => Operation::Brightness(factor()),
        10 => Operation::Sharpness(factor()),
        11 => Operation::ShearX(draws.sign(0.3 * level)),
        12 => Operation::ShearY(draws.sign(0.3 * level)),
        13 => Operation::TranslateX(draws.sign(0.45 * level)),
        _ => Operation::TranslateY(draws.sign(0.45 * level)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    /// The counts of the kinds in 100,000 draws, half of which are skipped, are within four standard deviations.
    #[test]
    fn operations_come_equally_often() {
        const COUNT: usize = 100_000;
        let recipe = RandAugment::default();
        let mut counts = std::collections::BTreeMap::new();
        for position in 0..COUNT as u64 {
            let mut draws = Draws::new(11, Purpose::Augment, position);
            let drawn = recipe.draw(&mut draws).map(|operation| {
                let name = format!("{operation:?}");
                name.split('(').next().unwrap_or_default().to_owned()
            });
            *counts.entry(drawn).or_insert(0_usize) += 1;
        }
        assert_eq!(counts.len(), KINDS + 1);
        for (name, count) in counts {
            let p = if name.is_some() {
                0.5 / KINDS as f64
            } else {
                0.5
            };
            let mean = p * COUNT as f64;
            let deviation = (mean * (1.0 - p)).sqrt();
            assert!(
                (count as f64 - mean).abs() < 4.0 * deviation,
                "{name:?}: {count}"
            );
        }
    }

    /// Degrees are 3 per unit of magnitude: their magnitude has mean 3 · E[min(N(9, 0.5), 10)] = 26.987, with both
    /// signs.
    #[test]
    fn magnitudes_have_the_mean_asked_for() {
        let recipe = RandAugment {
            probability: 1.0,
            ..RandAugment::default()
        };
        let degrees = (0..300_000).filter_map(|position| {
            match recipe.draw(&mut Draws::new(12, Purpose::Augment, position)) {
                Some(Operation::Rotate(degrees)) => Some(degrees),
                _ => None,
            }
        });
        let degrees: Vec<f64> = degrees.collect();
        let count = degrees.len() as f64;
        let size = degrees.iter().map(|d| d.abs()).sum::<f64>() / count;
        let square = degrees
            .iter()
            .map(|d| (d.abs() - size).powi(2))
            .sum::<f64>()
            / count;
        let negative = degrees.iter().filter(|d| **d < 0.0).count() as f64;
        assert!((size - 26.987).abs() < 4.0 * 1.5 / count.sqrt(), "{size}");
        assert!((1.42..1.50).contains(&square.sqrt()), "{}", square.sqrt());
        assert!(
            (negative / count - 0.5).abs() < 2.0 / count.sqrt(),
            "{negative} of {count}"
        );
        assert!(degrees.iter().all(|d| d.abs() <= 30.0));
    }

    #[test]
    fn strengths_at_the_ends() {
        let at = |kind, level| operation(kind, level, &mut Draws::new(0, Purpose::Augment, 0));
        assert_eq!(at(4, 0.0), Operation::Posterize(4));
        assert_eq!(at(4, 1.0), Operation::Posterize(0));
        assert_eq!(at(5, 0.0), Operation::Solarize(256));
        assert_eq!(at(5, 1.0), Operation::Solarize(0));
        assert_eq!(at(6, 1.0), Operation::SolarizeAdd(110));
        for kind in 7..=10 {
            let text = format!("{:?}", at(kind, 1.0));
            assert!(
                text.ends_with("(1.9)") || text.contains("(0.1") || text.contains("(0.09"),
                "{text}"
            );
        }
    }
}

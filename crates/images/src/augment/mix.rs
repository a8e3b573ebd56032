//! Mixtures of two training pictures: mixup (Zhang et al., 2017) and cutmix (Yun et al., 2019).
//!
//! The samples at positions 2k and 2k+1 of the shuffled order are mixed with each other, both with the same draw. This
//! is timm's mode `pair` with neighbours instead of mirrored positions, so a mixture does not depend on how samples are
//! divided into batches.

use serde::{Deserialize, Serialize};

use super::{check_range, check_share};
use crate::error::Result;
use crate::random::Draws;

/// How pairs are mixed. If both alphas are above 0, one of the two is chosen for each pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mix {
    /// Mixup weights follow Beta(alpha, alpha); 0 disables mixup; default 0.8.
    pub mixup_alpha: f64,
    /// The same parameter for the areas of cutmix; default 1.
    pub cutmix_alpha: f64,
    /// Probability of cutmix if both are in use; default 0.5.
    pub cutmix_share: f64,
    /// Probability that a pair is mixed at all; default 1.
    pub probability: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            mixup_alpha: 0.8,
            cutmix_alpha: 1.0,
            cutmix_share: 0.5,
            probability: 1.0,
        }
    }
}

/// How a pair is mixed; the weight is that of a sample's own picture and label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mixing {
    /// The samples are not mixed.
    None,
    /// The two pictures are blended.
    Mixup { weight: f32 },
    /// A rectangle of the other picture is pasted in.
    Cutmix {
        rows: (usize, usize),
        columns: (usize, usize),
        weight: f32,
    },
}

impl Mix {
    pub(super) fn check(&self) -> Result<()> {
        for (option, alpha) in [
            ("mix.mixup_alpha", self.mixup_alpha),
            ("mix.cutmix_alpha", self.cutmix_alpha),
        ] {
            check_range(option, alpha, 0.0, 1000.0, "0 to 1000")?;
        }
        check_share("mix.cutmix_share", self.cutmix_share)?;
        check_share("mix.probability", self.probability)
    }

    pub(crate) fn draw(&self, (height, width): (usize, usize), draws: &mut Draws) -> Mixing {
        let is_cutmix = match (self.mixup_alpha > 0.0, self.cutmix_alpha > 0.0) {
            (true, true) => draws.chance(self.cutmix_share),
            (_, is_cutmix) => is_cutmix,
        };
        let alpha = if is_cutmix {
            self.cutmix_alpha
        } else {
            self.mixup_alpha
        };
        if alpha == 0.0 || !draws.chance(self.probability) {
            return Mixing::None;
        }
        let weight = draws.beta(alpha);
        if !is_cutmix {
            let weight = weight as f32;
            return Mixing::Mixup { weight };
        }
        let ratio = (1.0 - weight).sqrt();
        let mut span = |side: usize| {
            let (cut, center) = ((side as f64 * ratio) as usize, draws.below(side));
            (
                center.saturating_sub(cut / 2),
                (center + cut.div_ceil(2)).min(side),
            )
        };
        let (rows, columns) = (span(height), span(width));
        // Rectangles are cut at the border, so the weight is computed from the remaining area.
        let area = (rows.1 - rows.0) * (columns.1 - columns.0);
        let weight = (1.0 - area as f64 / (height * width) as f64) as f32;
        Mixing::Cutmix {
            rows,
            columns,
            weight,
        }
    }
}

impl Mixing {
    /// The weight of a sample's own label.
    pub(crate) fn weight(self) -> f32 {
        match self {
            Self::None => 1.0,
            Self::Mixup { weight } | Self::Cutmix { weight, .. } => weight,
        }
    }

    /// Mixes `other` into `own`, both `[channels, height, width]`.
    pub(crate) fn apply(self, own: &mut [f32], other: &[f32], (height, width): (usize, usize)) {
        match self {
            Self::None => {}
            Self::Mixup { weight } => {
                for (own, other) in own.iter_mut().zip(other) {
                    *own = *own * weight + other * (1.0 - weight);
                }
            }
            Self::Cutmix { rows, columns, .. } => {
                let plane = height * width;
                let planes = own.chunks_exact_mut(plane).zip(other.chunks_exact(plane));
                for (own, other) in planes {
                    for y in rows.0..rows.1 {
                        let range = y * width + columns.0..y * width + columns.1;
                        own[range.clone()].copy_from_slice(&other[range]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn draw(mix: &Mix, position: u64) -> Mixing {
        mix.draw((32, 24), &mut Draws::new(9, Purpose::Mix, position))
    }

    #[test]
    fn mixup_blends_and_cutmix_pastes() {
        let mut own = [1.0, 2.0, 3.0, 4.0];
        Mixing::Mixup { weight: 0.75 }.apply(&mut own, &[5.0, 6.0, 7.0, 8.0], (2, 2));
        assert_eq!(own, [2.0, 3.0, 4.0, 5.0]);
        let mut own = [1.0, 2.0, 3.0, 4.0];
        let cut = Mixing::Cutmix {
            rows: (0, 2),
            columns: (1, 2),
            weight: 0.5,
        };
        cut.apply(&mut own, &[5.0, 6.0, 7.0, 8.0], (2, 2));
        assert_eq!(own, [1.0, 6.0, 3.0, 8.0]);
    }

    #[test]
    fn the_weight_of_cutmix_is_the_area_that_stays() {
        let mix = Mix::default();
        let mut cutmix = 0;
        for position in 0..4000 {
            match draw(&mix, position) {
                Mixing::Cutmix {
                    rows,
                    columns,
                    weight,
                } => {
                    cutmix += 1;
                    assert!(
                        rows.0 <= rows.1
                            && rows.1 <= 32
                            && columns.0 <= columns.1
                            && columns.1 <= 24
                    );
                    let area = ((rows.1 - rows.0) * (columns.1 - columns.0)) as f32;
                    assert!((weight - (1.0 - area / 768.0)).abs() < 1e-6);
                }
                Mixing::Mixup { weight } => assert!((0.0..=1.0).contains(&weight)),
                Mixing::None => panic!("a pair was not mixed"),
            }
        }
        // Expected are 2000 ± 4 · √1000.
        assert!((1873..2127).contains(&cutmix), "{cutmix}");
    }

    #[test]
    fn an_alpha_of_0_turns_a_mixture_off() {
        let is = |mixup, cutmix| {
            let mix = Mix {
                mixup_alpha: mixup,
                cutmix_alpha: cutmix,
                ..Mix::default()
            };
            let all: Vec<Mixing> = (0..200).map(|position| draw(&mix, position)).collect();
            let share = |is: fn(&Mixing) -> bool| all.iter().filter(|m| is(m)).count();
            [
                share(|m| matches!(m, Mixing::None)),
                share(|m| matches!(m, Mixing::Mixup { .. })),
                share(|m| matches!(m, Mixing::Cutmix { .. })),
            ]
        };
        assert_eq!(is(0.0, 0.0), [200, 0, 0]);
        assert_eq!(is(0.8, 0.0), [0, 200, 0]);
        assert_eq!(is(0.0, 1.0), [0, 0, 200]);
    }
}

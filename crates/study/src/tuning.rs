//! The learning rate: found at the base and transferred to other lengths by one rule.

/// Exponent with which the best rate decreases with the length of a run.
const LENGTH_EXPONENT: f64 = -1.0 / 3.0;

/// A search for a learning rate and its results.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Rates in ascending order, each with its loss if its run has ended.
    pub tries: Vec<(f64, Option<f64>)>,
    /// The best rate, once all runs have ended and no rate needs to be added.
    pub best: Option<f64>,
}

impl Curve {
    /// Looks up the losses of `rates`, adds at most `widenings` rates at an edge if the best one is there, and takes
    /// the minimum of the parabola through the best three.
    pub fn of(rates: &[f64], widenings: usize, loss: impl Fn(f64) -> Option<f64>) -> Self {
        let mut tries: Vec<(f64, Option<f64>)> = rates.iter().map(|&lr| (lr, loss(lr))).collect();
        for added in 0..=widenings {
            let Some(best) = lowest(&tries) else {
                return Self { tries, best: None };
            };
            if best > 0 && best + 1 < tries.len() {
                let best = vertex(&tries[best - 1..=best + 1]);
                return Self { tries, best };
            }
            if added == widenings {
                break;
            }
            match best {
                0 => {
                    let lr = significant(tries[0].0 / std::f64::consts::SQRT_2, 3);
                    tries.insert(0, (lr, loss(lr)));
                }
                last => {
                    let lr = significant(tries[last].0 * std::f64::consts::SQRT_2, 3);
                    tries.push((lr, loss(lr)));
                }
            }
        }
        let best = lowest(&tries).map(|best| tries[best].0);
        Self { tries, best }
    }
}

/// Number of the lowest loss, if all are known. A run that diverged has an infinite one.
fn lowest(tries: &[(f64, Option<f64>)]) -> Option<usize> {
    let losses: Option<Vec<f64>> = tries.iter().map(|(_, loss)| *loss).collect();
    let losses = losses?;
    (0..losses.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b]))
}

/// The lowest point of the parabola in log rate through three tries, the middle one the lowest; in three digits.
fn vertex(three: &[(f64, Option<f64>)]) -> Option<f64> {
    let [a, b, c] = three else { return None };
    let [x0, x1, x2] = [a, b, c].map(|(lr, _)| lr.ln());
    let [y0, y1, y2] = [a, b, c].map(|(_, loss)| loss.unwrap_or(f64::INFINITY));
    let left = (x1 - x0) * (y1 - y2);
    let right = (x1 - x2) * (y1 - y0);
    let curvature = left - right;
    if !(curvature.is_finite() && curvature.abs() > 0.0) {
        return Some(b.0);
    }
    let x = x1 - 0.5 * ((x1 - x0) * left - (x1 - x2) * right) / curvature;
    Some(significant(x.clamp(x0, x2).exp(), 3))
}

/// The rate for a run of `steps`, where `best` was found with `tried_steps`.
pub fn for_length(best: f64, tried_steps: u64, steps: u64) -> f64 {
    let factor = (steps as f64 / tried_steps as f64).powf(LENGTH_EXPONENT);
    significant(best * factor, 4)
}

/// Rounds a number to `digits` significant digits, so that it is the same on every machine.
pub fn significant(x: f64, digits: usize) -> f64 {
    format!("{x:.*e}", digits.saturating_sub(1))
        .parse()
        .unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parabola in log rate with its lowest point at 2e-3.
    fn parabola(lr: f64) -> Option<f64> {
        Some(3.0 + (lr / 2e-3).ln().powi(2))
    }

    #[test]
    fn the_lowest_point_of_a_parabola_is_found() {
        let curve = Curve::of(&[1e-3, 1.5e-3, 2.5e-3, 4e-3], 3, parabola);
        assert_eq!(curve.best, Some(2e-3));
        assert_eq!(curve.tries.len(), 4);
    }

    #[test]
    fn the_grid_is_widened_until_the_best_is_inside() {
        let above = Curve::of(&[0.5e-3, 0.7e-3, 1e-3], 4, parabola);
        // 1.41e-3, then 1.99e-3, then 2.81e-3.
        assert_eq!(above.tries.len(), 6);
        assert_eq!(above.best, Some(2e-3));
        let below = Curve::of(&[4e-3, 5.6e-3, 8e-3], 4, parabola);
        assert_eq!(below.tries[0].0, 1.41e-3);
        assert_eq!(below.best, Some(2e-3));
    }

    #[test]
    fn an_unfinished_try_leaves_the_best_open() {
        let partly = |lr: f64| (lr < 2e-3).then_some(3.0);
        assert_eq!(Curve::of(&[1e-3, 2e-3, 3e-3], 2, partly).best, None);
        // A best at the edge asks for a further try first.
        let known = |lr: f64| (lr > 0.9e-3).then_some(lr * 1e3);
        let curve = Curve::of(&[1e-3, 2e-3, 3e-3], 2, known);
        assert_eq!((curve.tries[0], curve.best), ((7.07e-4, None), None));
    }

    #[test]
    fn a_diverged_try_is_never_the_best() {
        let loss = |lr: f64| match lr > 2.5e-3 {
            true => Some(f64::INFINITY),
            false => parabola(lr),
        };
        let best = Curve::of(&[1e-3, 1.5e-3, 2e-3, 3e-3], 0, loss).best;
        assert_eq!(best, Some(2e-3));
    }

    #[test]
    fn longer_runs_learn_at_the_cube_root() {
        assert_eq!(for_length(2e-3, 1000, 1000), 2e-3);
        assert_eq!(for_length(2e-3, 1000, 8000), 1e-3);
    }
}

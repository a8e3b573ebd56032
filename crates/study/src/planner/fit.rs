//! Fits the law to observations, with what is known from elsewhere as a prior.

use super::evidence::Observation;
use super::law::{Law, PARAMETERS};
use tokenformer_core::init::normal;

/// Residuals beyond this number of standard deviations count linearly (Huber 1964).
const HUBER: f64 = 1.345;
/// Smallest relative error of a measured loss: seeds differ by about this much.
const LEAST_ERROR: f64 = 0.002;
const ITERATIONS: usize = 40;
/// Relative decrease of the sum of squares below which a fit has ended.
const TOLERANCE: f64 = 1e-5;
/// Rounds of fit and estimate of the error.
const ROUNDS: usize = 3;

/// What is known of a parameter before any measurement: its logarithm is normal.
#[derive(Clone, Copy)]
struct Prior {
    mean: f64,
    std: f64,
}

/// A fit of the law.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub law: Law,
    logs: [f64; PARAMETERS],
    /// Relative error of an observation.
    pub error: f64,
}

/// Observations with a scale of sizes and of tokens.
pub(super) struct Problem<'a> {
    observations: &'a [Observation],
    origin: [f64; 2],
    priors: [Prior; PARAMETERS],
}

impl<'a> Problem<'a> {
    /// A problem of at least one observation.
    pub fn new(observations: &'a [Observation]) -> Self {
        let count = observations.len().max(1) as f64;
        let mean = |of: &dyn Fn(&Observation) -> f64| {
            (observations.iter().map(|o| of(o).ln()).sum::<f64>() / count).exp()
        };
        let size = |o: &Observation| o.stages.last().map_or(1.0, |stage| stage.size);
        let origin = [mean(&size), mean(&Observation::tokens)];
        let lowest = observations
            .iter()
            .map(|o| o.loss)
            .fold(f64::INFINITY, f64::min);
        let prior = |mean: f64, std: f64| Prior {
            mean: mean.ln(),
            std,
        };
        Self {
            observations,
            origin,
            priors: [
                // Half of the loss of a small model is the text's own entropy, give or take a factor of 1.6.
                prior(0.5 * lowest, 0.5),
                prior(0.25 * lowest, 0.8),
                prior(0.25 * lowest, 0.8),
                // Exponents of Hoffmann et al. 2022 and of its replication by Besiroglu et al. 2024.
                prior(0.34, 0.3),
                prior(0.33, 0.3),
                // A decay lowers the loss by one to four percent.
                prior(0.02, 0.7),
                // Tokens of a grown model for one from scratch: no better, seldom half as good.
                prior(1.25, 0.25),
            ],
        }
    }

    /// Logarithm of the predicted loss; far off where the law predicts none.
    fn predicted(&self, law: &Law, observation: &Observation) -> f64 {
        let decayed = match observation.decayed {
            true => 0.0,
            false => law.undecayed.ln_1p(),
        };
        match law.loss_after(&observation.stages) {
            Some(loss) => loss.ln() + decayed,
            None => 10.0,
        }
    }

    /// Observations' and priors' residuals in standard deviations.
    fn residuals(&self, logs: &[f64; PARAMETERS], error: f64, moved: &[f64]) -> Vec<f64> {
        let law = Law::of(logs, self.origin);
        let moves = moved.iter().copied().chain(std::iter::repeat(0.0));
        let observed = self.observations.iter().zip(moves.clone());
        let observed = observed.map(|(o, by)| {
            let residual = (o.loss.ln() - self.predicted(&law, o)) / error + by;
            // The square root of Huber's loss, with the sign of the residual.
            match residual.abs() <= HUBER {
                true => residual,
                false => residual.signum() * (HUBER * (2.0 * residual.abs() - HUBER)).sqrt(),
            }
        });
        let priors = (logs.iter().zip(&self.priors))
            .zip(moves.skip(self.observations.len()))
            .map(|((log, prior), by)| (log - prior.mean) / prior.std + by);
        observed.chain(priors).collect()
    }

    /// The most probable law.
    pub fn fit(&self) -> Fit {
        let mut logs = self.priors.map(|prior| prior.mean);
        let mut error = 0.01;
        for _ in 0..ROUNDS {
            logs = self.minimum(logs, error, &[]);
            error = self.error(&logs);
        }
        Fit {
            law: Law::of(&logs, self.origin),
            logs,
            error,
        }
    }

    /// A law drawn near the most probable one: the minimum with measurements and priors moved by their own errors
    /// (randomized maximum a posteriori).
    pub fn draw(&self, fit: &Fit, number: u64) -> Law {
        let count = self.observations.len() + PARAMETERS;
        let moved = normal(number, "planner", count, 1.0);
        let moved: Vec<f64> = moved.into_iter().map(f64::from).collect();
        Law::of(&self.minimum(fit.logs, fit.error, &moved), self.origin)
    }

    /// Relative error of the observations, from the median of the residuals.
    fn error(&self, logs: &[f64; PARAMETERS]) -> f64 {
        let law = Law::of(logs, self.origin);
        let residual = |o: &Observation| (o.loss.ln() - self.predicted(&law, o)).abs();
        let mut residuals: Vec<f64> = self.observations.iter().map(residual).collect();
        residuals.sort_by(f64::total_cmp);
        let median = residuals.get(residuals.len() / 2).copied().unwrap_or(0.0);
        (1.4826 * median).max(LEAST_ERROR)
    }

    /// Least squares after Levenberg and Marquardt.
    fn minimum(&self, start: [f64; PARAMETERS], error: f64, moved: &[f64]) -> [f64; PARAMETERS] {
        const STEP: f64 = 1e-5;
        let squares = |residuals: &[f64]| residuals.iter().map(|r| r * r).sum::<f64>();
        let mut at = start;
        let mut here = self.residuals(&at, error, moved);
        let mut damping = 1e-2;
        for _ in 0..ITERATIONS {
            let columns: [Vec<f64>; PARAMETERS] = std::array::from_fn(|j| {
                let mut beside = at;
                beside[j] += STEP;
                let beside = self.residuals(&beside, error, moved);
                (beside.iter().zip(&here))
                    .map(|(b, h)| (b - h) / STEP)
                    .collect()
            });
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let mut improved = false;
            while damping < 1e8 {
                let normal: [[f64; PARAMETERS]; PARAMETERS] = std::array::from_fn(|i| {
                    std::array::from_fn(|j| {
                        let product = dot(&columns[i], &columns[j]);
                        if i == j {
                            product * (1.0 + damping)
                        } else {
                            product
                        }
                    })
                });
                let right = std::array::from_fn(|i| -dot(&columns[i], &here));
                let step = solve(normal, right);
                let next: [f64; PARAMETERS] =
                    std::array::from_fn(|i| (at[i] + step[i].clamp(-1.0, 1.0)).clamp(-50.0, 50.0));
                let there = self.residuals(&next, error, moved);
                let gain = squares(&here) - squares(&there);
                if gain > 0.0 {
                    improved = gain > TOLERANCE * squares(&here);
                    (at, here) = (next, there);
                    damping = (damping / 5.0).max(1e-12);
                    break;
                }
                damping *= 4.0;
            }
            if !improved {
                break;
            }
        }
        at
    }
}

/// Solves a symmetric system by elimination with pivots; the diagonal of the caller's is above 0.
fn solve<const N: usize>(mut matrix: [[f64; N]; N], mut right: [f64; N]) -> [f64; N] {
    for column in 0..N {
        let largest = |&a: &usize, &b: &usize| {
            let [a, b]: [f64; 2] = [matrix[a][column].abs(), matrix[b][column].abs()];
            a.total_cmp(&b)
        };
        let pivot = (column..N).max_by(largest).unwrap_or(column);
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let (above, below) = matrix.split_at_mut(column + 1);
        let pivot = &above[column];
        for (row, at) in below.iter_mut().zip(column + 1..) {
            let factor = row[column] / pivot[column];
            for (number, own) in row.iter_mut().zip(pivot) {
                *number -= factor * own;
            }
            right[at] -= factor * right[column];
        }
    }
    let mut solution = [0.0; N];
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N).map(|at| matrix[row][at] * solution[at]).sum();
        solution[row] = (right[row] - known) / matrix[row][row];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved() {
        let solution = solve(
            [[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 2.0]],
            [6.0, 4.0, 4.0],
        );
        for (got, expected) in solution.iter().zip([1.0, 2.0, 3.0]) {
            assert!((got - expected).abs() < 1e-12, "{solution:?}");
        }
    }
}

//! The statistics of the study: paired differences with a pooled error, corrections for many contrasts, equality.

mod curve;
mod losses;
mod student;

pub use curve::{Beyond, Curve};
pub use losses::Losses;
pub use student::{cdf, quantile};

use serde::Serialize;

/// Losses of arms (rows) by seed (columns), without missing values.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<(String, Vec<f64>)>,
}

/// A difference of two arms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contrast {
    /// A description of the comparison.
    pub name: String,
    /// Number of seeds that both have.
    pub seeds: usize,
    /// Mean over these seeds of the first minus the second.
    pub difference: f64,
    /// Its standard error.
    pub error: f64,
    /// Degrees of freedom of the error.
    pub freedom: f64,
    /// 95 % interval.
    pub interval: [f64; 2],
    /// Probability of a difference as large as this without any, two-sided.
    pub p: f64,
    /// The same after the correction for all contrasts of the study.
    pub p_corrected: f64,
}

impl Contrast {
    /// From a difference over some seeds and its error.
    pub fn new(name: String, seeds: usize, difference: f64, error: f64, freedom: f64) -> Self {
        let reach = quantile(0.975, freedom) * error;
        let p = match error > 0.0 {
            true => 2.0 * cdf(-(difference / error).abs(), freedom),
            false => 1.0,
        };
        Self {
            name,
            seeds,
            difference,
            error,
            freedom,
            interval: [difference - reach, difference + reach],
            p,
            p_corrected: p,
        }
    }

    /// Whether the two are equal within `margin` at 5 %, by two one-sided tests.
    pub fn is_equal_within(&self, margin: f64) -> bool {
        self.equality_p(margin) < 0.05
    }

    /// Larger probability of the two one-sided tests against a difference of `margin` or more.
    pub fn equality_p(&self, margin: f64) -> f64 {
        if self.error <= 0.0 {
            return 1.0;
        }
        let below = cdf((self.difference - margin) / self.error, self.freedom);
        let above = cdf(-(self.difference + margin) / self.error, self.freedom);
        below.max(above)
    }
}

impl Table {
    /// A table of the rows that have a loss for every seed.
    pub fn new(rows: impl IntoIterator<Item = (String, Vec<Option<f64>>)>) -> Self {
        let whole = |(name, losses): (String, Vec<Option<f64>>)| {
            let losses: Option<Vec<f64>> = losses.into_iter().collect();
            let losses = losses.filter(|losses| losses.iter().all(|loss| loss.is_finite()))?;
            Some((name, losses))
        };
        Self {
            rows: rows.into_iter().filter_map(whole).collect(),
        }
    }

    /// Names and losses of the arms.
    pub fn rows(&self) -> &[(String, Vec<f64>)] {
        &self.rows
    }

    /// A table of some of the rows.
    pub fn among(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.rows.iter().filter(|row| keep(&row.0));
        Self {
            rows: kept.cloned().collect(),
        }
    }

    /// Number of seeds.
    pub fn seeds(&self) -> usize {
        self.rows.first().map_or(0, |row| row.1.len())
    }

    /// The losses of an arm.
    pub fn losses(&self, arm: &str) -> Option<&[f64]> {
        let row = self.rows.iter().find(|row| row.0 == arm)?;
        Some(&row.1)
    }

    /// Standard error of the difference of two arms' means, and its degrees of freedom. It is computed from the
    /// residuals of the losses after subtracting the means of arm and seed, which must be independent between the arms; of
    /// two arms, it is that of their paired differences. `None` with fewer than two arms or seeds.
    pub fn error(&self) -> Option<(f64, f64)> {
        let (arms, seeds) = (self.rows.len(), self.seeds());
        if arms < 2 || seeds < 2 {
            return None;
        }
        let of_arms: Vec<f64> = self.rows.iter().map(|row| mean(&row.1)).collect();
        let of_seed =
            |seed: usize| self.rows.iter().map(|row| row.1[seed]).sum::<f64>() / arms as f64;
        let of_seeds: Vec<f64> = (0..seeds).map(of_seed).collect();
        let of_all = mean(&of_arms);
        let mut squares = 0.0;
        for (row, of_arm) in self.rows.iter().zip(&of_arms) {
            for (loss, of_seed) in row.1.iter().zip(&of_seeds) {
                squares += (loss - of_arm - of_seed + of_all).powi(2);
            }
        }
        let freedom = ((arms - 1) * (seeds - 1)) as f64;
        Some(((2.0 * squares / freedom / seeds as f64).sqrt(), freedom))
    }

    /// The paired difference of two arms.
    pub fn contrast(&self, name: String, arm: &str, reference: &str) -> Option<Contrast> {
        let (error, freedom) = self.error()?;
        let (a, b) = (self.losses(arm)?, self.losses(reference)?);
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let difference = mean(&differences);
        Some(Contrast::new(
            name,
            differences.len(),
            difference,
            error,
            freedom,
        ))
    }
}

/// Standard error of the mean, and its degrees of freedom; `None` for fewer than two numbers.
pub fn error_of_mean(numbers: &[f64]) -> Option<(f64, f64)> {
    let (middle, freedom) = (mean(numbers), numbers.len() as f64 - 1.0);
    let squares: f64 = numbers.iter().map(|x| (x - middle).powi(2)).sum();
    (freedom >= 1.0).then(|| ((squares / freedom / numbers.len() as f64).sqrt(), freedom))
}

/// The mean; NaN for an empty list.
pub fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// Corrects the probabilities of all contrasts of a family (Holm 1979).
pub fn holm(contrasts: &mut [Contrast]) {
    let mut order: Vec<usize> = (0..contrasts.len()).collect();
    order.sort_by(|&a, &b| contrasts[a].p.total_cmp(&contrasts[b].p));
    let (mut largest, count) = (0.0_f64, order.len());
    for (rank, at) in order.into_iter().enumerate() {
        largest = largest.max(contrasts[at].p * (count - rank) as f64);
        contrasts[at].p_corrected = largest.min(1.0);
    }
}

/// Spearman's rank correlation of pairs; `None` for fewer than three, or where one side does not vary.
pub fn rank_correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let ranks = |of: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        let numbers: Vec<f64> = pairs.iter().map(of).collect();
        // The mean rank of equal numbers.
        let rank = |x: &f64| {
            let below = numbers.iter().filter(|y| *y < x).count() as f64;
            let equal = numbers.iter().filter(|y| *y == x).count() as f64;
            below + (equal - 1.0) / 2.0
        };
        numbers.iter().map(rank).collect()
    };
    let (a, b) = (ranks(|p| p.0), ranks(|p| p.1));
    let (ma, mb) = (mean(&a), mean(&b));
    let products: f64 = a.iter().zip(&b).map(|(x, y)| (x - ma) * (y - mb)).sum();
    let squares = |of: &[f64], m: f64| of.iter().map(|x| (x - m).powi(2)).sum::<f64>();
    let scale = (squares(&a, ma) * squares(&b, mb)).sqrt();
    (scale > 0.0).then(|| products / scale)
}

//! Metrics and their standard errors, as lm-eval 0.4 computes them.
//!
//! * Means: the sample standard deviation over `√n`.
//! * Perplexity: the standard deviation of 100,000 bootstrap replicates, drawn by Python's random
//!   generator with the seeds `0..100` as lm-eval does, so that the digits agree.

use std::ops::Range;

use rand_mt::Mt;
use rayon::prelude::*;

/// The index of the largest value, the first if several are equal; 0 if there are none.
///
/// ```
/// assert_eq!(tokenformer_tasks::metrics::argmax([-2.0, -1.0, -1.0]), 1);
/// ```
pub fn argmax(values: impl IntoIterator<Item = f64>) -> usize {
    let mut best: Option<(usize, f64)> = None;
    for (i, value) in values.into_iter().enumerate() {
        if best.is_none_or(|(_, most)| value > most) {
            best = Some((i, value));
        }
    }
    best.map_or(0, |(i, _)| i)
}

/// Arithmetic mean; NaN for none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard error of the mean; `None` for fewer than two values.
///
/// ```
/// use tokenformer_tasks::metrics::mean_stderr;
///
/// // Deviations ±1/2: √(4·¼ / 3) / √4.
/// let stderr = mean_stderr(&[1.0, 0.0, 1.0, 0.0]).unwrap();
/// assert!((stderr - (1.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-15);
/// assert_eq!(mean_stderr(&[1.0]), None);
/// ```
pub fn mean_stderr(values: &[f64]) -> Option<f64> {
    Some(deviation(values)? / (values.len() as f64).sqrt())
}

/// Sample standard deviation.
fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// `exp(−mean)` of log-likelihoods: per example, not per token.
pub fn perplexity(logliks: &[f64]) -> f64 {
    (-mean(logliks)).exp()
}

/// Replicates that share a seed.
const REPLICATES_PER_SEED: usize = 1000;
/// The seeds.
const SEEDS: Range<u32> = 0..100;

/// Bootstrap standard error of [`perplexity`]; `None` for fewer than two values. Takes some seconds for
/// thousands of values.
pub fn perplexity_stderr(logliks: &[f64]) -> Option<f64> {
    if logliks.len() < 2 {
        return None;
    }
    let replicates: Vec<f64> = SEEDS
        .into_par_iter()
        .flat_map_iter(|seed| {
            let mut random = PythonRandom::new(seed);
            (0..REPLICATES_PER_SEED).map(move |_| {
                let drawn = (0..logliks.len()).map(|_| random.choose(logliks));
                (-(drawn.sum::<f64>() / logliks.len() as f64)).exp()
            })
        })
        .collect();
    deviation(&replicates)
}

/// Python's `random.Random`.
struct PythonRandom(Mt);

impl PythonRandom {
    fn new(seed: u32) -> Self {
        Self(Mt::new_with_key([seed]))
    }

    /// `random()`: 53 bits, in [0, 1).
    fn unit(&mut self) -> f64 {
        let (high, low) = (self.0.next_u32() >> 5, self.0.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// One draw of `choices`.
    fn choose(&mut self, from: &[f64]) -> f64 {
        let at = (self.unit() * from.len() as f64) as usize;
        from.get(at).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::PythonRandom;

    #[test]
    fn draws_are_pythons() {
        // random.Random(0).random() and random.Random(7).random(), twice each.
        let draw = |seed| {
            let mut random = PythonRandom::new(seed);
            [random.unit(), random.unit()]
        };
        assert_eq!(draw(0), [0.8444218515250481, 0.7579544029403025]);
        assert_eq!(draw(7), [0.32383276483316237, 0.15084917392450192]);
    }
}

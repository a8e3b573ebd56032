//! Random numbers as a function of (seed, purpose, position).

/// The purpose of random numbers; each purpose has a separate stream at every position.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// The order of an epoch.
    Order = 1,
    /// Crops, flips, RandAugment and erasing of a sample.
    Augment = 2,
    /// Mixup and cutmix of a pair of samples.
    Mix = 3,
    /// The shape of a class of fractals.
    FractalClass = 4,
    /// One fractal.
    Fractal = 5,
}

/// A stream of numbers: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Draws {
    state: u64,
}

impl Draws {
    pub(crate) fn new(seed: u64, purpose: Purpose, position: u64) -> Self {
        let state = [purpose as u64, position]
            .into_iter()
            .fold(finalize(seed), |state, part| {
                finalize(state.wrapping_add(INCREMENT) ^ part)
            });
        Self { state }
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(INCREMENT);
        finalize(self.state)
    }

    /// A number in [0, 1), in steps of 2^-53.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// A number in [`low`, `high`).
    pub(crate) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number below `count`, which is at least 1.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// `value` or its negative, with equal chances.
    pub(crate) fn sign(&mut self, value: f64) -> f64 {
        if self.chance(0.5) { -value } else { value }
    }

    /// A normal number with mean 0 and deviation 1, by Marsaglia's polar method.
    pub(crate) fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (self.uniform(-1.0, 1.0), self.uniform(-1.0, 1.0));
            let s = x * x + y * y;
            if s > 0.0 && s < 1.0 {
                return x * (-2.0 * s.ln() / s).sqrt();
            }
        }
    }

    /// A number with the distribution Beta(`alpha`, `alpha`), as the share of one of two gamma variables.
    pub(crate) fn beta(&mut self, alpha: f64) -> f64 {
        let (x, y) = (self.gamma(alpha), self.gamma(alpha));
        // Both are 0 only for a tiny alpha, for which 0 and 1 are equally likely.
        if x + y > 0.0 {
            x / (x + y)
        } else {
            f64::from(u8::from(self.chance(0.5)))
        }
    }

    /// A gamma number of shape `shape` and scale 1: Marsaglia and Tsang (2000); for shapes below 1 with the exponent
    /// 1/shape.
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let power = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * power;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// The numbers below `count` in a random order (Fisher and Yates).
    pub(crate) fn permutation(&mut self, count: usize) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..count as u32).collect();
        for last in (1..count).rev() {
            numbers.swap(last, self.below(last + 1));
        }
        numbers
    }
}

const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

fn finalize(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Draw = Box<dyn FnMut(&mut Draws) -> f64>;

    fn draws(position: u64) -> Draws {
        Draws::new(7, Purpose::Augment, position)
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_position() {
        let first = |seed, purpose, position| Draws::new(seed, purpose, position).bits();
        let one = first(1, Purpose::Augment, 0);
        assert_eq!(one, first(1, Purpose::Augment, 0));
        assert_ne!(one, first(2, Purpose::Augment, 0));
        assert_ne!(one, first(1, Purpose::Mix, 0));
        assert_ne!(one, first(1, Purpose::Augment, 1));
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        const COUNT: usize = 100_000;
        let moments = |mut draw: Draw| {
            let mut draws = draws(3);
            let values: Vec<f64> = (0..COUNT).map(|_| draw(&mut draws)).collect();
            let mean = values.iter().sum::<f64>() / COUNT as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / COUNT as f64;
            (mean, variance)
        };
        let cases: [(Draw, f64, f64); 5] = [
            (Box::new(Draws::unit), 0.5, 1.0 / 12.0),
            (Box::new(Draws::normal), 0.0, 1.0),
            // Variance of Beta(a, a): 1 / (4 (2a + 1)).
            (Box::new(|d| d.beta(0.8)), 0.5, 1.0 / 10.4),
            (Box::new(|d| d.beta(1.0)), 0.5, 1.0 / 12.0),
            (Box::new(|d| d.beta(3.0)), 0.5, 1.0 / 28.0),
        ];
        for (number, (draw, mean, variance)) in cases.into_iter().enumerate() {
            let got = moments(draw);
            // The mean must be within four standard deviations, the variance within 3 %.
            assert!(
                (got.0 - mean).abs() < 4.0 * (variance / COUNT as f64).sqrt(),
                "{number}: {got:?}"
            );
            assert!((got.1 / variance - 1.0).abs() < 0.03, "{number}: {got:?}");
        }
    }

    /// Compares Beta(0.8, 0.8) with its distribution function, integrated numerically, by a Kolmogorov-Smirnov test.
    #[test]
    fn beta_follows_its_distribution() {
        const COUNT: usize = 20_000;
        let mut draws = draws(4);
        let mut values: Vec<f64> = (0..COUNT).map(|_| draws.beta(0.8)).collect();
        values.sort_by(f64::total_cmp);
        // With x = sin²t the density has no poles: the integrand is sin^0.6 t · cos^0.6 t.
        const STEPS: usize = 20_000;
        let quarter = std::f64::consts::FRAC_PI_2;
        let mut cumulative = vec![0.0];
        for step in 0..STEPS {
            let t = (step as f64 + 0.5) / STEPS as f64 * quarter;
            cumulative.push(cumulative[step] + (t.sin() * t.cos()).powf(0.6));
        }
        let total = cumulative[STEPS];
        let largest = values.iter().enumerate().map(|(rank, x)| {
            let t = x.sqrt().asin() / quarter;
            let expected = cumulative[(t * STEPS as f64) as usize] / total;
            (expected - (rank as f64 + 0.5) / COUNT as f64).abs()
        });
        // The critical value at a level of 0.1 %.
        let largest = largest.fold(0.0, f64::max);
        assert!(largest < 1.95 / (COUNT as f64).sqrt(), "{largest}");
    }

    #[test]
    fn permutations_hold_every_number_and_vary() {
        let order = draws(5).permutation(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
        let fixed = order.iter().zip(0..).filter(|&(&a, b)| a == b).count();
        assert!(fixed < 10, "{fixed} stay in place");
        assert_eq!(draws(5).permutation(1), [0]);
    }
}

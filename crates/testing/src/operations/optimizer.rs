//! Steps of the optimizer.

use super::{Found, Suite, gradients, read, statistics, weights};
use crate::Random;
use std::sync::Arc;
use tokenformer_device::{Adam, AdamStep, Device, Role, Temp};

const ADAM: Adam = Adam {
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
};

/// A step of an optimizer for two parameters in two groups, as one would record it.
fn step(device: &Arc<dyn Device>, numbers: &[Vec<f32>; 2], limit: f64, moments: Role) -> Found {
    let mut sums = Temp::new(device, 2, Role::Accumulator)?;
    device.zero(&mut sums)?;
    let g = [
        gradients(&**device, &numbers[0])?,
        gradients(&**device, &numbers[1])?,
    ];
    for (group, g) in g.iter().enumerate() {
        device.sum_of_squares(g, &mut sums, group)?;
        device.sum_of_squares(g, &mut sums, group)?;
    }
    let mut copied = device.alloc(2, Role::Accumulator)?;
    device.copy(&sums, &mut copied)?;
    let mut host = [f64::NAN; 2];
    device.read_accumulator(&copied, &mut host)?;
    let mut factors = Temp::new(device, 2, Role::Statistic)?;
    device.clip_factors(&sums, limit, &mut factors)?;
    let scalars = [ADAM.scalars(0.01, 0.1, 1), ADAM.scalars(0.02, 0.0, 3)].concat();
    let scalars = statistics(&**device, &scalars)?;
    let mut found = vec![
        host.map(|sum| sum as f32).to_vec(),
        read(&**device, &factors)?,
    ];
    for (slot, g) in g.iter().enumerate() {
        let mut p = weights(&**device, &vec![1.0; g.len()])?;
        let [mut m, mut v] = [
            device.alloc(g.len(), moments)?,
            device.alloc(g.len(), moments)?,
        ];
        let step = AdamStep {
            adam: ADAM,
            scalars: &scalars,
            slot,
            factors: &factors,
            group: slot,
        };
        device.adamw(step, &mut p, g, &mut m, &mut v)?;
        for numbers in [&p, &m, &v] {
            found.push(read(&**device, numbers)?);
        }
    }
    Ok(found)
}

impl Suite {
    /// Steps with and without clipping, with moments in f32 and rounded, of `len` numbers and of a few.
    pub fn steps_of_the_optimizer(&self, len: usize) {
        let mut random = Random::new(11);
        let gradients = [random.normals(len, 1.0), random.normals(33, 0.01)];
        for limit in [0.0, 1.0, 1e9] {
            self.agree("a step", 2e-6, |device| {
                step(device, &gradients, limit, Role::Moment)
            });
            // Rounding to bfloat16 moves a number by up to 2^-9 of itself.
            self.agree("a step with rounded moments", 4e-3, |device| {
                step(device, &gradients, limit, Role::HalfMoment)
            });
        }
        // 100 clipped to 1 by the first group's own norm; the second is below the limit.
        let [got, _] = self.both(|device| {
            let gradients = [vec![6.0, 8.0], vec![0.5]];
            step(device, &gradients, 1.0, Role::Moment)
        });
        assert_eq!(got[0], [200.0, 0.5]);
        assert_eq!(got[1], [(1.0 / (200f64.sqrt() + 1e-6)) as f32, 1.0]);
    }

    /// Sums of squares of `len` numbers of each kind that is measured: gradients, and what flows through the network.
    pub fn sums_of_squares(&self, len: usize, seed: u64) {
        let numbers = Random::new(seed).normals(len, 1.0);
        for role in [Role::Gradient, Role::Activation, Role::Weight] {
            self.agree("sums of squares", 1e-6, |device| {
                let x = device.alloc_from(numbers.clone(), role)?;
                let mut sums = device.alloc(3, Role::Accumulator)?;
                for group in [0, 2, 2] {
                    device.sum_of_squares(&x, &mut sums, group)?;
                }
                let mut host = [f64::NAN; 3];
                device.read_accumulator(&sums, &mut host)?;
                Ok(vec![host.map(|sum| sum as f32).to_vec()])
            });
        }
    }

    /// A gradient that is not finite changes nothing.
    pub fn gradients_that_are_not_finite(&self) {
        for bad in [f32::NAN, f32::INFINITY] {
            let gradients = [vec![1.0, bad], vec![0.5]];
            for found in self.both(|device| step(device, &gradients, 1.0, Role::Moment)) {
                assert!(found[1].iter().all(|factor| factor.is_nan()));
                assert_eq!(found[2..5], [vec![1.0; 2], vec![0.0; 2], vec![0.0; 2]]);
                assert_eq!(found[5..8], [vec![1.0], vec![0.0], vec![0.0]]);
            }
        }
    }
}

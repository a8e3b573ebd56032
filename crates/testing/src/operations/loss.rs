//! The loss through an output head.

use super::{Found, Suite, buffer, gradients, read_all, statistics, weights};
use crate::Random;
use std::sync::Arc;
use tokenformer_device::{Device, Head, LossGradient, Role, Targets, Temp};

/// A head and its targets: classes, the same as soft targets of one 1, and soft targets that need not add up to 1.
struct Case {
    rows: usize,
    width: usize,
    hidden: Vec<f32>,
    table: Vec<f32>,
    bias: Vec<f32>,
    classes: Vec<u32>,
    one_hot: Vec<f32>,
    soft: Vec<f32>,
}

impl Case {
    fn new([rows, classes, width]: [usize; 3], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let bias = random.normals(classes, 1.0);
        let hidden = random.normals(rows * width, 1.0);
        let table = random.normals(classes * width, 0.5);
        let soft = random.normals(rows * classes, 1.0);
        let index = random.tokens(rows, classes);
        let mut one_hot = vec![0.0; rows * classes];
        for (row, &class) in index.iter().enumerate() {
            one_hot[row * classes + class as usize] = 1.0;
        }
        Self {
            rows,
            width,
            hidden,
            table,
            bias,
            classes: index,
            one_hot,
            soft: soft.iter().map(|x| x.abs()).collect(),
        }
    }

    fn run(&self, device: &Arc<dyn Device>, frozen: bool, biased: bool) -> Found {
        let (hidden, table) = (
            buffer(&**device, &self.hidden)?,
            weights(&**device, &self.table)?,
        );
        let bias = weights(&**device, &self.bias)?;
        let head = Head {
            hidden: &hidden,
            table: &table,
            bias: biased.then_some(&bias),
            scale: 0.6,
            width: self.width,
        };
        let classes = Temp::indices(device, &self.classes)?;
        let (one_hot, soft) = (
            statistics(&**device, &self.one_hot)?,
            statistics(&**device, &self.soft)?,
        );
        let mut found = Vec::new();
        for targets in [
            Targets::Classes(&classes),
            Targets::Soft(&one_hot),
            Targets::Soft(&soft),
        ] {
            let mut losses = Temp::new(device, self.rows, Role::Statistic)?;
            let mut evaluated = Temp::new(device, self.rows, Role::Statistic)?;
            let mut d_hidden = Temp::new(device, hidden.len(), Role::Activation)?;
            let mut d_table = gradients(&**device, &vec![0.25; table.len()])?;
            let mut d_bias = gradients(&**device, &vec![0.25; bias.len()])?;
            let gradient = LossGradient {
                weight: 1.0 / self.rows as f32,
                d_hidden: &mut d_hidden,
                d_table: (!frozen).then_some(&mut d_table),
                d_bias: biased.then_some(&mut d_bias),
            };
            device.loss(head, targets, &mut losses, Some(gradient))?;
            device.loss(head, targets, &mut evaluated, None)?;
            let results = [&*losses, &evaluated, &d_hidden, &d_table, &d_bias];
            found.extend(read_all(&**device, results)?);
        }
        Ok(found)
    }
}

impl Suite {
    /// Losses and gradients of `[rows, classes, width]`. Classes are soft targets of one 1; soft targets need not add up
    /// to 1.
    pub fn losses(&self, sizes: [usize; 3], frozen: bool, biased: bool, seed: u64) {
        let (case, rows) = (Case::new(sizes, seed), sizes[0]);
        let [got, want] = self.both(|device| case.run(device, frozen, biased));
        let bar = 1e-5f32.max(self.least_bar as f32);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            // A class that is nearly certain leaves rounding only: errors count against 1 and against the weights.
            let size = want.iter().fold(1.0 / rows as f32, |m, x| m.max(x.abs()))
                * if i < 10 { 4.0 } else { 1.0 };
            for (got, want) in got.iter().zip(want) {
                let off = (got - want).abs();
                assert!(
                    off <= bar * size.max(got.abs()) + bar / 10.0,
                    "result {i}: {got} is not {want}"
                );
            }
        }
        for (class, hot) in got[..5].iter().zip(&got[5..10]) {
            for (class, hot) in class.iter().zip(hot) {
                let off = (class - hot).abs();
                assert!(off <= bar * class.abs() + 0.3 * bar, "{class} and {hot}");
            }
        }
    }
}

//! Rows: by index, norms, `Θ`, rotation, caches.

use super::{Suite, buffer, gradients, read, read_all, weights};
use crate::Random;
use tokenformer_device::{
    Buffer, KeptForNorm, NormSpan, Role, RotaryDims, RotaryTable, RowsToStore, Segment, Site, Temp,
    Theta, Write,
};

impl Suite {
    /// Rows by index, from buffers of indices that are copied, zeroed and lie in temporary memory.
    pub fn rows_by_index(&self, count: usize, table_rows: usize, width: usize, seed: u64) {
        let mut random = Random::new(seed);
        let index = random.tokens(count, table_rows);
        let (table, dy) = (
            random.normals(table_rows * width, 1.0),
            random.normals(count * width, 1.0),
        );
        self.agree("rows by index", 1e-5, |device| {
            let index = Temp::indices(device, &index)?;
            let mut copied = device.alloc(count, Role::Index)?;
            device.copy(&index, &mut copied)?;
            let mut zeros = Temp::new(device, count, Role::Index)?;
            device.zero(&mut zeros)?;
            let (table, dy) = (weights(&**device, &table)?, buffer(&**device, &dy)?);
            let mut found = Vec::new();
            for index in [&*index, &copied, &zeros] {
                let mut y = Temp::new(device, count * width, Role::Activation)?;
                device.gather_rows(&table, index, width, &mut y)?;
                let mut d_table = device.alloc(table_rows * width, Role::Gradient)?;
                device.scatter_add_rows(index, &dy, width, &mut d_table)?;
                // Also between activations.
                let mut of_rows = Temp::new(device, count * width, Role::Activation)?;
                device.zero(&mut of_rows)?;
                device.scatter_add_rows(&zeros, &y, width, &mut of_rows)?;
                let mut again = Temp::new(device, count * width, Role::Activation)?;
                device.gather_rows(&of_rows, &zeros, width, &mut again)?;
                found.extend(read_all(&**device, [&*y, &d_table, &of_rows, &again])?);
            }
            Ok(found)
        });
    }

    /// `Θ` as a separate operation, of every kind; the backward pass returns the weights, too.
    pub fn theta_of_scores(&self, rows: usize, tokens: &[usize], joint: bool, seed: u64) {
        let mut random = Random::new(seed);
        let n: usize = tokens.iter().sum();
        let (scores, d_weights) = (random.normals(rows * n, 1.0), random.normals(rows * n, 1.0));
        for theta in Theta::ALL {
            let mut scores = scores.clone();
            if theta == Theta::Softmax {
                // Its exponential is too large for f32, unless the largest score was found, here the first, and taken away.
                scores[0] = 120.0;
            }
            let what = format!("{theta} of {rows} rows of {tokens:?}");
            self.agree(&what, 3e-5, |device| {
                let nothing = device.alloc(0, Role::Weight)?;
                let segment = |&tokens: &usize| Segment {
                    keys: &nothing,
                    values: &nothing,
                    tokens,
                    tau: (tokens as f32).sqrt(),
                };
                let segments: Vec<Segment<&Buffer>> = tokens.iter().map(segment).collect();
                let norm = if joint {
                    NormSpan::Joint
                } else {
                    NormSpan::Segment
                };
                let site = Site {
                    theta,
                    norm,
                    tau: 3.0,
                    eps: 1e-6,
                    segments: &segments,
                };
                let mut weights = buffer(&**device, &scores)?;
                let mut stats = Temp::new(device, rows * site.groups(), Role::Statistic)?;
                device.theta(&site, &mut weights, &mut stats)?;
                let mut again = buffer(&**device, &scores)?;
                let mut d = buffer(&**device, &d_weights)?;
                device.theta_backward(&site, &mut again, &stats, &mut d)?;
                read_all(&**device, [&weights, &*stats, &again, &d])
            });
        }
    }

    /// LayerNorm and its gradients, with and without gain and bias.
    pub fn layer_norms(&self, rows: usize, width: usize, seed: u64) {
        let mut random = Random::new(seed);
        let [x, dy, start] = [(); 3].map(|()| random.normals(rows * width, 1.5));
        let [gain, bias] = [(); 2].map(|()| random.normals(width, 1.0));
        for affine in [false, true] {
            let what = format!("a norm of {rows} rows of {width}, affine: {affine}");
            self.agree(&what, 2e-5, |device| {
                let (x, dy) = (buffer(&**device, &x)?, buffer(&**device, &dy)?);
                let (gain, bias) = (weights(&**device, &gain)?, weights(&**device, &bias)?);
                let mut y = Temp::new(device, x.len(), Role::Activation)?;
                let mut stats = Temp::new(device, 2 * rows, Role::Statistic)?;
                let both = affine.then_some([&gain, &bias]);
                device.layer_norm(&x, both, 0.1, width, &mut y, &mut stats)?;
                let gain = affine.then_some(&gain);
                let mut dx = Temp::new(device, x.len(), Role::Activation)?;
                let kept = KeptForNorm::Input(&x);
                device.layer_norm_backward(
                    kept,
                    &stats,
                    gain,
                    &dy,
                    width,
                    Write::Replace,
                    &mut dx,
                )?;
                let mut added = buffer(&**device, &start)?;
                let kept = if affine {
                    kept
                } else {
                    KeptForNorm::Output(&y)
                };
                device.layer_norm_backward(
                    kept,
                    &stats,
                    gain,
                    &dy,
                    width,
                    Write::Add,
                    &mut added,
                )?;
                let ones = vec![1.0; width];
                let (mut d_gain, mut d_bias) =
                    (gradients(&**device, &ones)?, gradients(&**device, &ones)?);
                device.layer_norm_backward_affine(&x, &stats, &dy, &mut d_gain, &mut d_bias)?;
                read_all(&**device, [&*y, &stats, &dx, &added, &d_gain, &d_bias])
            });
        }
    }

    /// Rotation and its inverse, and rows copied into a cache.
    pub fn rotations_and_caches(&self, seed: u64) {
        let dims = RotaryDims {
            length: 5,
            heads: 3,
            channels: 10,
            first: 4,
        };
        let x = Random::new(seed).normals(2 * 5 * 30, 1.0);
        self.agree("rotation and cache", 1e-6, |device| {
            let [cos, sin] = RotaryTable::numbers(9, 6, 10_000.0);
            let table = RotaryTable {
                dims: 6,
                cos: device.alloc_from(cos, Role::Weight)?,
                sin: device.alloc_from(sin, Role::Weight)?,
            };
            let mut turned = buffer(&**device, &x)?;
            device.rotate(&table, dims, false, &mut turned)?;
            let mut cache = device.alloc(2 * 12 * 30, Role::Activation)?;
            let rows = RowsToStore {
                batch: 2,
                length: 5,
                width: 30,
                at: 7,
                capacity: 12,
            };
            device.store_rows(&turned, rows, &mut cache)?;
            let mut found = read_all(&**device, [&turned, &cache])?;
            device.rotate(&table, dims, true, &mut turned)?;
            found.push(read(&**device, &turned)?);
            Ok(found)
        });
    }
}

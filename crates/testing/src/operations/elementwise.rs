//! Operations on each number, or on each number and its row or column.

use super::{Suite, buffer, gradients, read_all, statistics, weights};
use crate::Random;
use tokenformer_device::{Role, Temp, Write};

impl Suite {
    /// GELU, biases, factors of rows, sums.
    pub fn gelu_and_biases(&self, rows: usize, width: usize, seed: u64) {
        let mut random = Random::new(seed);
        let [x, dy, start] = [(); 3].map(|()| random.normals(rows * width, 1.5));
        let [bias, d_bias] = [(); 2].map(|()| random.normals(width, 1.0));
        let factors = random.normals(rows, 1.0);
        self.agree("gelu and biases", 1e-5, |device| {
            let [x, dy] = [&x, &dy].map(|numbers| buffer(&**device, numbers));
            let (x, dy) = (x?, dy?);
            let temp = || Temp::new(device, x.len(), Role::Activation);
            let (mut y, mut dx) = (temp()?, temp()?);
            device.gelu(&x, &mut y)?;
            device.gelu_backward(&x, &dy, &mut dx)?;
            let mut sum = buffer(&**device, &start)?;
            device.add_to_rows(&weights(&**device, &bias)?, &mut sum)?;
            let mut added = buffer(&**device, &start)?;
            device.add(&x, &mut added)?;
            let mut d_bias = gradients(&**device, &d_bias)?;
            device.sum_rows(&dy, &mut d_bias)?;
            let (factors, mut scaled) =
                (statistics(&**device, &factors)?, buffer(&**device, &start)?);
            device.scale_rows(&dy, &factors, Write::Add, &mut scaled)?;
            let mut replaced = temp()?;
            device.scale_rows(&x, &factors, Write::Replace, &mut replaced)?;
            let found = [&*y, &dx, &sum, &added, &d_bias, &scaled, &replaced];
            read_all(&**device, found)
        });
    }

    /// Averages of weights, and parts of buffers.
    pub fn averages_and_parts(&self, len: usize, seed: u64) {
        let mut random = Random::new(seed);
        let [x, y] = [(); 2].map(|()| random.normals(len, 1.0));
        self.agree("an average", 1e-6, |device| {
            let (x, mut y) = (weights(&**device, &x)?, weights(&**device, &y)?);
            device.lerp(0.25, &x, &mut y)?;
            device.lerp(0.5, &x, &mut y)?;
            let mut part = vec![f32::NAN; len - len / 3];
            device.read_part(&y, len / 3, &mut part)?;
            let mut copy = device.alloc(len, Role::Weight)?;
            device.copy(&y, &mut copy)?;
            device.zero(&mut y)?;
            let mut found = read_all(&**device, [&y, &copy])?;
            found.push(part);
            Ok(found)
        });
    }
}

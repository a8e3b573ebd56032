//! Products of parts of buffers.

use super::{Suite, bits, buffer, read};
use crate::Random;
use tokenformer_device::reference::Reference;
use tokenformer_device::{Device, Matmul, Operand, Output, Result, Write};

/// A product inside of larger buffers.
#[derive(Clone, Debug)]
pub struct Product {
    /// Rows, length of the sums, columns.
    pub shape: [usize; 3],
    /// Whether the factors are stored transposed.
    pub transposed: [bool; 2],
    /// Numbers before each matrix.
    pub offset: usize,
    /// Numbers between the rows of each matrix.
    pub gap: usize,
    /// Whether the product is added to numbers that are there.
    pub write: Write,
    /// Factor of the product.
    pub scale: f32,
    /// Of the numbers.
    pub seed: u64,
}

impl Product {
    /// The whole buffer that `C` lies in, after the product.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run(&self, device: &dyn Device) -> Result<Vec<f32>> {
        let [m, k, n] = self.shape;
        let mut random = Random::new(self.seed);
        let mut stored = |rows: usize, cols: usize| {
            let stride = cols + self.gap;
            let numbers = random.normals(self.offset + rows * stride, 1.0);
            Ok::<_, tokenformer_device::DeviceError>((buffer(device, &numbers)?, stride))
        };
        let turned = |rows, cols, transposed| match transposed {
            false => (rows, cols),
            true => (cols, rows),
        };
        let [ta, tb] = self.transposed;
        let (rows, cols) = turned(m, k, ta);
        let (a, a_stride) = stored(rows, cols)?;
        let (rows, cols) = turned(k, n, tb);
        let (b, b_stride) = stored(rows, cols)?;
        let (mut c, c_stride) = stored(m, n)?;
        let operand = |buffer, row_stride, transposed| Operand {
            buffer,
            offset: self.offset,
            row_stride,
            transposed,
        };
        let product = Matmul {
            a: operand(&a, a_stride, ta),
            b: operand(&b, b_stride, tb),
            rows: m,
            inner: k,
            cols: n,
            scale: self.scale,
        };
        let output = Output {
            buffer: &mut c,
            offset: self.offset,
            row_stride: c_stride,
        };
        device.matmul(product, self.write, output)?;
        read(device, &c)
    }

    /// Fails if a number of the buffer that `C` lies in is off by more than `bar`, times the usual size of a sum.
    fn assert_near(&self, got: &[f32], want: &[f32], bar: f32) {
        let size = (self.shape[1] as f32).sqrt().max(1.0);
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let off = (got - want).abs();
            assert!(off <= bar * size, "{i} is {got}, not {want}: {self:?}");
        }
    }
}

impl Suite {
    /// Places of the matrices, transposed factors and added outputs; numbers around the output stay unchanged. Numbers
    /// are off by no more than `bar`, times the usual size of a sum.
    pub fn product(&self, case: &Product, bar: f32) {
        let want = case.run(&*Reference::new()).expect("memory");
        let mut first: Option<Vec<u32>> = None;
        for device in &self.devices {
            let got = case
                .run(&**device)
                .unwrap_or_else(|error| panic!("{error}"));
            case.assert_near(&got, &want, bar);
            let first = first.get_or_insert_with(|| bits(&got));
            assert_eq!(*first, bits(&got), "two devices: {case:?}");
        }
    }
}

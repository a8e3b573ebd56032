//! The kernels for products on the emulator, in several orders of threads, against sums in f64.
#![cfg(feature = "emulator")]

mod memory;

use memory::{Memory, emulated, random, random_bf16};
use tokenformer_cuda::{Factor, Gemm, Number, gemm};

struct Case {
    sizes: [usize; 3],
    transposed: [bool; 2],
    numbers: [Number; 2],
    beta: f32,
    batch: usize,
    /// Numbers between the end of a row and the start of the next.
    gap: usize,
    /// Numbers before the first.
    offset: usize,
}

impl Case {
    fn new(sizes: [usize; 3], transposed: [bool; 2], out: Number, beta: f32) -> Self {
        Self {
            sizes,
            transposed,
            numbers: [Number::Bf16, out],
            beta,
            batch: 1,
            gap: 0,
            offset: 0,
        }
    }

    /// Multiplies, and returns the largest error of a number, relative to the norm of its terms.
    fn error(&self, seed: u32) -> Option<f64> {
        let gpu = emulated(seed)?;
        let [m, n, k] = self.sizes;
        let [ta, tb] = self.transposed;
        let (a_shape, b_shape) = (
            if ta { [k, m] } else { [m, k] },
            if tb { [n, k] } else { [k, n] },
        );
        let strides = [a_shape[1], b_shape[1], n].map(|cols| cols + self.gap);
        let lens = [
            a_shape[0] * strides[0],
            b_shape[0] * strides[1],
            m * strides[2],
        ];
        let total = |len: usize| self.offset + len * self.batch;
        let numbers = |len, nth, number| match number {
            Number::F32 => random(total(len), 1.0, nth),
            Number::Bf16 => random_bf16(total(len), 1.0, nth),
        };
        let [factors, out] = self.numbers;
        // What does not belong to a factor is NaN, so that it changes the result if it is read.
        let factor = |nth: usize, [_, cols]: [usize; 2]| -> Vec<f32> {
            let all = numbers(lens[nth], nth as u64 + 1, factors).into_iter();
            let is_outside =
                |at: usize| at < self.offset || (at - self.offset) % strides[nth] >= cols;
            all.enumerate()
                .map(|(at, x)| if is_outside(at) { f32::NAN } else { x })
                .collect()
        };
        let (a, b) = (factor(0, a_shape), factor(1, b_shape));
        // Without beta the result is NaN before.
        let old = match self.beta {
            0.0 => vec![f32::NAN; total(lens[2])],
            _ => numbers(lens[2], 3, out),
        };
        let at = [(&a, factors), (&b, factors), (&old, out)]
            .map(|(x, number)| Memory::from(&gpu, x, number));
        let factor = |nth: usize, transposed| Factor {
            at: at[nth].at().plus(self.offset * factors.bytes()),
            number: factors,
            row_stride: strides[nth],
            transposed,
            batch_stride: lens[nth],
        };
        let product = Gemm {
            m,
            n,
            k,
            a: factor(0, ta),
            b: factor(1, tb),
            c: at[2].at().plus(self.offset * out.bytes()),
            c_number: out,
            c_row_stride: strides[2],
            c_batch_stride: lens[2],
            alpha: 0.5,
            beta: self.beta,
            batch: self.batch,
        };
        // SAFETY: the operands lie inside of the memory.
        unsafe { gemm::multiply(&gpu, &product) }.unwrap();
        let got = at[2].read();
        let mut worst = 0.0f64;
        let mut expected = vec![None; got.len()];
        for batch in 0..self.batch {
            let first = |nth: usize| self.offset + batch * lens[nth];
            for i in 0..m {
                for j in 0..n {
                    let (mut sum, mut squares) = (0.0, 0.0);
                    for l in 0..k {
                        let x = a[first(0)
                            + if ta {
                                l * strides[0] + i
                            } else {
                                i * strides[0] + l
                            }];
                        let y = b[first(1)
                            + if tb {
                                j * strides[1] + l
                            } else {
                                l * strides[1] + j
                            }];
                        let term = f64::from(x) * f64::from(y);
                        sum += term;
                        squares += term * term;
                    }
                    let to = first(2) + i * strides[2] + j;
                    let before = if self.beta == 0.0 {
                        0.0
                    } else {
                        f64::from(old[to])
                    };
                    expected[to] = Some((
                        0.5 * sum + f64::from(self.beta) * before,
                        0.25 * squares + before * before,
                    ));
                }
            }
        }
        for ((got, expected), old) in got.iter().zip(expected).zip(&old) {
            let error = match expected {
                Some((want, squares)) => (f64::from(*got) - want).abs() / squares.sqrt().max(1e-30),
                // Gaps and what comes before are not touched.
                None if got.to_bits() == old.to_bits() || (got.is_nan() && old.is_nan()) => 0.0,
                None => f64::INFINITY,
            };
            worst = worst.max(if error.is_nan() { f64::INFINITY } else { error });
        }
        Some(worst)
    }

    fn check(&self) {
        // Sums of f32 numbers, and rounding to 8 bits of mantissa.
        let limit = match self.numbers[1] {
            Number::F32 => 2e-6,
            Number::Bf16 => 1.5e-2,
        };
        for seed in 0..3 {
            let Some(error) = self.error(seed) else {
                return;
            };
            assert!(
                error <= limit,
                "{:?} transposed {:?} {:?} beta {} order {seed}: {error:.1e} > {limit:.0e}",
                self.sizes,
                self.transposed,
                self.numbers,
                self.beta
            );
        }
    }
}

const SIDES: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

#[test]
fn tensor_cores_agree_with_f64() {
    for sides in SIDES {
        Case::new([136, 144, 72], sides, Number::F32, 1.0).check();
        Case::new([64, 32, 104], sides, Number::Bf16, 0.0).check();
    }
}

#[test]
fn parts_of_tiles_and_batches_agree_with_f64() {
    for sides in SIDES {
        // Rows begin at multiples of 8 numbers, but their lengths are not.
        let case = Case::new([13, 21, 37], sides, Number::F32, 0.0);
        for batch in [1, 3] {
            let rounded = [case.sizes, [24, 40, 8]];
            for sizes in rounded {
                let gap = 0;
                Case {
                    sizes,
                    batch,
                    gap,
                    ..Case::new(sizes, sides, Number::Bf16, 1.0)
                }
                .check();
            }
        }
        Case {
            sizes: [9, 9, 41],
            gap: 7,
            ..case
        }
        .check();
    }
}

#[test]
fn any_type_stride_and_alignment_agrees_with_f64() {
    for sides in SIDES {
        for numbers in [
            [Number::F32, Number::F32],
            [Number::F32, Number::Bf16],
            [Number::Bf16, Number::F32],
            [Number::Bf16, Number::Bf16],
        ] {
            let case = Case::new([19, 35, 21], sides, numbers[1], 1.0);
            Case {
                numbers,
                offset: 3,
                gap: 2,
                batch: 2,
                ..case
            }
            .check();
            let case = Case::new([1, 1, 1], sides, numbers[1], 0.0);
            Case { numbers, ..case }.check();
        }
    }
}

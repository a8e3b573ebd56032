//! Operations of the CPU as a device, on buffers, against the plain f64 device: the same calls on both.

mod common;

use common::{Random, assert_near, bits, cases, widen};
use proptest::prelude::*;
use std::sync::Arc;
use tokenformer_cpu::Cpu;
use tokenformer_device::reference::Reference;
use tokenformer_device::{
    Adam, AdamStep, Buffer, Device, Head, LossGradient, Matmul, NormSpan, Operand, Output,
    PackedMatrix, Precision, Result, Role, RotaryDims, RotaryTable, RowsToStore, Segment, Site,
    Targets, Temp, Theta, WeightFormat, Write,
};

/// What a sequence of operations has read at its end.
type Found = Result<Vec<Vec<f32>>>;

fn buffer(device: &dyn Device, numbers: &[f32]) -> Result<Buffer> {
    device.alloc_from(numbers.to_vec(), Role::Activation)
}

fn read(device: &dyn Device, buffer: &Buffer) -> Result<Vec<f32>> {
    let mut numbers = vec![f32::NAN; buffer.len()];
    device.read(buffer, &mut numbers)?;
    Ok(numbers)
}

/// Runs the operations on the plain device, and on the CPU with one thread and with three.
fn both(run: impl Fn(&Arc<dyn Device>) -> Found) -> [Vec<Vec<f32>>; 2] {
    let plain: Arc<dyn Device> = Reference::new();
    let want = run(&plain).expect("the plain device has memory");
    let [one, three] = [1, 3].map(|threads| {
        let cpu: Arc<dyn Device> = Cpu::new(Some(threads));
        run(&cpu).expect("memory")
    });
    assert_eq!(one.len(), want.len());
    for (one, three) in one.iter().zip(&three) {
        assert_eq!(bits(one), bits(three), "one thread and three");
    }
    [one, want]
}

/// Fails unless both devices agree within a relative error.
fn agree(what: &str, bar: f64, run: impl Fn(&Arc<dyn Device>) -> Found) {
    let [got, want] = both(run);
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert_near(&format!("{what}, result {i}"), got, &widen(want), bar);
    }
}

/// A product inside of larger buffers.
#[derive(Clone, Debug)]
struct Product {
    shape: [usize; 3],
    transposed: [bool; 2],
    offset: usize,
    gap: usize,
    write: Write,
    scale: f32,
    seed: u64,
}

impl Product {
    /// The whole buffer that `C` lies in.
    fn run(&self, device: &dyn Device) -> Result<Vec<f32>> {
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

    /// Fails if a number is off by more than `bar`, times the usual size of a sum.
    fn check(&self, cpu: &dyn Device, want: &[f32], bar: f32) -> Vec<f32> {
        let got = self.run(cpu).expect("memory");
        let size = (self.shape[1] as f32).sqrt().max(1.0);
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let off = (got - want).abs();
            assert!(off <= bar * size, "{i} is {got}, not {want}: {self:?}");
        }
        got
    }
}

fn products() -> impl Strategy<Value = Product> {
    let rows = prop_oneof![1..12usize, 60..70usize];
    let size = || prop_oneof![1..10usize, 30..80usize, 254..260usize];
    let write = prop_oneof![Just(Write::Replace), Just(Write::Add)];
    let place = (0..9usize, 0..5usize, write, any::<u64>());
    (rows, size(), size(), any::<[bool; 2]>(), place).prop_map(
        |(m, k, n, transposed, (offset, gap, write, seed))| Product {
            shape: [m, k, n],
            transposed,
            offset,
            gap,
            write,
            scale: 0.7,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(cases(48))]

    /// Where a matrix lies, what is transposed and what is added to; numbers around the output are left alone.
    #[test]
    fn products_of_parts_of_buffers(case in products()) {
        let want = case.run(&*Reference::new()).expect("memory");
        let one = case.check(&*Cpu::new(Some(1)), &want, 1e-5);
        prop_assert_eq!(bits(&one), bits(&case.check(&*Cpu::new(Some(3)), &want, 1e-5)));
        let one = case.check(&*Cpu::with_precision(Some(1), Precision::Bf16), &want, 0.05);
        let three = case.check(&*Cpu::with_precision(Some(3), Precision::Bf16), &want, 0.05);
        prop_assert_eq!(bits(&one), bits(&three));
    }

    #[test]
    fn gelu_and_biases(rows in 1..70usize, width in 1..200usize, seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let [x, dy, start] = [(); 3].map(|()| random.normals(rows * width, 1.5));
        let [bias, d_bias] = [(); 2].map(|()| random.normals(width, 1.0));
        let factors = random.normals(rows, 1.0);
        agree("gelu and biases", 1e-5, |device| {
            let [x, dy] = [&x, &dy].map(|numbers| buffer(&**device, numbers));
            let (x, dy) = (x?, dy?);
            let [mut y, mut dx] = [(); 2].map(|()| Temp::new(device, x.len(), Role::Activation).expect("memory"));
            device.gelu(&x, &mut y)?;
            device.gelu_backward(&x, &dy, &mut dx)?;
            let mut sum = buffer(&**device, &start)?;
            device.add_to_rows(&buffer(&**device, &bias)?, &mut sum)?;
            let mut d_bias = buffer(&**device, &d_bias)?;
            device.sum_rows(&dy, &mut d_bias)?;
            let (factors, mut scaled) = (buffer(&**device, &factors)?, buffer(&**device, &start)?);
            device.scale_rows(&dy, &factors, Write::Add, &mut scaled)?;
            let mut replaced = Temp::new(device, x.len(), Role::Activation)?;
            device.scale_rows(&x, &factors, Write::Replace, &mut replaced)?;
            [&*y, &dx, &sum, &d_bias, &scaled, &replaced].into_iter().map(|b| read(&**device, b)).collect()
        });
    }

    /// Rows by index, from buffers of indices that are copied, zeroed and lie in temporary memory.
    #[test]
    fn rows_by_index(count in 1..90usize, table_rows in 1..40usize, width in 1..90usize, seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let index = random.tokens(count, table_rows);
        let (table, dy) = (random.normals(table_rows * width, 1.0), random.normals(count * width, 1.0));
        agree("rows by index", 1e-5, |device| {
            let index = Temp::indices(device, &index)?;
            let mut copied = device.alloc(count, Role::Index)?;
            device.copy(&index, &mut copied)?;
            let mut zeros = Temp::new(device, count, Role::Index)?;
            device.zero(&mut zeros)?;
            let (table, dy) = (buffer(&**device, &table)?, buffer(&**device, &dy)?);
            let mut found = Vec::new();
            for index in [&*index, &copied, &zeros] {
                let mut y = Temp::new(device, count * width, Role::Activation)?;
                device.gather_rows(&table, index, width, &mut y)?;
                let mut d_table = device.alloc(table_rows * width, Role::Gradient)?;
                device.scatter_add_rows(index, &dy, width, &mut d_table)?;
                found.extend([read(&**device, &y)?, read(&**device, &d_table)?]);
            }
            Ok(found)
        });
    }

    /// `Θ` as an operation of its own, of every kind; the backward pass returns the weights, too.
    #[test]
    fn theta_of_scores(
        rows in prop_oneof![1..10usize, 60..140usize], tokens in prop::collection::vec(8..60usize, 1..4),
        joint in any::<bool>(), seed in any::<u64>(),
    ) {
        let mut random = Random::new(seed);
        let n: usize = tokens.iter().sum();
        let (scores, d_weights) = (random.normals(rows * n, 1.0), random.normals(rows * n, 1.0));
        for theta in Theta::ALL {
            agree(&format!("{theta} of {rows} rows of {tokens:?}"), 3e-5, |device| {
                let nothing = device.alloc(0, Role::Weight)?;
                let segment = |&tokens: &usize| Segment {
                    keys: &nothing,
                    values: &nothing,
                    tokens,
                    tau: (tokens as f32).sqrt(),
                };
                let segments: Vec<Segment<&Buffer>> = tokens.iter().map(segment).collect();
                let norm = if joint { NormSpan::Joint } else { NormSpan::Segment };
                let site = Site { theta, norm, tau: 3.0, eps: 1e-6, segments: &segments };
                let mut weights = buffer(&**device, &scores)?;
                let mut stats = Temp::new(device, rows * site.groups(), Role::Activation)?;
                device.theta(&site, &mut weights, &mut stats)?;
                let mut again = buffer(&**device, &scores)?;
                let mut d = buffer(&**device, &d_weights)?;
                device.theta_backward(&site, &mut again, &stats, &mut d)?;
                [&weights, &*stats, &again, &d].into_iter().map(|b| read(&**device, b)).collect()
            });
        }
    }

    /// Classes are soft targets of one 1; soft targets need not add up to 1.
    #[test]
    fn losses_of_soft_targets(
        rows in 1..40usize, classes in 2..200usize, width in 1..30usize, [frozen, biased] in any::<[bool; 2]>(), seed in any::<u64>(),
    ) {
        let mut random = Random::new(seed);
        let bias = random.normals(classes, 1.0);
        let (h, table) = (random.normals(rows * width, 1.0), random.normals(classes * width, 0.5));
        let soft: Vec<f32> = random.normals(rows * classes, 1.0).iter().map(|x| x.abs()).collect();
        let index = random.tokens(rows, classes);
        let mut one_hot = vec![0.0; rows * classes];
        (index.iter().enumerate()).for_each(|(row, &class)| one_hot[row * classes + class as usize] = 1.0);
        let run = |device: &Arc<dyn Device>| {
            let (h, table) = (buffer(&**device, &h)?, buffer(&**device, &table)?);
            let bias = buffer(&**device, &bias)?;
            let head = Head { hidden: &h, table: &table, bias: biased.then_some(&bias), scale: 0.6, width };
            let index = Temp::indices(device, &index)?;
            let (one_hot, soft) = (buffer(&**device, &one_hot)?, buffer(&**device, &soft)?);
            let mut found = Vec::new();
            for targets in [Targets::Classes(&index), Targets::Soft(&one_hot), Targets::Soft(&soft)] {
                let mut losses = Temp::new(device, rows, Role::Activation)?;
                let mut evaluated = Temp::new(device, rows, Role::Activation)?;
                let mut d_hidden = Temp::new(device, rows * width, Role::Activation)?;
                let mut d_table = buffer(&**device, &vec![0.25; classes * width])?;
                let mut d_bias = buffer(&**device, &vec![0.25; classes])?;
                let gradient = LossGradient {
                    weight: 1.0 / rows as f32,
                    d_hidden: &mut d_hidden,
                    d_table: (!frozen).then_some(&mut d_table),
                    d_bias: biased.then_some(&mut d_bias),
                };
                device.loss(head, targets, &mut losses, Some(gradient))?;
                device.loss(head, targets, &mut evaluated, None)?;
                for result in [&*losses, &evaluated, &d_hidden, &d_table, &d_bias] {
                    found.push(read(&**device, result)?);
                }
            }
            Ok(found)
        };
        let [got, want] = both(run);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            // A class that is nearly certain leaves rounding only: errors count against 1 and against the weights.
            let size = want.iter().fold(1.0 / rows as f32, |m, x| m.max(x.abs())) * if i < 10 { 4.0 } else { 1.0 };
            for (got, want) in got.iter().zip(want) {
                prop_assert!((got - want).abs() <= 1e-5 * size.max(got.abs()) + 1e-6, "result {i}: {got} is not {want}");
            }
        }
        for (class, hot) in got[..5].iter().zip(&got[5..10]) {
            for (class, hot) in class.iter().zip(hot) {
                prop_assert!((class - hot).abs() <= 1e-5 * class.abs() + 3e-6, "{class} and {hot}");
            }
        }
    }
}

#[test]
fn a_product_whose_right_factor_is_packed_in_stripes() {
    for transposed in [[false, true], [false, false], [true, false]] {
        let case = Product {
            shape: [9, 2100, 1200],
            transposed,
            offset: 3,
            gap: 1,
            write: Write::Add,
            scale: 0.5,
            seed: 4,
        };
        let want = case.run(&*Reference::new()).expect("memory");
        case.check(&*Cpu::new(Some(2)), &want, 1e-5);
        case.check(&*Cpu::with_precision(Some(2), Precision::Bf16), &want, 0.02);
    }
}

#[test]
fn packed_weights_serve_products_rows_and_reads() -> Result<()> {
    let cpu: Arc<dyn Device> = Cpu::new(Some(2));
    let (rows, cols) = (50, 37);
    let mut random = Random::new(6);
    let numbers = random.normals(rows * cols, 1.0);
    for transposed in [true, false] {
        let matrix = PackedMatrix {
            rows,
            cols,
            transposed,
        };
        let plain = buffer(&*cpu, &numbers)?;
        let packed = cpu.pack_weights(buffer(&*cpu, &numbers)?, matrix, WeightFormat::F32)?;
        assert_eq!(read(&*cpu, &packed)?, numbers);
        for start in [0, 1, 36, 37, 500, rows * cols - 45] {
            let mut part = [f32::NAN; 45];
            cpu.read_part(&packed, start, &mut part)?;
            assert_eq!(part, numbers[start..start + 45], "{start} {transposed}");
        }
        let (inner, width) = if transposed {
            (cols, rows)
        } else {
            (rows, cols)
        };
        for count in [1, 7, 8, 70] {
            let x = buffer(&*cpu, &random.normals(count * inner, 1.0))?;
            let mut found = Vec::new();
            for weights in [&plain, &packed] {
                let product = Matmul {
                    a: Operand::rows(&x, inner),
                    b: Operand {
                        transposed,
                        ..Operand::rows(weights, cols)
                    },
                    rows: count,
                    inner,
                    cols: width,
                    scale: 0.5,
                };
                let mut y = Temp::new(&cpu, count * width, Role::Activation)?;
                cpu.matmul(product, Write::Replace, Output::rows(&mut y, width))?;
                found.push(bits(&read(&*cpu, &y)?));
            }
            assert_eq!(found[0], found[1], "{count} rows, {transposed}");
        }
    }
    let matrix = PackedMatrix {
        rows,
        cols,
        transposed: true,
    };
    let packed = cpu.pack_weights(buffer(&*cpu, &numbers)?, matrix, WeightFormat::F32)?;
    let index = Temp::indices(&cpu, &[49, 0, 7])?;
    let mut y = Temp::new(&cpu, 3 * cols, Role::Activation)?;
    cpu.gather_rows(&packed, &index, cols, &mut y)?;
    let want = [49, 0, 7]
        .map(|row| &numbers[row * cols..][..cols])
        .concat();
    assert_eq!(read(&*cpu, &y)?, want);
    Ok(())
}

const ADAM: Adam = Adam {
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
};

/// A step of an optimizer for two parameters in two groups, as one would record it.
fn step(device: &Arc<dyn Device>, gradients: &[Vec<f32>; 2], limit: f64) -> Found {
    let mut sums = Temp::new(device, 2, Role::Accumulator)?;
    device.zero(&mut sums)?;
    let g = [
        buffer(&**device, &gradients[0])?,
        buffer(&**device, &gradients[1])?,
    ];
    for (group, g) in g.iter().enumerate() {
        device.sum_of_squares(g, &mut sums, group)?;
        device.sum_of_squares(g, &mut sums, group)?;
    }
    let mut copied = device.alloc(2, Role::Accumulator)?;
    device.copy(&sums, &mut copied)?;
    let mut host = [f64::NAN; 2];
    device.read_accumulator(&copied, &mut host)?;
    let mut factors = Temp::new(device, 2, Role::Activation)?;
    device.clip_factors(&sums, limit, &mut factors)?;
    let scalars = [ADAM.scalars(0.01, 0.1, 1), ADAM.scalars(0.02, 0.0, 3)].concat();
    let scalars = buffer(&**device, &scalars)?;
    let mut found = vec![
        host.map(|sum| sum as f32).to_vec(),
        read(&**device, &factors)?,
    ];
    for (slot, g) in g.iter().enumerate() {
        let mut p = buffer(&**device, &vec![1.0; g.len()])?;
        let [mut m, mut v] = [
            device.alloc(g.len(), Role::Moment)?,
            device.alloc(g.len(), Role::Moment)?,
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

#[test]
fn steps_of_the_optimizer() {
    let mut random = Random::new(11);
    let gradients = [random.normals(20_000, 1.0), random.normals(33, 0.01)];
    for limit in [0.0, 1.0, 1e9] {
        agree("a step", 2e-6, |device| step(device, &gradients, limit));
    }
    // 100 clipped to 1 by the first group's own norm; the second is below the limit.
    let [got, _] = both(|device| step(device, &[vec![6.0, 8.0], vec![0.5]], 1.0));
    assert_eq!(got[0], [200.0, 0.5]);
    assert_eq!(got[1], [(1.0 / (200f64.sqrt() + 1e-6)) as f32, 1.0]);
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    for bad in [f32::NAN, f32::INFINITY] {
        let [got, want] = both(|device| step(device, &[vec![1.0, bad], vec![0.5]], 1.0));
        for found in [got, want] {
            assert!(found[1].iter().all(|factor| factor.is_nan()));
            assert_eq!(found[2..5], [vec![1.0; 2], vec![0.0; 2], vec![0.0; 2]]);
            assert_eq!(found[5..8], [vec![1.0], vec![0.0], vec![0.0]]);
        }
    }
}

#[test]
fn rotations_and_caches() {
    let mut random = Random::new(12);
    let dims = RotaryDims {
        length: 5,
        heads: 3,
        channels: 10,
        first: 4,
    };
    let x = random.normals(2 * 5 * 30, 1.0);
    agree("rotation and cache", 1e-6, |device| {
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
        let found = [read(&**device, &turned)?, read(&**device, &cache)?];
        device.rotate(&table, dims, true, &mut turned)?;
        let [turned_numbers, cache] = found;
        Ok(vec![turned_numbers, cache, read(&**device, &turned)?])
    });
}

/// A dry run takes the same memory to the byte, and computes nothing.
#[test]
fn a_dry_run_takes_the_same_memory() -> Result<()> {
    let gradients = [vec![1.0; 20_000], vec![2.0; 33]];
    for precision in Precision::ALL {
        let cpu: Arc<dyn Device> = Cpu::with_precision(Some(2), precision);
        let twin = cpu.dry_run()?;
        let case = Product {
            shape: [70, 300, 90],
            transposed: [false, true],
            offset: 0,
            gap: 0,
            write: Write::Replace,
            scale: 1.0,
            seed: 1,
        };
        let mut usages = Vec::new();
        for device in [&cpu, &twin] {
            let scores = Temp::new(device, 1001, Role::Scores)?;
            let index = Temp::indices(device, &[1, 2, 3])?;
            let kept = device.alloc(77, Role::Index)?;
            let product = case.run(&**device)?;
            step(device, &gradients, 1.0)?;
            usages.push(device.usage());
            drop((scores, index, kept));
            assert_eq!(device.usage().temporary, 0);
            let zeros = product.iter().all(|x| *x == 0.0);
            assert_eq!(zeros, Arc::ptr_eq(device, &twin));
        }
        assert_eq!(usages[0], usages[1], "{precision}");
        assert!(usages[0].temporary_reserved > 0 && usages[0].scratch > 0);
    }
    Ok(())
}

//! Operations of the CPU as a device, on buffers, against the plain f64 device.

mod common;

use common::{Random, bits, cases};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;
use tokenformer_cpu::Cpu;
use tokenformer_device::{
    AttentionDims, Buffer, Device, Matmul, Operand, Output, PackedMatrix, Precision, Result, Role,
    Temp, WeightFormat, Write,
};
use tokenformer_testing::operations::{Product, Suite};

/// The CPU with one thread and with three.
fn suite(precision: Precision) -> Suite {
    Suite {
        devices: [1, 3]
            .map(|threads| Cpu::with_precision(Some(threads), precision) as Arc<dyn Device>)
            .to_vec(),
        least_bar: 0.0,
    }
}

fn f32_suite() -> Suite {
    suite(Precision::F32)
}

fn buffer(device: &dyn Device, numbers: &[f32]) -> Result<Buffer> {
    device.alloc_from(numbers.to_vec(), Role::Activation)
}

fn read(device: &dyn Device, buffer: &Buffer) -> Result<Vec<f32>> {
    let mut numbers = vec![f32::NAN; buffer.len()];
    device.read(buffer, &mut numbers)?;
    Ok(numbers)
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

    #[test]
    fn products_of_parts_of_buffers(case in products()) {
        f32_suite().product(&case, 1e-5);
        suite(Precision::Bf16).product(&case, 0.05);
    }

    #[test]
    fn gelu_and_biases(rows in 1..70usize, width in 1..200usize, seed in any::<u64>()) {
        f32_suite().gelu_and_biases(rows, width, seed);
    }

    #[test]
    fn rows_by_index(count in 1..90usize, table_rows in 1..40usize, width in 1..90usize, seed in any::<u64>()) {
        f32_suite().rows_by_index(count, table_rows, width, seed);
    }

    #[test]
    fn theta_of_scores(
        rows in prop_oneof![1..10usize, 60..140usize], tokens in prop::collection::vec(8..60usize, 1..4),
        joint in any::<bool>(), seed in any::<u64>(),
    ) {
        f32_suite().theta_of_scores(rows, &tokens, joint, seed);
    }

    #[test]
    fn losses_of_soft_targets(
        rows in 1..40usize, classes in 2..200usize, width in 1..30usize, [frozen, biased] in any::<[bool; 2]>(), seed in any::<u64>(),
    ) {
        f32_suite().losses([rows, classes, width], frozen, biased, seed);
    }

    #[test]
    fn norms_and_averages(rows in 1..70usize, width in 2..90usize, seed in any::<u64>()) {
        f32_suite().layer_norms(rows, width, seed);
        f32_suite().averages_and_parts(rows * width, seed);
    }

    #[test]
    fn attention(
        (batch, heads, channels) in (1..3usize, 1..4usize, 1..40usize), queries in 1..70usize, older in 0..40usize,
        causal in any::<bool>(), seed in any::<u64>(),
    ) {
        let dims = AttentionDims { batch, queries, keys: queries, key_stride: queries, heads, channels, causal };
        f32_suite().self_attention(dims, seed);
        let keys = queries + older;
        f32_suite().attention_on_a_cache(AttentionDims { keys, key_stride: keys + 3, ..dims }, seed);
    }

    #[test]
    fn attention_of_several(
        sequences in vec((1..40usize, 0..50usize), 1..6), heads in 1..4usize, channels in 1..40usize, seed in any::<u64>(),
    ) {
        f32_suite().attention_of_several(&sequences, heads, channels, seed);
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
        f32_suite().product(&case, 1e-5);
        suite(Precision::Bf16).product(&case, 0.02);
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

#[test]
fn steps_of_the_optimizer() {
    f32_suite().steps_of_the_optimizer(20_000);
    f32_suite().sums_of_squares(20_000, 12);
    f32_suite().gradients_that_are_not_finite();
}

#[test]
fn rotations_and_caches() {
    f32_suite().rotations_and_caches(12);
}

/// A dry run takes the same memory to the byte, and computes nothing.
#[test]
fn a_dry_run_takes_the_same_memory() -> Result<()> {
    let numbers = vec![1.0; 20_000];
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
            let mut sums = device.alloc(1, Role::Accumulator)?;
            device.sum_of_squares(&buffer(&**device, &numbers)?, &mut sums, 0)?;
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

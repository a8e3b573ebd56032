//! Every matrix product against a plain scalar reference that follows the documented order of operations:
//! equal bits, for any shape, layout, level and cut into tasks.

use proptest::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokenformer_cpu::gemm::{
    Bf16, Element, Line, Mat, MatMut, Packed, SCRATCH, Source, few_rows_dot, few_rows_sum, gemm,
    gemm_packed, pack, packed_lines, par_gemm, par_gemm_packed, par_matmul, par_pack,
    round_to_bf16, widen_bf16,
};
use tokenformer_cpu::simd::{Level, set_level};
use tokenformer_cpu::{Exec, Pool, Scratch};
use tokenformer_device::Write;

/// A product to compute, with operands already rounded to the precision in question.
#[derive(Clone, Debug)]
struct Case {
    shape: [usize; 3],
    a_transposed: bool,
    b_transposed: bool,
    write: Write,
    scale: f32,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let rows = prop_oneof![0usize..20, 60usize..70, 125usize..140];
    let inner = prop_oneof![0usize..40, 254usize..260, 500usize..530, 760usize..780];
    let cols = prop_oneof![0usize..70, 100usize..140];
    let write = prop_oneof![Just(Write::Replace), Just(Write::Add)];
    let scale = prop_oneof![Just(1.0f32), Just(0.176_776_7)];
    (rows, inner, cols, any::<(bool, bool, u64)>(), write, scale).prop_map(
        |(m, k, n, (a_transposed, b_transposed, seed), write, scale)| Case {
            shape: [m, k, n],
            a_transposed,
            b_transposed,
            write,
            scale,
            seed,
        },
    )
}

/// Numbers in (-1, 1) that depend on the seed.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn narrow(x: &[f32]) -> Vec<Bf16> {
    let mut to = vec![Bf16::default(); x.len()];
    round_to_bf16(&mut to, x);
    to
}

fn view<T>(data: &[T], rows: usize, cols: usize, transposed: bool) -> Mat<'_, T> {
    if transposed {
        Mat::new(data, cols, rows).t()
    } else {
        Mat::new(data, rows, cols)
    }
}

impl Case {
    fn operands(&self) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let [m, k, n] = self.shape;
        (
            numbers(m * k, self.seed),
            numbers(k * n, self.seed ^ 0x5555),
            numbers(m * n, self.seed ^ 0xaaaa),
        )
    }

    /// The contract: chains over blocks of 256 words, upper element of a word first.
    fn expected(&self, a: &[f32], b: &[f32], c: &[f32], per_word: usize) -> Vec<f32> {
        let [m, k, n] = self.shape;
        let a_at = |i: usize, l: usize| {
            if self.a_transposed {
                a[l * m + i]
            } else {
                a[i * k + l]
            }
        };
        let b_at = |l: usize, j: usize| {
            if self.b_transposed {
                b[j * k + l]
            } else {
                b[l * n + j]
            }
        };
        let mut order: Vec<usize> = (0..k).collect();
        order.chunks_mut(per_word).for_each(<[usize]>::reverse);
        let mut out = c.to_vec();
        for i in 0..m {
            for j in 0..n {
                let c = &mut out[i * n + j];
                if k == 0 && self.write == Write::Replace {
                    *c = 0.0;
                }
                for (number, block) in order.chunks(256 * per_word).enumerate() {
                    let chain = block
                        .iter()
                        .fold(0.0f32, |sum, &l| a_at(i, l).mul_add(b_at(l, j), sum));
                    *c = if number == 0 && self.write == Write::Replace {
                        self.scale * chain
                    } else {
                        self.scale.mul_add(chain, *c)
                    };
                }
            }
        }
        out
    }

    /// Runs `product` into a `C` whose rows lie further apart, and checks that nothing else is touched.
    fn strided(&self, c: &[f32], product: impl FnOnce(MatMut<'_>)) -> Vec<f32> {
        let [m, _, n] = self.shape;
        let (stride, guard) = (n + 3, 77.0);
        let mut wide = vec![guard; m * stride];
        for (wide, c) in wide.chunks_mut(stride).zip(c.chunks(n.max(1))) {
            wide[..n].copy_from_slice(c);
        }
        product(MatMut::strided(&mut wide, m, n, stride));
        assert!(
            wide.chunks(stride)
                .all(|row| row[n..].iter().all(|&x| x == guard))
        );
        wide.chunks(stride)
            .flat_map(|row| row[..n].to_vec())
            .collect()
    }

    fn packed<P: Element, S: Source<P>>(
        &self,
        a: &[S],
        b: &[S],
        c: &[f32],
        pool: &Pool,
    ) -> Vec<f32> {
        let [m, k, n] = self.shape;
        let (a, b) = (
            view(a, m, k, self.a_transposed),
            view(b, k, n, self.b_transposed),
        );
        let mut lines = vec![Line::ZERO; packed_lines::<P>(k, n)];
        let mut scratch = vec![f32::NAN; SCRATCH];
        let packed: Packed<'_, P> = pack(&mut lines, b);
        assert_eq!(packed.shape(), [k, n]);
        let alone = self.strided(c, |c| {
            gemm_packed(c, self.write, a, packed, self.scale, &mut scratch);
        });
        let mut scratch = Scratch::default();
        let mut exec = Exec {
            pool,
            scratch: &mut scratch,
        };
        let mut lines = vec![Line::ZERO; packed_lines::<P>(k, n)];
        let packed: Packed<'_, P> = par_pack(&mut exec, &mut lines, b);
        let shared = self.strided(c, |c| {
            par_gemm_packed(&mut exec, c, self.write, a, packed, self.scale);
        });
        assert_eq!(bits(&alone), bits(&shared));
        alone
    }
}

/// Held by every test here: the level is one for the process, and packed matrices follow it.
static LEVEL: Mutex<()> = Mutex::new(());

fn hold_level() -> MutexGuard<'static, ()> {
    LEVEL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn f32_products_follow_the_documented_order(case in cases()) {
        let _level = hold_level();
        let [m, k, n] = case.shape;
        let (a, b, c) = case.operands();
        let expected = bits(&case.expected(&a, &b, &c, 1));
        let (a_view, b_view) = (view(&a, m, k, case.a_transposed), view(&b, k, n, case.b_transposed));
        let pool = Pool::new(2);
        for level in levels(case.shape) {
            set_level(level);
            let alone = case.strided(&c, |c| gemm(c, case.write, a_view, b_view, case.scale));
            prop_assert_eq!(&bits(&alone), &expected, "gemm, {:?}", level);
            let mut scratch = Scratch::default();
            let mut exec = Exec { pool: &pool, scratch: &mut scratch };
            let mut shared = c.clone();
            par_gemm(&mut exec, &mut shared, case.write, a_view, b_view, case.scale);
            prop_assert_eq!(&bits(&shared), &expected, "par_gemm, {:?}", level);
            prop_assert_eq!(&bits(&case.packed::<f32, f32>(&a, &b, &c, &pool)), &expected, "packed, {:?}", level);
        }
    }

    #[test]
    fn bf16_products_follow_the_documented_order(case in cases()) {
        let _level = hold_level();
        let (a, b, c) = case.operands();
        let (a16, b16) = (narrow(&a), narrow(&b));
        let widen = |x: &[Bf16]| { let mut to = vec![0.0; x.len()]; widen_bf16(&mut to, x); to };
        let expected = bits(&case.expected(&widen(&a16), &widen(&b16), &c, 2));
        let pool = Pool::new(2);
        for level in levels(case.shape) {
            set_level(level);
            prop_assert_eq!(&bits(&case.packed::<Bf16, f32>(&a, &b, &c, &pool)), &expected, "from f32, {:?}", level);
            prop_assert_eq!(&bits(&case.packed::<Bf16, Bf16>(&a16, &b16, &c, &pool)), &expected, "from bf16, {:?}", level);
        }
    }

    /// Few rows are computed as many are, so that decoding gives the bits of a prefill.
    #[test]
    fn few_rows_have_the_bits_of_many(r in 0usize..9, n in 1usize..300, d in 1usize..300, seed in any::<u64>()) {
        let _level = hold_level();
        let (x, w) = (numbers(r * d, seed), numbers(n * d, !seed));
        let pool = Pool::new(2);
        let mut scratch = Scratch::default();
        let mut exec = Exec { pool: &pool, scratch: &mut scratch };
        let mut many = vec![0.0; r * n];
        gemm(MatMut::new(&mut many, r, n), Write::Replace, Mat::new(&x, r, d), Mat::new(&w, n, d).t(), 0.5);
        let mut few = vec![0.0; r * n];
        few_rows_dot(&mut exec, &mut few, n, &x, &w, d, 0.5);
        prop_assert_eq!(bits(&few), bits(&many));
        let mut y = vec![[0.25; 2]; r * d].concat();
        let (many_y, few_y) = y.split_at_mut(r * d);
        for write in [Write::Replace, Write::Add] {
            gemm(MatMut::new(many_y, r, d), write, Mat::new(&many, r, n), Mat::new(&w, n, d), 1.0);
            few_rows_sum(&mut exec, few_y, write, &many, n, &w, d);
            prop_assert_eq!(bits(few_y), bits(many_y));
        }
    }
}

/// Rows have the same bits alone and among others, in both precisions.
#[test]
fn a_product_of_few_rows_is_rounded_as_one_of_many() {
    fn check<P: Element>()
    where
        f32: Source<P>,
    {
        let (m, k, n) = (20, 37, 70);
        let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
        let pool = Pool::new(2);
        let mut scratch = Scratch::default();
        let mut exec = Exec {
            pool: &pool,
            scratch: &mut scratch,
        };
        let mut product = |rows: usize| {
            let mut c = vec![0.0; rows * n];
            let (a, b) = (Mat::new(&a[..rows * k], rows, k), Mat::new(&b, n, k).t());
            let to = MatMut::new(&mut c, rows, n);
            par_matmul::<P>(&mut exec, to, Write::Replace, a, b, 0.5);
            bits(&c)
        };
        let many = product(m);
        for rows in [1, 2, 7, 8] {
            assert_eq!(product(rows), many[..rows * n], "{rows} rows");
        }
    }
    let _level = hold_level();
    check::<f32>();
    check::<Bf16>();
}

/// The levels to compare. The portable one may call a library for every step, so only small shapes.
fn levels(shape: [usize; 3]) -> Vec<Level> {
    let mut levels = vec![Level::Avx2, Level::Avx512];
    if shape.iter().product::<usize>() < 200_000 {
        levels.push(Level::Baseline);
    }
    levels
}

/// Tiles that start in the middle of a matrix without elements used to be out of bounds.
#[test]
fn sums_of_nothing_in_many_tiles_are_zero() {
    let _level = hold_level();
    for transposed in [false, true] {
        let case = Case {
            shape: [300, 0, 700],
            a_transposed: transposed,
            b_transposed: transposed,
            write: Write::Replace,
            scale: 1.0,
            seed: 1,
        };
        let c = numbers(300 * 700, 2);
        let pool = Pool::new(2);
        for c in [
            case.packed::<f32, f32>(&[], &[], &c, &pool),
            case.packed::<Bf16, f32>(&[], &[], &c, &pool),
        ] {
            assert!(c.iter().all(|&c| c.to_bits() == 0));
        }
    }
}

#[test]
fn column_ranges_of_a_packed_matrix_are_products_of_their_own() {
    let _level = hold_level();
    let [m, k, n] = [5, 300, 100];
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let mut lines = vec![Line::ZERO; packed_lines::<f32>(k, n)];
    let packed: Packed<'_, f32> = pack(&mut lines, Mat::new(&b, k, n));
    let mut scratch = vec![0.0; SCRATCH];
    let mut whole = vec![0.0; m * n];
    let a = Mat::new(&a, m, k);
    gemm_packed(
        MatMut::new(&mut whole, m, n),
        Write::Replace,
        a,
        packed,
        1.0,
        &mut scratch,
    );
    for cols in [0..0, 0..32, 32..64, 64..100, 32..83] {
        let mut part = vec![0.0; m * cols.len()];
        let c = MatMut::new(&mut part, m, cols.len());
        gemm_packed(
            c,
            Write::Replace,
            a,
            packed.columns(cols.clone()),
            1.0,
            &mut scratch,
        );
        let expected: Vec<f32> = whole
            .chunks(n)
            .flat_map(|row| row[cols.clone()].to_vec())
            .collect();
        assert_eq!(bits(&part), bits(&expected), "{cols:?}");
    }
}

#[test]
fn the_first_rows_of_a_packed_matrix_are_a_matrix_of_their_own() {
    let _level = hold_level();
    let [m, k, n] = [70, 600, 45];
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let mut lines = vec![Line::ZERO; packed_lines::<f32>(k, n)];
    let packed: Packed<'_, f32> = pack(&mut lines, Mat::new(&b, k, n));
    let mut scratch = vec![0.0; SCRATCH];
    for first in [0, 1, 256, 300, 512, 600] {
        let a = Mat::strided(&a, m, first, k);
        let [mut part, mut whole] = [(); 2].map(|()| vec![0.5; m * n]);
        let (write, b) = (Write::Add, Mat::new(&b[..first * n], first, n));
        let c = MatMut::new(&mut part, m, n);
        gemm_packed(c, write, a, packed.first_rows(first), 0.5, &mut scratch);
        gemm(MatMut::new(&mut whole, m, n), write, a, b, 0.5);
        assert_eq!(bits(&part), bits(&whole), "{first}");
    }
}

/// Rows a page apart are copied, because they compete for the same lines of a cache.
#[test]
fn rows_at_distances_of_pages_give_the_same_bits() {
    let _level = hold_level();
    let [m, k, n] = [70, 300, 40];
    let b = numbers(k * n, 2);
    let mut lines = vec![Line::ZERO; packed_lines::<f32>(k, n)];
    let mut scratch = vec![0.0; SCRATCH];
    let mut found = Vec::new();
    for level in [Level::Avx512, Level::Avx2, Level::Baseline] {
        set_level(level);
        let packed: Packed<'_, f32> = pack(&mut lines, Mat::new(&b, k, n));
        for stride in [300, 1000, 1024, 2048] {
            let rows = numbers(m * k, 1);
            let mut a = vec![f32::NAN; m * stride];
            for (a, row) in a.chunks_mut(stride).zip(rows.chunks(k)) {
                a[..k].copy_from_slice(row);
            }
            let mut c = vec![0.0; m * n];
            let out = MatMut::new(&mut c, m, n);
            let a = Mat::strided(&a, m, k, stride);
            gemm_packed(out, Write::Replace, a, packed, 1.0, &mut scratch);
            found.push(bits(&c));
        }
    }
    set_level(Level::Avx512);
    assert!(found.iter().all(|c| *c == found[0]));
}

#[test]
fn bf16_rounds_to_nearest_even_and_keeps_nan() {
    let _level = hold_level();
    let rounded = |x: f32| Bf16::from_f32(x).to_f32();
    assert_eq!(rounded(1.0 + 1.0 / 256.0), 1.0);
    assert_eq!(rounded(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
    assert_eq!(rounded(f32::MAX), f32::INFINITY);
    assert_eq!(rounded(f32::NEG_INFINITY), f32::NEG_INFINITY);
    assert!(rounded(f32::from_bits(0x7f80_0001)).is_nan());
    assert!(rounded(f32::from_bits(0xffff_ffff)).is_nan());
    // The vector version that packing uses agrees with the scalar one.
    let values: Vec<f32> = (0..4096u32)
        .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)))
        .collect();
    let mut to = vec![Bf16::default(); values.len()];
    round_to_bf16(&mut to, &values);
    for (to, x) in to.iter().zip(values) {
        assert_eq!(to.to_bits(), Bf16::from_f32(x).to_bits());
    }
}

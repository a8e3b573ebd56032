//! Matrix products against plain f64 sums.

mod common;

use common::{Random, assert_near, cases, exec};
use proptest::prelude::*;
use tokenformer_cpu::gemm::{Mat, MatMut, few_rows_dot, few_rows_sum, gemm, par_gemm};
use tokenformer_device::Write;

const BAR: f64 = 1e-5;

/// `scale · A·B (+ C)` with `A` `[m, k]` and `B` `[k, n]` given by functions of row and column.
fn product(
    [m, k, n]: [usize; 3],
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
    c: impl Fn(usize, usize) -> f32,
    scale: f32,
) -> Vec<f64> {
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k)
                .map(|l| f64::from(a(i, l)) * f64::from(b(l, j)))
                .sum();
            out.push(f64::from(scale) * sum + f64::from(c(i, j)));
        }
    }
    out
}

fn sizes() -> impl Strategy<Value = [usize; 3]> {
    let size = || prop_oneof![1..10usize, 1..90usize];
    [size(), size(), size()]
}

proptest! {
    #![proptest_config(cases(80))]

    /// All four combinations of transposed inputs, with gaps between rows everywhere.
    #[test]
    fn strided(dims in sizes(), ta in any::<bool>(), tb in any::<bool>(), add in any::<bool>(), gap in 0..5usize, seed in any::<u64>()) {
        let [m, k, n] = dims;
        let mut random = Random::new(seed);
        let stored = |rows: usize, cols: usize, random: &mut Random| random.normals(rows * (cols + gap), 1.0);
        let (ar, ac) = if ta { (k, m) } else { (m, k) };
        let (br, bc) = if tb { (n, k) } else { (k, n) };
        let (a, b) = (stored(ar, ac, &mut random), stored(br, bc, &mut random));
        let mut c = stored(m, n, &mut random);
        let before = c.clone();
        let want = product(
            dims,
            |i, l| if ta { a[l * (ac + gap) + i] } else { a[i * (ac + gap) + l] },
            |l, j| if tb { b[j * (bc + gap) + l] } else { b[l * (bc + gap) + j] },
            |i, j| if add { before[i * (n + gap) + j] } else { 0.0 },
            0.7,
        );
        let (ma, mb) = (Mat::strided(&a, ar, ac, ac + gap), Mat::strided(&b, br, bc, bc + gap));
        let write = if add { Write::Add } else { Write::Replace };
        gemm(
            MatMut::strided(&mut c, m, n, n + gap),
            write,
            if ta { ma.t() } else { ma },
            if tb { mb.t() } else { mb },
            0.7,
        );
        let got: Vec<f32> = c.chunks(n + gap).flat_map(|row| row[..n].to_vec()).collect();
        // Few terms can cancel by chance: measure against the size of a sum, not of its result.
        let off = got.iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max);
        prop_assert!(off <= 1e-6 * (k as f64).sqrt() * 6.0, "{off:e}");
        for (after, before) in c.chunks(n + gap).zip(before.chunks(n + gap)) {
            prop_assert_eq!(&after[n..], &before[n..], "gaps are not written");
        }
    }

    #[test]
    fn few_rows(r in 1..9usize, d in prop_oneof![1..70usize, 120..140usize], n in 1..200usize, gap in 0..4usize, add in any::<bool>(), seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let (x, w) = (random.normals(r * d, 1.0), random.normals(n * d, 1.0));
        let mut y = vec![7.0f32; r * (n + gap)];
        exec(2, |exec| few_rows_dot(exec, &mut y, n + gap, &x, &w, d, 0.3));
        let want = product([r, d, n], |i, l| x[i * d + l], |l, j| w[j * d + l], |_, _| 0.0, 0.3);
        let got: Vec<f32> = y.chunks(n + gap).flat_map(|row| row[..n].to_vec()).collect();
        let off = got.iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max);
        prop_assert!(off <= 1e-6 * (d as f64).sqrt() * 3.0, "{off:e}");
        prop_assert!(y.chunks(n + gap).all(|row| row[n..].iter().all(|y| *y == 7.0)), "gaps are not written");

        let start = random.normals(r * d, 1.0);
        let mut sum = start.clone();
        let write = if add { Write::Add } else { Write::Replace };
        exec(2, |exec| few_rows_sum(exec, &mut sum, write, &y, n + gap, &w, d));
        let kept = |i: usize, j: usize| if add { start[i * d + j] } else { 0.0 };
        let want = product([r, n, d], |i, l| y[i * (n + gap) + l], |l, j| w[l * d + j], kept, 1.0);
        assert_near("sum", &sum, &want, 3.0 * BAR);
    }
}

#[test]
fn several_tiles() {
    for [m, k, n] in [
        [256, 40, 256],
        [257, 33, 513],
        [1, 300, 600],
        [600, 300, 1],
        [300, 1, 300],
    ] {
        let mut random = Random::new(n as u64);
        let (a, b) = (random.normals(m * k, 1.0), random.normals(n * k, 1.0));
        let start = random.normals(m * n, 1.0);
        let mut c = start.clone();
        exec(3, |exec| {
            par_gemm(
                exec,
                &mut c,
                Write::Add,
                Mat::new(&a, m, k),
                Mat::new(&b, n, k).t(),
                0.5,
            )
        });
        let want = product(
            [m, k, n],
            |i, l| a[i * k + l],
            |l, j| b[j * k + l],
            |i, j| start[i * n + j],
            0.5,
        );
        assert_near(&format!("{m} {k} {n}"), &c, &want, BAR);
    }
}

#[test]
fn a_sum_of_nothing_is_zero() {
    let mut c = vec![5.0; 6];
    gemm(
        MatMut::new(&mut c, 2, 3),
        Write::Add,
        Mat::new(&[], 2, 0),
        Mat::new(&[], 0, 3),
        1.0,
    );
    assert_eq!(c, [5.0; 6]);
    gemm(
        MatMut::new(&mut c, 2, 3),
        Write::Replace,
        Mat::new(&[], 2, 0),
        Mat::new(&[], 0, 3),
        1.0,
    );
    assert_eq!(c, [0.0; 6]);
}

#[test]
fn row_blocks() {
    let data: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let mat = Mat::new(&data, 4, 3);
    let one = [1.0, 1.0, 1.0];
    let mut sums = vec![0.0; 2];
    gemm(
        MatMut::new(&mut sums, 2, 1),
        Write::Replace,
        mat.row_block(1, 2),
        Mat::new(&one, 3, 1),
        1.0,
    );
    assert_eq!(sums, [3.0 + 4.0 + 5.0, 6.0 + 7.0 + 8.0]);
    assert_eq!(Write::nth(0), Write::Replace);
    assert_eq!(Write::nth(1), Write::Add);
}

#[test]
#[should_panic(expected = "fits_apart")]
fn rows_that_overlap_are_never_written() {
    MatMut::strided(&mut [0.0; 10], 4, 3, 2);
}

#[test]
#[should_panic]
fn a_view_beyond_its_slice_is_refused() {
    Mat::strided(&[0.0; 10], 4, 3, 3);
}

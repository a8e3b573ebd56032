//! The kernels that work row by row, and the optimizer, against their plain f64 versions.

mod common;

use common::{Random, assert_near, cases, exec, max_error, widen};
use proptest::prelude::*;
use tokenformer_cpu::gemm::{Bf16, Mat, MatMut, par_matmul};
use tokenformer_cpu::{adamw, cross_entropy, elementwise, layer_norm, rotary, rows};
use tokenformer_device::reference;
use tokenformer_device::{Adam, RotaryDims, RotaryTable, RowTargets, Write};

const BAR: f64 = 1e-5;
const ADAM: Adam = Adam {
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
};

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn layer_norms(rows in 1..80usize, d in 2..150usize, affine in any::<bool>(), add in any::<bool>(), seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let (mut x, dy) = (random.normals(rows * d, 2.0), random.normals(rows * d, 1.0));
        x.iter_mut().for_each(|x| *x += 0.5);
        let [gain, bias] = [(); 2].map(|()| random.normals(d, 1.0));
        let (wide_x, wide_dy, wide_gain, wide_bias) = (widen(&x), widen(&dy), widen(&gain), widen(&bias));
        let eps = 1e-5f32;
        let want = reference::layer_norm(&wide_x, affine.then_some([&wide_gain[..], &wide_bias]), f64::from(eps), d);
        let [want_dx, want_gain, want_bias] =
            reference::layer_norm_backward(&wide_x, affine.then_some(&wide_gain), f64::from(eps), &wide_dy, d);

        let (mut y, mut stats) = (vec![f32::NAN; rows * d], vec![f32::NAN; rows * 2]);
        let mut dx = vec![if add { 2.0 } else { f32::NAN }; rows * d];
        let (mut dgain, mut dbias) = (vec![1.0; d], vec![1.0; d]);
        exec(2, |exec| {
            let weights = affine.then_some(layer_norm::Affine { gain: &gain, bias: &bias });
            layer_norm::forward(exec, &x, weights, eps, &mut y, &mut stats, d);
            let kept = if affine { layer_norm::Kept::Input(&x) } else { layer_norm::Kept::Output(&y) };
            let write = if add { Write::Add } else { Write::Replace };
            layer_norm::backward(exec, kept, &stats, affine.then_some(&gain[..]), &dy, (&mut dx, write), d);
            layer_norm::backward_affine(exec, &x, &stats, &dy, &mut dgain, &mut dbias);
        });
        let plus = |numbers: &[f64], start: f64| numbers.iter().map(|n| n + start).collect::<Vec<_>>();
        assert_near("y", &y, &want, BAR);
        // Two columns lose most of their gradient to the norm, rounding does not.
        let bar = if d < 8 { 1e-2 } else { 3e-5 };
        assert_near("dx", &dx, &plus(&want_dx, if add { 2.0 } else { 0.0 }), bar);
        assert_near("dgain", &dgain, &plus(&want_gain, 1.0), 3.0 * BAR);
        assert_near("dbias", &dbias, &plus(&want_bias, 1.0), 3.0 * BAR);
    }

    #[test]
    fn rotations(
        batch in 1..4usize, t in 1..40usize, heads in 1..4usize, pairs in 1..9usize, rest in 0..10usize,
        first in 0..30usize, inverse in any::<bool>(), seed in any::<u64>(),
    ) {
        let channels = 2 * pairs + rest;
        let [cos, sin] = RotaryTable::numbers(first + t, 2 * pairs, 10_000.0);
        let table = rotary::Table { dims: 2 * pairs, cos: &cos, sin: &sin };
        let wide = [widen(&cos), widen(&sin)];
        let mut x = Random::new(seed).normals(batch * t * heads * channels, 1.0);
        let before = x.clone();
        let mut want = widen(&x);
        let dims = RotaryDims { length: t, heads, channels, first };
        reference::rotate(&mut want, [&wide[0], &wide[1]], 2 * pairs, dims, inverse);
        exec(2, |exec| rotary::rotate(exec, &mut x, table, dims, inverse));
        assert_near("rotated", &x, &want, 1e-6);
        exec(2, |exec| rotary::rotate(exec, &mut x, table, dims, !inverse));
        assert_near("and back", &x, &widen(&before), 1e-6);
    }

    #[test]
    fn rows_of_tables(count in 0..150usize, vocab in 1..40usize, d in 1..150usize, seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let tokens = random.tokens(count, vocab);
        let (table, dy) = (random.normals(vocab * d, 1.0), random.normals(count * d, 1.0));
        let (mut y, mut dtable) = (vec![f32::NAN; count * d], vec![1.0; vocab * d]);
        exec(2, |exec| {
            rows::gather(exec, &table, &tokens, &mut y, d);
            rows::scatter_add(exec, &mut dtable, &tokens, &dy, d);
        });
        let mut want = vec![1.0; vocab * d];
        for (r, &token) in tokens.iter().enumerate() {
            for j in 0..d {
                prop_assert_eq!(y[r * d + j], table[token as usize * d + j]);
                want[token as usize * d + j] += f64::from(dy[r * d + j]);
            }
        }
        assert_near("dtable", &dtable, &want, BAR);
    }

    #[test]
    fn cross_entropies(
        rows in 1..60usize, vocab in prop_oneof![1..5usize, 2..300usize], d in 1..40usize,
        frozen in any::<bool>(), seed in any::<u64>(),
    ) {
        check_cross_entropy(rows, vocab, d, frozen, seed);
    }

    #[test]
    fn optimizer_steps(len in prop_oneof![1..40usize, 16_380..16_390usize], decays in any::<bool>(), seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let mut p = random.normals(len, 1.0);
        let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
        let (mut want_p, mut want_m, mut want_v) = (widen(&p), widen(&m), widen(&v));
        for step in 1..=5 {
            let std = 10f64.powi(random.below(7) as i32 - 5);
            let g = random.normals(len, std);
            let scalars = ADAM.scalars(3e-3 * step as f32, if decays { 0.1 } else { 0.0 }, step);
            let update = adamw::Update { adam: ADAM, scalars, factor: 0.37 };
            exec(2, |exec| adamw::update(exec, update, &mut p, &g, [&mut m[..], &mut v[..]]));
            let factor = f64::from(0.37f32);
            reference::adamw(ADAM, scalars.map(f64::from), factor, &mut want_p, &widen(&g), &mut want_m, &mut want_v);
        }
        assert_near("p", &p, &want_p, 1e-6);
        assert_near("m", &m, &want_m, 2e-6);
        assert_near("v", &v, &want_v, 2e-6);
    }

    #[test]
    fn steps_towards(len in prop_oneof![0..40usize, 16_380..16_390usize], weight in 0f32..=1.0, seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let [x, y] = [(); 2].map(|()| random.normals(len, 1.0));
        let want: Vec<f64> = (x.iter().zip(&y))
            .map(|(&x, &y)| f64::from(y) + f64::from(weight) * (f64::from(x) - f64::from(y)))
            .collect();
        let mut got = y;
        exec(2, |exec| elementwise::lerp(exec, weight, &mut got, &x));
        assert_near("y", &got, &want, BAR);
    }

    #[test]
    fn sums(len in prop_oneof![0..50usize, 1020..1030usize, 16_380..40_000usize], seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let (x, mut y) = (random.normals(len, 3.0), random.normals(len, 1.0));
        let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        let squares = exec(2, |exec| {
            elementwise::add(exec, &mut y, &x);
            elementwise::sum_of_squares(exec, &x)
        });
        prop_assert_eq!(y, sum);
        let want: f64 = widen(&x).iter().map(|x| x * x).sum();
        prop_assert!((squares - want).abs() <= 1e-6 * want, "{squares} is not {want}");
    }
}

fn check_cross_entropy(rows: usize, vocab: usize, d: usize, frozen: bool, seed: u64) {
    let mut random = Random::new(seed);
    let (h, table) = (
        random.normals(rows * d, 1.0),
        random.normals(vocab * d, 1.0),
    );
    let targets = random.tokens(rows, vocab);
    let (scale, weight) = (0.6f32, 1.0 / rows as f32);
    let (wide_h, wide_table) = (widen(&h), widen(&table));
    let want = reference::cross_entropy(
        &wide_h,
        &wide_table,
        None,
        f64::from(scale),
        RowTargets::Classes(&targets),
        f64::from(weight),
        d,
    );
    let (want_nll, want_dh, mut want_dtable) = (want.losses, want.d_hidden, want.d_table);
    let [mut nll, mut dh, mut evaluated] = [rows, rows * d, rows].map(|len| vec![f32::NAN; len]);
    let mut dtable = vec![0.25; vocab * d];
    want_dtable.iter_mut().for_each(|g| *g += 0.25);
    let mut logits = vec![f32::NAN; rows * vocab];
    exec(2, |exec| {
        let gradient = cross_entropy::Gradient {
            weight,
            dh: &mut dh,
            dtable: (!frozen).then_some(&mut dtable[..]),
            dbias: None,
        };
        let head = cross_entropy::Head {
            hidden: &h,
            table: &table,
            bias: None,
            scale,
            width: d,
        };
        let classes = cross_entropy::Targets::Classes(&targets);
        cross_entropy::forward::<f32>(exec, head, classes, &mut nll, Some(gradient));
        cross_entropy::forward::<f32>(exec, head, classes, &mut evaluated, None);
        let (left, right) = (Mat::new(&h, rows, d), Mat::new(&table, vocab, d).t());
        let to = MatMut::new(&mut logits, rows, vocab);
        par_matmul::<f32>(exec, to, Write::Replace, left, right, scale);
    });
    let what = format!("{rows} rows, {vocab} tokens, width {d}");
    if vocab == 1 {
        assert!(
            nll.iter().chain(&dh).all(|x| x.abs() < 1e-6),
            "{what}: the only token is certain"
        );
    } else {
        // A loss near 0 is a difference of two large numbers: the error counts against 1.
        let off = nll
            .iter()
            .zip(&want_nll)
            .map(|(g, w)| (f64::from(*g) - w).abs() / w.abs().max(1.0));
        assert!(off.fold(0.0, f64::max) < 3e-6, "nll of {what}");
        // A token that is nearly certain leaves no gradient but rounding, which is relative to the weight.
        let off = max_error(&dh, &want_dh) * want_dh.iter().map(|w| w.abs()).fold(0.0, f64::max);
        assert!(
            off < 3e-6 * f64::from(weight) * 4.0,
            "dh of {what}: {off:e}"
        );
    }
    assert_eq!(nll, evaluated, "{what}");
    if frozen {
        assert!(
            dtable.iter().all(|g| *g == 0.25),
            "{what}: a frozen table has no gradient"
        );
    } else {
        assert_near(&format!("dtable of {what}"), &dtable, &want_dtable, BAR);
    }
    let want = reference::logits(&wide_h, &wide_table, f64::from(scale), d);
    assert_near(&format!("logits of {what}"), &logits, &want, BAR);
}

#[test]
fn cross_entropy_in_several_chunks() {
    let chunks = |rows, vocab| {
        let chunks = cross_entropy::chunks(rows, vocab);
        (chunks.count(), chunks.size())
    };
    // 32768 tokens: at most 512 rows a chunk.
    assert_eq!(chunks(512, 32_768), (1, 512));
    assert_eq!(chunks(520, 32_768), (2, 260));
    check_cross_entropy(520, 32_768, 3, false, 1);
    // A small vocabulary: at most 1024.
    assert_eq!(chunks(2050, 7), (3, 684));
    check_cross_entropy(2050, 7, 5, false, 2);
    // A large one: 64 all the same.
    assert_eq!(chunks(70, 300_000), (2, 35));
    assert_eq!(chunks(0, 7).0, 0);
    check_cross_entropy(70, 300_000, 2, true, 3);
}

#[test]
fn a_row_of_equal_numbers_has_a_finite_norm() {
    let d = 16;
    let x = vec![3.25; 2 * d];
    let (mut y, mut stats, mut dx) = (vec![f32::NAN; 2 * d], vec![0.0; 4], vec![f32::NAN; 2 * d]);
    exec(1, |exec| {
        layer_norm::forward(exec, &x, None, 1e-5, &mut y, &mut stats, d);
        let dx = (&mut dx[..], Write::Replace);
        layer_norm::backward(exec, layer_norm::Kept::Output(&y), &stats, None, &x, dx, d);
    });
    assert!(y.iter().chain(&dx).all(|y| *y == 0.0), "{y:?} {dx:?}");
}

fn first_update(lr: f32, weight_decay: f32) -> adamw::Update {
    adamw::Update {
        adam: ADAM,
        scalars: ADAM.scalars(lr, weight_decay, 1),
        factor: 1.0,
    }
}

#[test]
fn moments_in_bfloat16_are_rounded_after_the_update() {
    let mut random = Random::new(5);
    let len = 16_500;
    let halves = |x: Vec<f32>| -> Vec<Bf16> { x.into_iter().map(Bf16::from_f32).collect() };
    let wide = |x: &[Bf16]| -> Vec<f32> { x.iter().map(|x| x.to_f32()).collect() };
    let mut p = random.normals(len, 1.0);
    let mut m = halves(random.normals(len, 1.0));
    let mut v = halves(random.normals(len, 1.0).iter().map(|x| x * x).collect());
    let (mut want_p, mut want_m, mut want_v) = (p.clone(), wide(&m), wide(&v));
    let update = adamw::Update {
        factor: 0.37,
        ..first_update(0.01, 0.1)
    };
    let g = random.normals(len, 1.0);
    exec(2, |exec| {
        adamw::update(exec, update, &mut p, &g, [&mut m, &mut v]);
        let moments = [&mut want_m[..], &mut want_v[..]];
        adamw::update(exec, update, &mut want_p, &g, moments);
    });
    assert_eq!(p, want_p);
    assert!(m == halves(want_m) && v == halves(want_v));
}

#[test]
fn a_gradient_of_zero_moves_nothing_but_decay() {
    let (mut p, mut m, mut v) = (vec![2.0f32; 5], vec![0.0; 5], vec![0.0; 5]);
    let update = first_update(0.5, 0.1);
    exec(1, |exec| {
        adamw::update(exec, update, &mut p, &[0.0; 5], [&mut m[..], &mut v[..]])
    });
    assert_eq!(p, [2.0 * (1.0 - 0.05); 5]);
}

#[test]
fn the_first_update_has_the_size_of_the_rate() {
    let (mut p, mut m, mut v) = (vec![0.0f32; 2], vec![0.0; 2], vec![0.0; 2]);
    let update = first_update(0.01, 0.0);
    exec(1, |exec| {
        let moments = [&mut m[..], &mut v[..]];
        adamw::update(exec, update, &mut p, &[1e-3, -50.0], moments)
    });
    assert!(
        (p[0] + 0.01).abs() < 1e-6 && (p[1] - 0.01).abs() < 1e-6,
        "{p:?}"
    );
}

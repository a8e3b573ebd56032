//! LayerNorm, `(x − mean)/√(var + ε)` along a row with the biased variance; optionally `·gain + bias`.

use crate::exec::{Disjoint, Exec, Pieces};
use crate::simd::{lane_sum, simd};
use tokenformer_device::Write;

/// Rows per task.
const ROWS: usize = 32;
/// Columns per task of the gain and bias gradients.
const COLUMNS: usize = 64;

/// Gain and bias `[D]`.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// Multiplies the normalised row.
    pub gain: &'a [f32],
    /// Added afterwards.
    pub bias: &'a [f32],
}

/// `y` `[R, D]` from `x` `[R, D]`; `stats` `[R, 2]` receives mean and 1/√(var + ε).
pub fn forward(
    exec: &mut Exec<'_>,
    x: &[f32],
    affine: Option<Affine<'_>>,
    eps: f32,
    y: &mut [f32],
    stats: &mut [f32],
    d: usize,
) {
    assert_eq!((x.len(), stats.len()), (y.len(), x.len() / d * 2));
    let blocks = Pieces::new(x.len() / d, ROWS);
    let (y, stats) = (Disjoint::new(y), Disjoint::new(stats));
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        // SAFETY: tasks own disjoint rows.
        let (y, stats) = unsafe {
            (
                y.part(rows.start * d..rows.end * d),
                stats.part(rows.start * 2..rows.end * 2),
            )
        };
        let x = &x[rows.start * d..rows.end * d];
        let each = x.chunks_exact(d).zip(y.chunks_exact_mut(d));
        for ((x, y), stats) in each.zip(stats.chunks_exact_mut(2)) {
            let [mean, rstd] = normalise(x, y, eps);
            stats.copy_from_slice(&[mean, rstd]);
            if let Some(Affine { gain, bias }) = affine {
                scale_shift(y, gain, bias);
            }
        }
    });
}

/// What the forward pass saved for the backward pass.
#[derive(Clone, Copy)]
pub enum Kept<'a> {
    /// The output of a norm without gain and bias, which is the normalised row itself.
    Output(&'a [f32]),
    /// The input.
    Input(&'a [f32]),
}

/// Gradient of [`forward`] with respect to `x`, written to `dx` or added to it.
pub fn backward(
    exec: &mut Exec<'_>,
    kept: Kept<'_>,
    stats: &[f32],
    gain: Option<&[f32]>,
    dy: &[f32],
    dx: (&mut [f32], Write),
    d: usize,
) {
    let (dx, write) = dx;
    assert_eq!((dx.len(), stats.len()), (dy.len(), dy.len() / d * 2));
    let blocks = Pieces::new(dy.len() / d, ROWS);
    let dx = Disjoint::new(dx);
    exec.run(blocks.count(), d, |task, unit| {
        let rows = blocks.range(task);
        // SAFETY: tasks own disjoint rows.
        let dx = unsafe { dx.part(rows.start * d..rows.end * d) };
        for (row, dx) in rows.zip(dx.chunks_exact_mut(d)) {
            let part = row * d..(row + 1) * d;
            let rstd = stats[row * 2 + 1];
            let (source, shift, scale) = match kept {
                Kept::Output(y) => (&y[part.clone()], 0.0, 1.0),
                Kept::Input(x) => (&x[part.clone()], stats[row * 2], rstd),
            };
            unit_gradient(unit, &dy[part], gain.unwrap_or(&[]));
            input_gradient(dx, unit, source, shift, scale, rstd, write == Write::Add);
        }
    });
}

/// Gradients of gain and bias `[D]`, added to `dgain` and `dbias`; `x` is the input of the norm.
pub fn backward_affine(
    exec: &mut Exec<'_>,
    x: &[f32],
    stats: &[f32],
    dy: &[f32],
    dgain: &mut [f32],
    dbias: &mut [f32],
) {
    let d = dgain.len();
    assert_eq!(
        (dbias.len(), x.len(), stats.len()),
        (d, dy.len(), dy.len() / d * 2)
    );
    let pieces = Pieces::new(d, COLUMNS);
    let (dgain, dbias) = (Disjoint::new(dgain), Disjoint::new(dbias));
    exec.run(pieces.count(), 0, |task, _| {
        let cols = pieces.range(task);
        // SAFETY: tasks own disjoint columns.
        let (dgain, dbias) = unsafe { (dgain.part(cols.clone()), dbias.part(cols.clone())) };
        for (row, stats) in stats.chunks_exact(2).enumerate() {
            let part = row * d + cols.start..row * d + cols.end;
            let each = x[part.clone()].iter().zip(&dy[part]);
            for ((x, dy), (dgain, dbias)) in each.zip(dgain.iter_mut().zip(dbias.iter_mut())) {
                *dgain += dy * (x - stats[0]) * stats[1];
                *dbias += dy;
            }
        }
    });
}

simd! {
    /// Writes the normalised row; returns mean and 1/√(var + ε).
    fn normalise(x: &[f32], y: &mut [f32], eps: f32) -> [f32; 2] {
        let d = x.len();
        let mean = lane_sum(d, |i| x[i]) / d as f32;
        let var = lane_sum(d, |i| (x[i] - mean) * (x[i] - mean)) / d as f32;
        let rstd = 1.0 / (var + eps).sqrt();
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (x - mean) * rstd;
        }
        [mean, rstd]
    }
}
simd! {
    fn scale_shift(y: &mut [f32], gain: &[f32], bias: &[f32]) {
        for ((y, &g), &b) in y.iter_mut().zip(gain).zip(bias) {
            *y = y.mul_add(g, b);
        }
    }
}
simd! {
    /// Gradient with respect to the normalised row: `dy`, times the gain if there is one.
    fn unit_gradient(unit: &mut [f32], dy: &[f32], gain: &[f32]) {
        if gain.is_empty() {
            unit.copy_from_slice(dy);
        } else {
            for ((u, &dy), &g) in unit.iter_mut().zip(dy).zip(gain) {
                *u = dy * g;
            }
        }
    }
}
simd! {
    /// `dx (+)= rstd·(u − mean(u) − x̂·mean(u·x̂))` with `x̂ = (source − shift)·scale`.
    fn input_gradient(
        dx: &mut [f32], u: &[f32], source: &[f32], shift: f32, scale: f32, rstd: f32, add: bool,
    ) {
        let d = u.len();
        let x = |i: usize| (source[i] - shift) * scale;
        let mean = lane_sum(d, |i| u[i]) / d as f32;
        let inner = lane_sum(d, |i| u[i] * x(i)) / d as f32;
        let keep: f32 = if add { 1.0 } else { 0.0 };
        if !add {
            dx.fill(0.0);
        }
        for i in 0..d {
            dx[i] = keep.mul_add(dx[i], rstd * (u[i] - mean - x(i) * inner));
        }
    }
}

//! Pattention: attention between input tokens and parameter tokens,
//!
//! ```text
//! A = X·Kᵀ          scores        [R, N]
//! Σ = Θ(A)          weights       [R, N]
//! Y = Σ·V           output        [R, D_out]
//! ```
//!
//! with learnable keys `K` `[N, D_in]` and values `V` `[N, D_out]`; `R` rows of input, `N` parameter
//! tokens (paper, eq. 7 and 16). `Θ` works along `N`, one row at a time:
//!
//! | [`Theta`] | weights |
//! |---|---|
//! | `L2NormGelu` | `gelu(τ·a / (‖a‖ + ε))`, the paper's choice |
//! | `GeluL2Norm` | `τ·gelu(a) / (‖gelu(a)‖ + ε)` |
//! | `Softmax` | `τ²·softmax(a)` |
//!
//! A fresh site has `τ = √N`. Where this differs from the released PyTorch code:
//!
//! * `τ` is stored and not recomputed from `N`, so that appending tokens does not rescale old ones.
//! * A small `ε` is added to the norm: no 0/0 for a row without any score.
//! * `Softmax` subtracts the row's largest score first.
//! * The `N` tokens are an ordered list of **segments**, each with its own keys and values. With
//!   [`Norm::Joint`] one norm spans all of them, which is the paper's layer. With [`Norm::Segment`]
//!   each segment has its own norm and `τ`, and the outputs are added.
//!
//! Segments are always computed one after the other, and their partial sums added in order. So a new
//! segment whose contribution is zero leaves every bit of the output as it was.

mod prepared;

use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{
    Kept, Line, Mat, MatMut, Packed, Precision, SCRATCH, Source, Write, few_rows_dot, few_rows_sum,
    gemm_packed, packed_lines, par_gemm_packed, par_pack,
};
use crate::math::{exp, gelu, gelu_and_derivative};
use crate::simd::{lane_dot, lane_max, lane_sum, simd};

pub use prepared::{PreparedSite, forward_prepared};

/// The nonlinearity along the parameter tokens of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theta {
    /// L2 normalisation, then exact GELU.
    L2NormGelu,
    /// Exact GELU, then L2 normalisation.
    GeluL2Norm,
    /// Softmax times `τ²`.
    Softmax,
}

/// What a norm spans in a site of several segments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// All tokens of the site share one norm and this `τ`.
    Joint {
        /// Scale of the normalised scores.
        tau: f32,
    },
    /// Each segment has a norm and a `τ` of its own.
    Segment,
}

/// Consecutive parameter tokens of a site.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// Keys `[N_s, D_in]`.
    pub keys: &'a [f32],
    /// Values `[N_s, D_out]`.
    pub values: &'a [f32],
    /// Tokens `N_s`.
    pub tokens: usize,
    /// Scale used under [`Norm::Segment`].
    pub tau: f32,
}

/// A site: its nonlinearity, its norm and its tokens.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// Nonlinearity.
    pub theta: Theta,
    /// Span of the norm.
    pub norm: Norm,
    /// Added to each norm.
    pub eps: f32,
    /// The tokens.
    pub segments: &'a [Segment<'a>],
}

/// Where the gradients of one segment are added; `None` for a frozen segment, which costs nothing.
pub struct SegmentGrad<'a> {
    /// Gradient of the keys `[N_s, D_in]`.
    pub keys: &'a mut [f32],
    /// Gradient of the values `[N_s, D_out]`.
    pub values: &'a mut [f32],
}

/// What the backward pass needs from the forward pass; scores are kept in the precision of the products.
pub struct Saved<'a, K = f32> {
    /// Scores `A` `[R, N]`, segments side by side; empty in a forward pass whose scores [`scores`] will
    /// compute again.
    pub scores: &'a mut [K],
    /// Per row and norm group: `‖·‖`, or the log of the softmax denominator. `[R, groups]`.
    pub stats: &'a mut [f32],
}

impl Site<'_> {
    /// Parameter tokens `N` of all segments.
    pub fn tokens(&self) -> usize {
        self.segments.iter().map(|s| s.tokens).sum()
    }

    /// Norms per row: 1 under [`Norm::Joint`], the number of segments under [`Norm::Segment`].
    pub fn groups(&self) -> usize {
        match self.norm {
            Norm::Joint { .. } => 1,
            Norm::Segment => self.segments.len(),
        }
    }

    /// Column ranges and `τ` of the norm groups.
    fn group(&self, group: usize) -> (std::ops::Range<usize>, f32) {
        match self.norm {
            Norm::Joint { tau } => (0..self.segments.len(), tau),
            Norm::Segment => (group..group + 1, self.segments[group].tau),
        }
    }

    fn offset(&self, segment: usize) -> usize {
        self.segments[..segment].iter().map(|s| s.tokens).sum()
    }
}

/// Rows per task: the block's weights `[64, N]` stay in the second-level cache for usual `N`.
const ROW_BLOCK: usize = 64;
/// Below this many rows, threads share the tokens of a site instead of its rows.
const FEW_ROWS: usize = 8;

/// One weight matrix per segment, which is packed before the rows are handed out.
struct Weights<'a> {
    segments: &'a [Segment<'a>],
    of: &'a (dyn Fn(&Segment<'a>) -> Mat<'a> + Sync),
}

impl<'a> Weights<'a> {
    /// Lines that the packed matrices of the first `count` segments take.
    fn lines<P: Precision>(&self, count: usize) -> usize {
        let lines = |segment| {
            let [k, n] = (self.of)(segment).shape();
            packed_lines::<P>(k, n)
        };
        self.segments[..count].iter().map(lines).sum()
    }

    /// Packs the matrices into `lines`, one after the other.
    fn pack<P: Precision>(&self, exec: &mut Exec<'_>, lines: &mut [Line])
    where
        f32: Source<P>,
    {
        for (s, segment) in self.segments.iter().enumerate() {
            let block = &mut lines[self.lines::<P>(s)..self.lines::<P>(s + 1)];
            par_pack::<P, f32>(exec, block, (self.of)(segment));
        }
    }

    /// The packed matrix of segment `s`.
    fn block<'l, P: Precision>(&self, lines: &'l [Line], s: usize) -> Packed<'l, P> {
        let [k, n] = (self.of)(&self.segments[s]).shape();
        Packed::new(&lines[self.lines::<P>(s)..self.lines::<P>(s + 1)], k, n)
    }
}

/// `Y = Θ(X·Kᵀ)·V`: `x` `[R, d_in]` to `y` `[R, d_out]`; with `saved`, what [`backward`] needs is kept.
pub fn forward<P: Precision>(
    exec: &mut Exec<'_>,
    site: &Site<'_>,
    x: &[f32],
    y: &mut [f32],
    [r, d_in, d_out]: [usize; 3],
    saved: Option<Saved<'_, P::Kept>>,
) where
    f32: Source<P>,
{
    let n = site.tokens();
    let groups = site.groups();
    assert_eq!((x.len(), y.len()), (r * d_in, r * d_out));
    if r == 0 {
        return;
    }
    if let (true, None) = (r < FEW_ROWS, &saved) {
        return forward_few_rows(exec, site, x, y, [r, d_in, d_out]);
    }
    let (keep, scores, stats) = match saved {
        Some(saved) => {
            assert!([0, r * n].contains(&saved.scores.len()));
            assert_eq!(saved.stats.len(), r * groups);
            (true, saved.scores, saved.stats)
        }
        None => (false, &mut [][..], &mut [][..]),
    };
    let keep_scores = !scores.is_empty();
    let segments = site.segments;
    let keys = Weights {
        segments,
        of: &|s| Mat::new(s.keys, s.tokens, d_in).t(),
    };
    let values = Weights {
        segments,
        of: &|s| Mat::new(s.values, s.tokens, d_out),
    };
    let [key_lines, value_lines] = [
        keys.lines::<P>(segments.len()),
        values.lines::<P>(segments.len()),
    ];
    let mut lines = exec.scratch.take_lines(key_lines + value_lines);
    keys.pack::<P>(exec, &mut lines[..key_lines]);
    values.pack::<P>(exec, &mut lines[key_lines..]);
    let (key_lines, value_lines) = lines.split_at(key_lines);

    let (scores, stats, y) = (
        Disjoint::new(scores),
        Disjoint::new(stats),
        Disjoint::new(y),
    );
    let blocks = Pieces::new(r, ROW_BLOCK);
    exec.run(
        blocks.count(),
        ROW_BLOCK * (n + groups) + SCRATCH,
        |task, scratch| {
            let rows = blocks.range(task);
            let x = Mat::new(&x[rows.start * d_in..rows.end * d_in], rows.len(), d_in);
            let (work, scratch) = scratch.split_at_mut(SCRATCH);
            let (weights, scratch) = scratch.split_at_mut(ROW_BLOCK * n);
            let weights = &mut weights[..rows.len() * n];
            for (s, segment) in site.segments.iter().enumerate() {
                let a = MatMut::strided(
                    &mut weights[site.offset(s)..],
                    rows.len(),
                    segment.tokens,
                    n,
                );
                gemm_packed(
                    a,
                    Write::Replace,
                    x,
                    keys.block::<P>(key_lines, s),
                    1.0,
                    work,
                );
            }
            let stats = if keep {
                if keep_scores {
                    // SAFETY: tasks own disjoint rows.
                    let scores = unsafe { scores.part(rows.start * n..rows.end * n) };
                    P::Kept::keep(scores, weights);
                }
                // SAFETY: as above.
                unsafe { stats.part(rows.start * groups..rows.end * groups) }
            } else {
                &mut scratch[..rows.len() * groups]
            };
            for (row, stats) in weights
                .chunks_exact_mut(n)
                .zip(stats.chunks_exact_mut(groups))
            {
                theta_row(site, row, stats);
            }
            // SAFETY: tasks own disjoint rows.
            let y = unsafe { y.part(rows.start * d_out..rows.end * d_out) };
            for (s, segment) in site.segments.iter().enumerate() {
                let sigma = Mat::strided(&weights[site.offset(s)..], rows.len(), segment.tokens, n);
                let y = MatMut::new(y, rows.len(), d_out);
                gemm_packed(
                    y,
                    Write::nth(s),
                    sigma,
                    values.block::<P>(value_lines, s),
                    1.0,
                    work,
                );
            }
        },
    );
}

/// `scores` `[R, N] = X·Kᵀ` again, to the bit what [`forward`] keeps.
pub fn scores<P: Precision>(
    exec: &mut Exec<'_>,
    site: &Site<'_>,
    x: &[f32],
    [r, d_in]: [usize; 2],
    scores: &mut [P::Kept],
) where
    f32: Source<P>,
{
    let n = site.tokens();
    assert_eq!((x.len(), scores.len()), (r * d_in, r * n));
    let keys = Weights {
        segments: site.segments,
        of: &|s| Mat::new(s.keys, s.tokens, d_in).t(),
    };
    let mut lines = exec
        .scratch
        .take_lines(keys.lines::<P>(site.segments.len()));
    keys.pack::<P>(exec, &mut lines);
    let scores = Disjoint::new(scores);
    let blocks = Pieces::new(r, ROW_BLOCK);
    let block = P::Kept::SCRATCH * ROW_BLOCK * n;
    exec.run(blocks.count(), SCRATCH + block, |task, work| {
        let rows = blocks.range(task);
        let (work, numbers) = work.split_at_mut(SCRATCH);
        let x = Mat::new(&x[rows.start * d_in..rows.end * d_in], rows.len(), d_in);
        // SAFETY: tasks own disjoint rows.
        let scores = unsafe { scores.part(rows.start * n..rows.end * n) };
        P::Kept::write(scores, numbers, |scores| {
            for (s, segment) in site.segments.iter().enumerate() {
                let out = &mut scores[site.offset(s)..];
                let out = MatMut::strided(out, rows.len(), segment.tokens, n);
                let keys = keys.block::<P>(&lines, s);
                gemm_packed(out, Write::Replace, x, keys, 1.0, work);
            }
        });
    });
}

/// The same for a handful of rows (decoding): every weight is read once, by one thread.
fn forward_few_rows(
    exec: &mut Exec<'_>,
    site: &Site<'_>,
    x: &[f32],
    y: &mut [f32],
    [r, d_in, d_out]: [usize; 3],
) {
    let (n, groups) = (site.tokens(), site.groups());
    // The scratch blocks belong to tasks, so the weights of the whole call have a block of their own.
    let mut weights = exec.scratch.take_shared(r * (n + groups));
    let (sigma, stats) = weights.split_at_mut(r * n);
    for (s, segment) in site.segments.iter().enumerate() {
        few_rows_dot(
            exec,
            &mut sigma[site.offset(s)..],
            n,
            x,
            segment.keys,
            d_in,
            1.0,
        );
    }
    for (row, stats) in sigma
        .chunks_exact_mut(n)
        .zip(stats.chunks_exact_mut(groups))
    {
        theta_row(site, row, stats);
    }
    for (s, segment) in site.segments.iter().enumerate() {
        few_rows_sum(
            exec,
            y,
            Write::nth(s),
            &sigma[site.offset(s)..],
            n,
            segment.values,
            d_out,
        );
    }
}

/// Gradients of [`forward`]. `saved` is consumed: its scores are overwritten. `scratch` `[R, N]` is a
/// work area. `dx` is written according to `dx_write`; gradients of segments are added to.
#[allow(clippy::too_many_arguments)]
pub fn backward<P: Precision>(
    exec: &mut Exec<'_>,
    site: &Site<'_>,
    x: &[f32],
    dy: &[f32],
    [r, d_in, d_out]: [usize; 3],
    saved: Saved<'_, P::Kept>,
    work: &mut [P::Kept],
    dx: Option<(&mut [f32], Write)>,
    grads: &mut [Option<SegmentGrad<'_>>],
) where
    f32: Source<P>,
{
    let n = site.tokens();
    let groups = site.groups();
    assert_eq!(
        (x.len(), dy.len(), work.len()),
        (r * d_in, r * d_out, r * n)
    );
    assert_eq!((saved.scores.len(), saved.stats.len()), (r * n, r * groups));
    assert_eq!(grads.len(), site.segments.len());
    if r == 0 {
        return;
    }
    let stats = &*saved.stats;
    let segments = site.segments;
    let values = Weights {
        segments,
        of: &|s| Mat::new(s.values, s.tokens, d_out).t(),
    };
    let keys = Weights {
        segments,
        of: &|s| Mat::new(s.keys, s.tokens, d_in),
    };
    {
        let mut lines = exec.scratch.take_lines(values.lines::<P>(segments.len()));
        values.pack::<P>(exec, &mut lines);
        let scores = Disjoint::new(&mut *saved.scores);
        let work = Disjoint::new(&mut *work);
        let blocks = Pieces::new(r, ROW_BLOCK);
        let block = P::Kept::SCRATCH * ROW_BLOCK * n;
        exec.run(blocks.count(), SCRATCH + 2 * block, |task, scratch| {
            let rows = blocks.range(task);
            let (scratch, numbers) = scratch.split_at_mut(SCRATCH);
            let (score_numbers, da_numbers) = numbers.split_at_mut(block);
            let dy = Mat::new(&dy[rows.start * d_out..rows.end * d_out], rows.len(), d_out);
            // SAFETY: tasks own disjoint rows.
            let scores = unsafe { scores.part(rows.start * n..rows.end * n) };
            // SAFETY: as above.
            let da = unsafe { work.part(rows.start * n..rows.end * n) };
            P::Kept::write(da, da_numbers, |da| {
                for (s, segment) in segments.iter().enumerate() {
                    let out =
                        MatMut::strided(&mut da[site.offset(s)..], rows.len(), segment.tokens, n);
                    let values = values.block::<P>(&lines, s);
                    gemm_packed(out, Write::Replace, dy, values, 1.0, scratch);
                }
                P::Kept::edit(scores, score_numbers, |scores| {
                    let stats = &stats[rows.start * groups..rows.end * groups];
                    let each = scores.chunks_exact_mut(n).zip(da.chunks_exact_mut(n));
                    for ((scores, da), stats) in each.zip(stats.chunks_exact(groups)) {
                        theta_row_backward(site, scores, da, stats);
                    }
                });
            });
        });
    }
    if let Some((dx, write)) = dx {
        assert_eq!(dx.len(), r * d_in);
        let mut lines = exec.scratch.take_lines(keys.lines::<P>(segments.len()));
        keys.pack::<P>(exec, &mut lines);
        for (s, segment) in segments.iter().enumerate() {
            let da = Mat::strided(&work[site.offset(s)..], r, segment.tokens, n);
            let write = if s == 0 { write } else { Write::Add };
            let dx = MatMut::new(dx, r, d_in);
            par_gemm_packed(exec, dx, write, da, keys.block::<P>(&lines, s), 1.0);
        }
    }
    if grads.iter().all(Option::is_none) {
        return;
    }
    let (dy_lines, x_lines) = (packed_lines::<P>(r, d_out), packed_lines::<P>(r, d_in));
    let mut lines = exec.scratch.take_lines(dy_lines + x_lines);
    {
        let (dy_lines, x_lines) = lines.split_at_mut(dy_lines);
        let dy = par_pack::<P, f32>(exec, dy_lines, Mat::new(dy, r, d_out));
        let x = par_pack::<P, f32>(exec, x_lines, Mat::new(x, r, d_in));
        for (s, (segment, grad)) in site.segments.iter().zip(grads).enumerate() {
            let Some(grad) = grad else { continue };
            let columns = |m| Mat::strided(m, r, segment.tokens, n).t(); // [N_s, R]
            let sigma = columns(&saved.scores[site.offset(s)..]);
            let values = MatMut::new(grad.values, segment.tokens, d_out);
            par_gemm_packed(exec, values, Write::Add, sigma, dy, 1.0);
            let da = columns(&work[site.offset(s)..]);
            let keys = MatMut::new(grad.keys, segment.tokens, d_in);
            par_gemm_packed(exec, keys, Write::Add, da, x, 1.0);
        }
    }
}

/// Scores of a row to weights, in place; `stats` receives what the backward pass needs per group.
fn theta_row(site: &Site<'_>, row: &mut [f32], stats: &mut [f32]) {
    for (group, stat) in stats.iter_mut().enumerate() {
        let (segments, tau) = site.group(group);
        let parts = || segments.clone().map(|s| site.columns(s));
        match site.theta {
            Theta::L2NormGelu => {
                let norm = parts()
                    .map(|c| dot(&row[c.clone()], &row[c]))
                    .sum::<f32>()
                    .sqrt();
                let scale = tau / (norm + site.eps);
                parts().for_each(|c| gelu_scaled(&mut row[c], scale));
                *stat = norm;
            }
            Theta::GeluL2Norm => {
                parts().for_each(|c| gelu_scaled(&mut row[c], 1.0));
                let norm = parts()
                    .map(|c| dot(&row[c.clone()], &row[c]))
                    .sum::<f32>()
                    .sqrt();
                let scale = tau / (norm + site.eps);
                parts().for_each(|c| scale_in_place(&mut row[c], scale));
                *stat = norm;
            }
            Theta::Softmax => {
                let max = parts()
                    .map(|c| max(&row[c]))
                    .fold(f32::NEG_INFINITY, f32::max);
                let sum = parts().map(|c| exp_minus(&mut row[c], max)).sum::<f32>();
                parts().for_each(|c| scale_in_place(&mut row[c], tau * tau / sum));
                *stat = max + sum.ln();
            }
        }
    }
}

/// `scores` A → weights Σ and `da` dΣ → dA, both in place.
fn theta_row_backward(site: &Site<'_>, scores: &mut [f32], da: &mut [f32], stats: &[f32]) {
    for (group, &stat) in stats.iter().enumerate() {
        let (segments, tau) = site.group(group);
        let parts = || segments.clone().map(|s| site.columns(s));
        // Both normed kinds: with s = τ/(‖u‖+ε), dU = s·(dZ − U·(U·dZ)/(‖u‖(‖u‖+ε))).
        let (norm, inv) = (stat, 1.0 / (stat + site.eps));
        let scale = tau * inv;
        let projection = |inner: f32| if norm > 0.0 { inner * inv / norm } else { 0.0 };
        match site.theta {
            Theta::L2NormGelu => {
                // dZ = dΣ ⊙ gelu'(Z) replaces dΣ; U = A.
                let inner = parts()
                    .map(|c| gelu_grad(&mut da[c.clone()], &scores[c], scale))
                    .sum();
                let p = projection(inner);
                for c in parts() {
                    remove_projection(&mut da[c.clone()], &scores[c.clone()], scale, p);
                    gelu_scaled(&mut scores[c], scale);
                }
            }
            Theta::GeluL2Norm => {
                let inner = parts().map(|c| gelu_dot(&da[c.clone()], &scores[c])).sum();
                let p = projection(inner);
                for c in parts() {
                    gelu_l2_backward(&mut da[c.clone()], &mut scores[c], scale, p);
                }
            }
            Theta::Softmax => {
                for c in parts() {
                    exp_minus(&mut scores[c], stat);
                }
                let inner = parts()
                    .map(|c| dot(&da[c.clone()], &scores[c]))
                    .sum::<f32>();
                for c in parts() {
                    softmax_backward(&mut da[c.clone()], &mut scores[c], tau * tau, inner);
                }
            }
        }
    }
}

impl Site<'_> {
    fn columns(&self, segment: usize) -> std::ops::Range<usize> {
        let start = self.offset(segment);
        start..start + self.segments[segment].tokens
    }
}

simd! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        lane_dot(a, b)
    }
}
simd! {
    fn max(a: &[f32]) -> f32 {
        lane_max(a)
    }
}
simd! {
    fn scale_in_place(a: &mut [f32], scale: f32) {
        a.iter_mut().for_each(|a| *a *= scale);
    }
}
simd! {
    /// `a = gelu(scale · a)`.
    fn gelu_scaled(a: &mut [f32], scale: f32) {
        a.iter_mut().for_each(|a| *a = gelu(scale * *a));
    }
}
simd! {
    /// `a = exp(a - shift)`; returns the sum.
    fn exp_minus(a: &mut [f32], shift: f32) -> f32 {
        a.iter_mut().for_each(|a| *a = exp(*a - shift));
        lane_sum(a.len(), |i| a[i])
    }
}
simd! {
    /// `d = d ⊙ gelu'(scale · a)`; returns `a·d` afterwards.
    fn gelu_grad(d: &mut [f32], a: &[f32], scale: f32) -> f32 {
        for (d, &a) in d.iter_mut().zip(a) {
            *d *= gelu_and_derivative(scale * a).1;
        }
        lane_dot(d, a)
    }
}
simd! {
    /// `d = scale · (d − p · u)`.
    fn remove_projection(d: &mut [f32], u: &[f32], scale: f32, p: f32) {
        for (d, &u) in d.iter_mut().zip(u) {
            *d = scale * (-p).mul_add(u, *d);
        }
    }
}
simd! {
    /// `Σ d·gelu(a)`.
    fn gelu_dot(d: &[f32], a: &[f32]) -> f32 {
        lane_sum(d.len(), |i| d[i] * gelu(a[i]))
    }
}
simd! {
    /// With `u = gelu(a)`: `d = scale·(d − p·u)·gelu'(a)` and `a = scale·u`.
    fn gelu_l2_backward(d: &mut [f32], a: &mut [f32], scale: f32, p: f32) {
        for (d, a) in d.iter_mut().zip(a) {
            let (u, du) = gelu_and_derivative(*a);
            *d = scale * (-p).mul_add(u, *d) * du;
            *a = scale * u;
        }
    }
}
simd! {
    /// With probabilities `p`: `d = scale·p·(d − inner)` and `p = scale·p`.
    fn softmax_backward(d: &mut [f32], p: &mut [f32], scale: f32, inner: f32) {
        for (d, p) in d.iter_mut().zip(p) {
            *p *= scale;
            *d = *p * (*d - inner);
        }
    }
}

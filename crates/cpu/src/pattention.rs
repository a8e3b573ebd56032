//! Pattention: attention between input tokens and parameter tokens,
//!
//! ```text
//! A = X·Kᵀ          scores        [R, N]
//! Σ = Θ(A)          weights       [R, N]
//! Y = Σ·V           output        [R, D_out]
//! ```
//!
//! with learnable keys `K` `[N, D_in]` and values `V` `[N, D_out]`; `R` rows of input, `N` parameter
//! tokens (paper, eq. 7 and 16). `Θ` is applied along `N`, one row at a time; [`tokenformer_device::Theta`] lists the
//! formulas.
//!
//! A new site has `τ = √N`. Differences from the released PyTorch code:
//!
//! * `τ` is stored instead of recomputed from `N`, so that appending tokens does not rescale old ones.
//! * A small `ε` is added to the norm: it prevents 0/0 for a row of zero scores.
//! * `Softmax` subtracts the row's largest score first.
//! * The `N` tokens are an ordered list of **segments**, each with its own keys and values. With
//!   [`NormSpan::Joint`] one norm spans all of them, which is the paper's layer. With [`NormSpan::Segment`]
//!   each segment has its own norm and `τ`, and the outputs are added.
//!
//! Segments are always computed one after the other, and their partial sums are added in order. So a new segment whose
//! contribution is zero does not change any bit of the output.

mod packed;
mod parts;
mod theta;

use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{
    Element, Kept, Line, Mat, MatMut, Packed, SCRATCH, Source, few_rows_dot, few_rows_sum,
    gemm_packed, packed_lines, par_gemm_packed, par_pack,
};
use theta::{theta_row, theta_row_backward};
#[cfg(doc)]
use tokenformer_device::NormSpan;
use tokenformer_device::{SiteDims, Write};

pub use packed::{PackedSite, forward_packed};
pub use parts::{backward_of_part, projections_of_part, statistics_of_part, weights_of_part};

/// A site whose matrices are numbers in memory.
pub type Site<'a> = tokenformer_device::Site<'a, &'a [f32]>;
/// A segment of such a site.
pub type Segment<'a> = tokenformer_device::Segment<&'a [f32]>;

/// Buffers to which the gradients of one segment are added; `None` for a frozen segment, for which nothing is computed.
pub struct SegmentGrad<'a> {
    /// Gradient of the keys `[N_s, D_in]`.
    pub keys: &'a mut [f32],
    /// Gradient of the values `[N_s, D_out]`.
    pub values: &'a mut [f32],
}

/// Values that the backward pass needs from the forward pass; scores are stored in the precision of the products.
pub struct Saved<'a, K = f32> {
    /// Scores `A` `[R, N]`, segments side by side; empty in a forward pass whose scores [`scores`] will recompute.
    pub scores: &'a mut [K],
    /// Per row and norm group: `‖·‖`, or the log of the softmax denominator. `[R, groups]`.
    pub stats: &'a mut [f32],
}

/// Rows per task. The block's weights `[64, N]` stay in the second-level cache for usual `N`.
const ROW_BLOCK: usize = 64;
/// Below this many rows, threads share the tokens of a site instead of its rows, and read its matrices in place. Products in
/// bfloat16 round them, so there a few rows are computed as many are.
const FEW_ROWS: usize = 8;

/// One weight matrix per segment, which is packed before the rows are distributed to tasks.
struct Weights<'a> {
    segments: &'a [Segment<'a>],
    of: &'a (dyn Fn(&Segment<'a>) -> Mat<'a> + Sync),
}

impl<'a> Weights<'a> {
    /// Number of lines that the packed matrices of the first `count` segments take.
    fn lines<P: Element>(&self, count: usize) -> usize {
        let lines = |segment| {
            let [k, n] = (self.of)(segment).shape();
            packed_lines::<P>(k, n)
        };
        self.segments[..count].iter().map(lines).sum()
    }

    /// Packs the matrices into `lines`, one after the other.
    fn pack<P: Element>(&self, exec: &mut Exec<'_>, lines: &mut [Line])
    where
        f32: Source<P>,
    {
        for (s, segment) in self.segments.iter().enumerate() {
            let block = &mut lines[self.lines::<P>(s)..self.lines::<P>(s + 1)];
            par_pack::<P, f32>(exec, block, (self.of)(segment));
        }
    }

    /// The packed matrix of segment `s`.
    fn block<'l, P: Element>(&self, lines: &'l [Line], s: usize) -> Packed<'l, P> {
        let [k, n] = (self.of)(&self.segments[s]).shape();
        Packed::new(&lines[self.lines::<P>(s)..self.lines::<P>(s + 1)], k, n)
    }
}

/// `Y = Θ(X·Kᵀ)·V`: `x` `[R, d_in]` to `y` `[R, d_out]`; `saved` receives what [`backward`] needs.
pub fn forward<P: Element>(
    exec: &mut Exec<'_>,
    site: &Site<'_>,
    x: &[f32],
    y: &mut [f32],
    dims: SiteDims,
    saved: Option<Saved<'_, P::Kept>>,
) where
    f32: Source<P>,
{
    let SiteDims {
        rows: r,
        d_in,
        d_out,
    } = dims;
    let n = site.tokens();
    let groups = site.groups();
    assert_eq!((x.len(), y.len()), (r * d_in, r * d_out));
    if r == 0 {
        return;
    }
    if P::IS_EXACT && r < FEW_ROWS && saved.is_none() {
        return forward_few_rows(exec, site, x, y, dims);
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
            let stats = match keep {
                // SAFETY: tasks own disjoint rows.
                true => unsafe { stats.part(rows.start * groups..rows.end * groups) },
                false => &mut scratch[..rows.len() * groups],
            };
            let kept = match keep_scores {
                // SAFETY: as above.
                true => unsafe { scores.part(rows.start * n..rows.end * n) },
                false => &mut [],
            };
            let mut product = |to: &mut [f32]| {
                for (s, segment) in site.segments.iter().enumerate() {
                    let a = &mut to[site.offset(s)..];
                    let a = MatMut::strided(a, rows.len(), segment.tokens, n);
                    let keys = keys.block::<P>(key_lines, s);
                    gemm_packed(a, Write::Replace, x, keys, 1.0, work);
                }
            };
            let rows_of_stats = stats.chunks_exact_mut(groups);
            let rows_of_weights = weights.chunks_exact_mut(n);
            match P::Kept::exact(kept).filter(|_| keep_scores) {
                // The scores go where they are kept, because the kernels prefetch what they will write, and a copy of a
                // row that was just written is quick.
                Some(scores) => {
                    product(scores);
                    let each = scores.chunks_exact(n).zip(rows_of_weights);
                    for ((scores, row), stats) in each.zip(rows_of_stats) {
                        row.copy_from_slice(scores);
                        theta_row(site, row, stats);
                    }
                }
                None => {
                    product(weights);
                    if keep_scores {
                        P::Kept::keep(kept, weights);
                    }
                    for (row, stats) in weights.chunks_exact_mut(n).zip(rows_of_stats) {
                        theta_row(site, row, stats);
                    }
                }
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

/// Recomputes `scores` `[R, N] = X·Kᵀ`, with the same bits that [`forward`] stores.
pub fn scores<P: Element>(
    exec: &mut Exec<'_>,
    site: &Site<'_>,
    x: &[f32],
    SiteDims { rows: r, d_in, .. }: SiteDims,
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

/// As [`forward`], for a few rows (decoding): every weight is read once, by one thread.
fn forward_few_rows(
    exec: &mut Exec<'_>,
    site: &Site<'_>,
    x: &[f32],
    y: &mut [f32],
    SiteDims {
        rows: r,
        d_in,
        d_out,
    }: SiteDims,
) {
    let (n, groups) = (site.tokens(), site.groups());
    // The scratch blocks belong to tasks, so the attention weights of the whole call are in a shared block.
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

/// Gradients of [`forward`]. The scores of `saved` are overwritten. `scratch` `[R, N]` is scratch memory. `dx` is
/// replaced or added to as `dx_write` says; gradients of segments are added to.
#[allow(clippy::too_many_arguments)]
pub fn backward<P: Element>(
    exec: &mut Exec<'_>,
    site: &Site<'_>,
    x: &[f32],
    dy: &[f32],
    SiteDims {
        rows: r,
        d_in,
        d_out,
    }: SiteDims,
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
        exec.run(blocks.count(), SCRATCH + n + 2 * block, |task, scratch| {
            let rows = blocks.range(task);
            let (scratch, numbers) = scratch.split_at_mut(SCRATCH);
            let (spare, numbers) = numbers.split_at_mut(n);
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
                        theta_row_backward(site, scores, da, stats, spare);
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

/// `Θ` along each row of `scores` `[R, N]`, in place; `stats` `[R, groups]` receives what [`theta_backward`] needs. The
/// matrices of the site are not used.
pub fn theta<W: Sync>(
    exec: &mut Exec<'_>,
    site: &tokenformer_device::Site<'_, W>,
    scores: &mut [f32],
    stats: &mut [f32],
) {
    let (n, groups) = (site.tokens(), site.groups());
    assert_eq!(scores.len() / n, stats.len() / groups);
    let blocks = Pieces::new(scores.len() / n, ROW_BLOCK);
    let (scores, stats) = (Disjoint::new(scores), Disjoint::new(stats));
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        // SAFETY: tasks own disjoint rows.
        let scores = unsafe { scores.part(rows.start * n..rows.end * n) };
        // SAFETY: as above.
        let stats = unsafe { stats.part(rows.start * groups..rows.end * groups) };
        let each = scores
            .chunks_exact_mut(n)
            .zip(stats.chunks_exact_mut(groups));
        each.for_each(|(row, stats)| theta_row(site, row, stats));
    });
}

/// Gradient of [`theta`]: `scores` are replaced by weights, and `d_scores` `[R, N]`, the gradient of the weights, by
/// the gradient of the scores.
pub fn theta_backward<W: Sync>(
    exec: &mut Exec<'_>,
    site: &tokenformer_device::Site<'_, W>,
    scores: &mut [f32],
    stats: &[f32],
    d_scores: &mut [f32],
) {
    let (n, groups) = (site.tokens(), site.groups());
    assert_eq!(scores.len(), d_scores.len());
    let blocks = Pieces::new(scores.len() / n, ROW_BLOCK);
    let (scores, d_scores) = (Disjoint::new(scores), Disjoint::new(d_scores));
    exec.run(blocks.count(), n, |task, spare| {
        let rows = blocks.range(task);
        let part = rows.start * n..rows.end * n;
        // SAFETY: tasks own disjoint rows.
        let (scores, d_scores) = unsafe { (scores.part(part.clone()), d_scores.part(part)) };
        let stats = &stats[rows.start * groups..rows.end * groups];
        let each = scores.chunks_exact_mut(n).zip(d_scores.chunks_exact_mut(n));
        for ((scores, d), stats) in each.zip(stats.chunks_exact(groups)) {
            theta_row_backward(site, scores, d, stats, spare);
        }
    });
}

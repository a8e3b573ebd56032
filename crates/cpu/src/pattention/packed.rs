//! Pattention with weights that were packed for inference.

use super::theta::theta_row;
use crate::exec::{Disjoint, Exec, Pieces};
use crate::gemm::{Job, Mat, PackedWeights, par_products};
use tokenformer_device::{Site, SiteDims, Write};

/// A site whose keys are packed as `Kᵀ` `[D_in, N_s]` and whose values as `V` `[N_s, D_out]`.
pub type PackedSite<'a> = Site<'a, &'a PackedWeights>;

/// Rows that pass a site together, so that their scores stay in the last-level cache.
const CHUNK: usize = 512;
/// Number of scores up to which the nonlinearity is computed on one thread, since waking others would take longer.
const SMALL: usize = 8 << 10;

/// `ys[i]` `[R, D_out]` = Pattention of `x` `[R, D_in]` at `sites[i]`. Sites that share their input are
/// computed together, which wakes the threads less often.
///
/// # Panics
/// If lengths do not match.
pub fn forward_packed(
    exec: &mut Exec<'_>,
    sites: &[PackedSite<'_>],
    x: &[f32],
    ys: &mut [&mut [f32]],
    SiteDims {
        rows: r,
        d_in,
        d_out,
    }: SiteDims,
) {
    assert!(sites.len() == ys.len() && x.len() == r * d_in);
    assert!(ys.iter().all(|y| y.len() == r * d_out));
    let chunks = Pieces::new(r, CHUNK);
    for rows in (0..chunks.count()).map(|i| chunks.range(i)) {
        let x = Mat::new(&x[rows.start * d_in..rows.end * d_in], rows.len(), d_in);
        let mut ys: Vec<&mut [f32]> = (ys.iter_mut())
            .map(|y| &mut y[rows.start * d_out..rows.end * d_out])
            .collect();
        chunk(exec, sites, x, &mut ys, d_out);
    }
}

fn chunk(
    exec: &mut Exec<'_>,
    sites: &[PackedSite<'_>],
    x: Mat<'_>,
    ys: &mut [&mut [f32]],
    d_out: usize,
) {
    let [r, _] = x.shape();
    let widths = || sites.iter().map(|s| s.tokens());
    let segments = sites.iter().map(|s| s.segments.len()).max().unwrap_or(0);
    let mut work = exec.scratch.take_shared(r * widths().sum::<usize>());
    let mut scores = split(&mut work, widths().map(|n| r * n));
    // The segments of a site share rows of scores and of the output, so they are computed one after the other.
    for s in 0..segments {
        let mut jobs: Vec<Job<'_>> = (sites.iter().zip(&mut scores))
            .filter(|(site, _)| s < site.segments.len())
            .map(|(site, scores)| Job {
                y: &mut scores[site.offset(s)..],
                y_stride: site.tokens(),
                write: Write::Replace,
                x,
                weights: site.segments[s].keys,
                scale: 1.0,
            })
            .collect();
        par_products(exec, &mut jobs);
    }
    nonlinearity(exec, sites, &mut scores, r);
    for s in 0..segments {
        let mut jobs: Vec<Job<'_>> = (sites.iter().zip(&scores).zip(ys.iter_mut()))
            .filter(|((site, _), _)| s < site.segments.len())
            .map(|((site, scores), y)| Job {
                y,
                y_stride: d_out,
                write: Write::nth(s),
                x: Mat::strided(
                    &scores[site.offset(s)..],
                    r,
                    site.segments[s].tokens,
                    site.tokens(),
                ),
                weights: site.segments[s].values,
                scale: 1.0,
            })
            .collect();
        par_products(exec, &mut jobs);
    }
}

/// Consecutive parts of `all`.
fn split(mut all: &mut [f32], lens: impl Iterator<Item = usize>) -> Vec<&mut [f32]> {
    lens.map(|len| {
        let (part, rest) = std::mem::take(&mut all).split_at_mut(len);
        all = rest;
        part
    })
    .collect()
}

/// Converts scores to weights, in place, for the `r` rows of every site.
fn nonlinearity(
    exec: &mut Exec<'_>,
    sites: &[PackedSite<'_>],
    scores: &mut [&mut [f32]],
    r: usize,
) {
    let row = |site: &PackedSite<'_>, row: &mut [f32], stats: &mut Vec<f32>| {
        stats.resize(site.groups(), 0.0);
        theta_row(site, row, stats);
    };
    if scores.iter().map(|s| s.len()).sum::<usize>() <= SMALL {
        let mut stats = Vec::new();
        for (site, scores) in sites.iter().zip(scores) {
            for scores in scores.chunks_exact_mut(site.tokens()) {
                row(site, scores, &mut stats);
            }
        }
        return;
    }
    let scores: Vec<Disjoint<'_, f32>> = scores.iter_mut().map(|s| Disjoint::new(s)).collect();
    exec.run(sites.len() * r, 0, |task, _| {
        let (site, at) = (&sites[task / r], task % r);
        let n = site.tokens();
        // SAFETY: tasks own disjoint rows.
        let scores = unsafe { scores[task / r].part(at * n..(at + 1) * n) };
        row(site, scores, &mut Vec::new());
    });
}

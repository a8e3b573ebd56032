//! `Θ` of rows whose tokens are divided, see [`tokenformer_device::ThetaInParts`].

use super::ROW_BLOCK;
use super::theta::parts::{row_backward, row_projections, row_statistics, row_weights};
use crate::exec::{Disjoint, Exec, Pieces};
use tokenformer_device::Site;

/// Statistics of the scores `[R, N]` of one part of the tokens, see [`tokenformer_device::ThetaInParts`].
pub fn statistics_of_part<W: Sync>(
    exec: &mut Exec<'_>,
    site: &Site<'_, W>,
    scores: &[f32],
    stats: &mut [f32],
) {
    let (n, groups) = (site.tokens(), site.groups());
    let blocks = Pieces::new(scores.len() / n, ROW_BLOCK);
    let stats = Disjoint::new(stats);
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        let scores = &scores[rows.start * n..rows.end * n];
        // SAFETY: tasks own disjoint rows.
        let stats = unsafe { stats.part(rows.start * groups..rows.end * groups) };
        let each = scores.chunks_exact(n).zip(stats.chunks_exact_mut(groups));
        each.for_each(|(row, stats)| row_statistics(site, row, stats));
    });
}

/// Converts scores of one part of the tokens to weights, with statistics of all.
pub fn weights_of_part<W: Sync>(
    exec: &mut Exec<'_>,
    site: &Site<'_, W>,
    stats: &[f32],
    scores: &mut [f32],
) {
    let (n, groups) = (site.tokens(), site.groups());
    let blocks = Pieces::new(scores.len() / n, ROW_BLOCK);
    let scores = Disjoint::new(scores);
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        // SAFETY: tasks own disjoint rows.
        let scores = unsafe { scores.part(rows.start * n..rows.end * n) };
        let stats = &stats[rows.start * groups..rows.end * groups];
        let each = scores.chunks_exact_mut(n).zip(stats.chunks_exact(groups));
        each.for_each(|(row, stats)| row_weights(site, stats, row));
    });
}

/// What one part of the tokens adds to the projections `[R, groups]`.
pub fn projections_of_part<W: Sync>(
    exec: &mut Exec<'_>,
    site: &Site<'_, W>,
    scores: &[f32],
    stats: &[f32],
    d_scores: &[f32],
    projections: &mut [f32],
) {
    let (n, groups) = (site.tokens(), site.groups());
    assert_eq!(scores.len(), d_scores.len());
    let blocks = Pieces::new(scores.len() / n, ROW_BLOCK);
    let projections = Disjoint::new(projections);
    exec.run(blocks.count(), 0, |task, _| {
        let rows = blocks.range(task);
        let of_groups = rows.start * groups..rows.end * groups;
        // SAFETY: tasks own disjoint rows.
        let projections = unsafe { projections.part(of_groups.clone()) };
        let each = rows.clone().zip(projections.chunks_exact_mut(groups));
        for ((row, to), stats) in each.zip(stats[of_groups].chunks_exact(groups)) {
            let columns = row * n..(row + 1) * n;
            row_projections(
                site,
                &scores[columns.clone()],
                stats,
                &d_scores[columns],
                to,
            );
        }
    });
}

/// Gradient of [`weights_of_part`]: as [`super::theta_backward`], with statistics and projections of all tokens.
pub fn backward_of_part<W: Sync>(
    exec: &mut Exec<'_>,
    site: &Site<'_, W>,
    [stats, projections]: [&[f32]; 2],
    scores: &mut [f32],
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
        let each = scores.chunks_exact_mut(n).zip(d_scores.chunks_exact_mut(n));
        for (row, (scores, d)) in rows.zip(each) {
            let of_row = row * groups..(row + 1) * groups;
            let (stats, projections) = (&stats[of_row.clone()], &projections[of_row]);
            row_backward(site, stats, projections, scores, d, spare);
        }
    });
}

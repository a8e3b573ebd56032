//! `Θ` in parts.

use super::{
    Reference, row_backward, row_projections, row_statistics, row_weights, values, values_mut,
};
use crate::{Buffer, Result, SiteRef, ThetaInParts};

impl ThetaInParts for Reference {
    fn statistics(&self, site: &SiteRef<'_>, scores: &Buffer, stats: &mut Buffer) -> Result<()> {
        let stats = values_mut(stats).chunks_exact_mut(site.groups());
        for (row, stats) in values(scores).chunks_exact(site.tokens()).zip(stats) {
            row_statistics(site, row, stats);
        }
        Ok(())
    }

    fn weights(&self, site: &SiteRef<'_>, stats: &Buffer, scores: &mut Buffer) -> Result<()> {
        let stats = values(stats).chunks_exact(site.groups());
        for (row, stats) in values_mut(scores)
            .chunks_exact_mut(site.tokens())
            .zip(stats)
        {
            row_weights(site, stats, row);
        }
        Ok(())
    }

    fn projections(
        &self,
        site: &SiteRef<'_>,
        scores: &Buffer,
        stats: &Buffer,
        d: &Buffer,
        projections: &mut Buffer,
    ) -> Result<()> {
        let (n, groups) = (site.tokens(), site.groups());
        let rows = values(scores)
            .chunks_exact(n)
            .zip(values(d).chunks_exact(n));
        let stats = values(stats).chunks_exact(groups);
        let to = values_mut(projections).chunks_exact_mut(groups);
        for (((scores, d), stats), to) in rows.zip(stats).zip(to) {
            row_projections(site, scores, stats, d, to);
        }
        Ok(())
    }

    fn backward(
        &self,
        site: &SiteRef<'_>,
        stats: &Buffer,
        projections: &Buffer,
        scores: &mut Buffer,
        d: &mut Buffer,
    ) -> Result<()> {
        let (n, groups) = (site.tokens(), site.groups());
        let rows = (values_mut(scores).chunks_exact_mut(n)).zip(values_mut(d).chunks_exact_mut(n));
        let stats = values(stats).chunks_exact(groups);
        let projections = values(projections).chunks_exact(groups);
        for (((scores, d), stats), projections) in rows.zip(stats).zip(projections) {
            row_backward(site, stats, projections, scores, d);
        }
        Ok(())
    }
}

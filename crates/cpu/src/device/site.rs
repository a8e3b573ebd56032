//! Pattention on the CPU.

use super::storage::{floats, floats_mut, packed, scores_mut};
use super::{Bf16, Cpu, Precision, in_precision};
use crate::gemm::PackedWeights;
use crate::pattention::{self, PackedSite, Saved, Segment, SegmentGrad, Site};
use smallvec::SmallVec;
use tokenformer_device::{
    Buffer, FusedSite, Result, SegmentGradient, SiteDims, SiteRef, ThetaInParts, Write,
};

/// Number of segments of a site that are handled without an allocation.
const FEW: usize = 8;

/// Calls `run` with the site's buffers as slices.
fn with_site<T>(site: &SiteRef<'_>, run: impl FnOnce(&Site<'_>) -> T) -> T {
    let segments: SmallVec<[Segment<'_>; FEW]> = (site.segments.iter())
        .map(|s| Segment {
            keys: floats(s.keys),
            values: floats(s.values),
            tokens: s.tokens,
            tau: s.tau,
        })
        .collect();
    run(&Site {
        theta: site.theta,
        norm: site.norm,
        tau: site.tau,
        eps: site.eps,
        segments: &segments,
    })
}

/// Calls `run` with the sites if their weights are packed; either all are packed or none.
fn with_packed<T>(sites: &[SiteRef<'_>], run: impl FnOnce(&[PackedSite<'_>]) -> T) -> Option<T> {
    let mut segments = SmallVec::<[tokenformer_device::Segment<&PackedWeights>; FEW]>::new();
    for segment in sites.iter().flat_map(|site| site.segments) {
        segments.push(tokenformer_device::Segment {
            keys: &packed(segment.keys)?.weights,
            values: &packed(segment.values)?.weights,
            tokens: segment.tokens,
            tau: segment.tau,
        });
    }
    let mut rest = &segments[..];
    let sites: SmallVec<[PackedSite<'_>; FEW]> = (sites.iter())
        .map(|site| {
            let (segments, others) = rest.split_at(site.segments.len());
            rest = others;
            PackedSite {
                theta: site.theta,
                norm: site.norm,
                tau: site.tau,
                eps: site.eps,
                segments,
            }
        })
        .collect();
    Some(run(&sites))
}

impl Cpu {
    pub(super) fn theta_rows(
        &self,
        site: &SiteRef<'_>,
        scores: &mut Buffer,
        stats: &mut Buffer,
    ) -> Result<()> {
        let (scores, stats) = (floats_mut(scores), floats_mut(stats));
        self.exec(|exec| pattention::theta(exec, site, scores, stats))
    }

    pub(super) fn theta_rows_backward(
        &self,
        site: &SiteRef<'_>,
        scores: &mut Buffer,
        stats: &Buffer,
        d_scores: &mut Buffer,
    ) -> Result<()> {
        let (scores, d_scores) = (floats_mut(scores), floats_mut(d_scores));
        self.exec(|exec| pattention::theta_backward(exec, site, scores, floats(stats), d_scores))
    }
}

impl ThetaInParts for Cpu {
    fn statistics(&self, site: &SiteRef<'_>, scores: &Buffer, stats: &mut Buffer) -> Result<()> {
        let (scores, stats) = (floats(scores), floats_mut(stats));
        self.exec(|exec| pattention::statistics_of_part(exec, site, scores, stats))
    }

    fn weights(&self, site: &SiteRef<'_>, stats: &Buffer, scores: &mut Buffer) -> Result<()> {
        let (scores, stats) = (floats_mut(scores), floats(stats));
        self.exec(|exec| pattention::weights_of_part(exec, site, stats, scores))
    }

    fn projections(
        &self,
        site: &SiteRef<'_>,
        scores: &Buffer,
        stats: &Buffer,
        d: &Buffer,
        projections: &mut Buffer,
    ) -> Result<()> {
        let (scores, stats, d) = (floats(scores), floats(stats), floats(d));
        let to = floats_mut(projections);
        self.exec(|exec| pattention::projections_of_part(exec, site, scores, stats, d, to))
    }

    fn backward(
        &self,
        site: &SiteRef<'_>,
        stats: &Buffer,
        projections: &Buffer,
        scores: &mut Buffer,
        d: &mut Buffer,
    ) -> Result<()> {
        let of_rows = [stats, projections].map(floats);
        let (scores, d) = (floats_mut(scores), floats_mut(d));
        self.exec(|exec| pattention::backward_of_part(exec, site, of_rows, scores, d))
    }
}

impl FusedSite for Cpu {
    fn forward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        y: &mut Buffer,
        kept: Option<[&mut Buffer; 2]>,
    ) -> Result<()> {
        if kept.is_none() && packed(site.segments[0].keys).is_some() {
            return self.forward_group(&[*site], x, dims, &mut [y]);
        }
        with_site(site, |site| {
            let (x, y) = (floats(x), floats_mut(y));
            self.exec(|exec| {
                in_precision!(self, P => {
                    let saved = kept.map(|[scores, stats]| Saved {
                        scores: scores_mut::<P>(scores),
                        stats: floats_mut(stats),
                    });
                    pattention::forward::<P>(exec, site, x, y, dims, saved);
                });
            })
        })
    }

    fn forward_group(
        &self,
        sites: &[SiteRef<'_>],
        x: &Buffer,
        dims: SiteDims,
        ys: &mut [&mut Buffer],
    ) -> Result<()> {
        let done = with_packed(sites, |sites| {
            let mut ys: Vec<&mut [f32]> = ys.iter_mut().map(|y| floats_mut(y)).collect();
            self.exec(|exec| {
                pattention::forward_packed(exec, sites, floats(x), &mut ys, dims);
            })
        });
        match done {
            Some(done) => done,
            None => (sites.iter().zip(ys))
                .try_for_each(|(site, y)| self.forward(site, x, dims, y, None)),
        }
    }

    fn scores(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        scores: &mut Buffer,
    ) -> Result<()> {
        let x = floats(x);
        with_site(site, |site| {
            self.exec(|exec| {
                in_precision!(self, P => {
                    let scores = scores_mut::<P>(scores);
                    pattention::scores::<P>(exec, site, x, dims, scores);
                });
            })
        })
    }

    fn backward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dy: &Buffer,
        dims: SiteDims,
        [scores, stats]: [&mut Buffer; 2],
        work: &mut Buffer,
        dx: Option<(Write, &mut Buffer)>,
        gradients: &mut [SegmentGradient<'_>],
    ) -> Result<()> {
        let dx = dx.map(|(write, dx)| (floats_mut(dx), write));
        let mut gradients: SmallVec<[Option<SegmentGrad<'_>>; FEW]> = (gradients.iter_mut())
            .map(|gradient| {
                let [keys, values] = gradient.as_mut()?;
                Some(SegmentGrad {
                    keys: floats_mut(keys),
                    values: floats_mut(values),
                })
            })
            .collect();
        with_site(site, |site| {
            let (x, dy) = (floats(x), floats(dy));
            self.exec(|exec| {
                in_precision!(self, P => {
                    let saved = Saved {
                        scores: scores_mut::<P>(scores),
                        stats: floats_mut(stats),
                    };
                    let work = scores_mut::<P>(work);
                    let grads = &mut gradients;
                    pattention::backward::<P>(exec, site, x, dy, dims, saved, work, dx, grads);
                });
            })
        })
    }
}

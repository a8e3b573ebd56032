//! A Pattention site: an ordered list of segments of key and value tokens, and how to normalise them.

use crate::config::{Anneal, SegmentConfig, SiteConfig, Tracked};
use crate::param::Param;
use smallvec::SmallVec;
use tokenformer_device as device;
use tokenformer_device::{Buffer, NormSpan, SiteRef, Theta};

/// Consecutive parameter tokens that were added together.
#[derive(Debug)]
pub struct Segment {
    /// Keys `[N_s, D_in]`.
    pub keys: Param,
    /// Values `[N_s, D_out]`.
    pub values: Param,
    id: u32,
    tau: f64,
    stage: u32,
    born_step: u64,
}

impl Segment {
    pub(crate) fn new(config: &SegmentConfig, keys: Param, values: Param) -> Self {
        Self {
            keys,
            values,
            id: config.id,
            tau: config.tau,
            stage: config.stage,
            born_step: config.born_step,
        }
    }

    /// Parameter tokens.
    pub fn tokens(&self) -> usize {
        self.keys.shape()[0]
    }

    /// Its description.
    pub fn config(&self) -> SegmentConfig {
        SegmentConfig {
            id: self.id,
            tokens: self.tokens(),
            tau: self.tau,
            stage: self.stage,
            born_step: self.born_step,
        }
    }
}

/// A Pattention site: one layer of a block.
#[derive(Debug)]
pub struct Site {
    theta: Theta,
    eps: f64,
    norm: NormSpan,
    tau: f64,
    pub(crate) anneal: Option<Anneal>,
    tracked: Option<Tracked>,
    segments: Vec<Segment>,
}

impl Site {
    pub(crate) fn new(config: &SiteConfig, segments: Vec<Segment>) -> Self {
        Self {
            theta: config.theta,
            eps: config.eps,
            norm: config.norm,
            tau: config.tau,
            anneal: None,
            tracked: None,
            segments,
        }
    }

    /// Its description.
    pub fn config(&self) -> SiteConfig {
        SiteConfig {
            theta: self.theta,
            eps: self.eps,
            norm: self.norm,
            tau: self.tau,
            segments: self.segments.iter().map(Segment::config).collect(),
        }
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segments, to freeze or thaw.
    pub fn segments_mut(&mut self) -> &mut [Segment] {
        &mut self.segments
    }

    /// Parameter tokens `N` of all segments.
    pub fn tokens(&self) -> usize {
        self.segments.iter().map(Segment::tokens).sum()
    }

    /// Width of the output.
    pub fn d_out(&self) -> usize {
        self.segments[0].values.shape()[1]
    }

    /// Norms per row.
    pub fn groups(&self) -> usize {
        match self.norm {
            NormSpan::Joint => 1,
            NormSpan::Segment => self.segments.len(),
        }
    }

    /// The site in the form of device operations.
    pub fn with_ref<T>(&self, run: impl FnOnce(&SiteRef<'_>) -> T) -> T {
        run(&self.site_ref(&self.segment_refs(None)))
    }

    /// The segments in the form of device operations, those up to `newest_stage` if one is given.
    pub(crate) fn segment_refs(
        &self,
        newest_stage: Option<u32>,
    ) -> SmallVec<[device::Segment<&Buffer>; 8]> {
        (self.segments.iter())
            .filter(|s| newest_stage.is_none_or(|newest| s.stage <= newest))
            .map(|s| device::Segment {
                keys: s.keys.value(),
                values: s.values.value(),
                tokens: s.tokens(),
                tau: s.tau as f32,
            })
            .collect()
    }

    pub(crate) fn site_ref<'a>(&self, segments: &'a [device::Segment<&'a Buffer>]) -> SiteRef<'a> {
        SiteRef {
            theta: self.theta,
            norm: self.norm,
            tau: self.tau as f32,
            eps: self.eps as f32,
            segments,
        }
    }

    /// The current `τ` of a joint norm.
    pub(crate) fn tau(&self) -> f64 {
        self.tau
    }

    pub(crate) fn set_tau(&mut self, tau: f64) {
        self.tau = tau;
    }

    /// What `τ` follows, if it follows the scores.
    pub(crate) fn tracked(&self) -> Option<&Tracked> {
        self.tracked.as_ref()
    }

    /// Makes `τ` track the scores from the measurements so far, or keeps it constant.
    pub(crate) fn set_tracked(&mut self, tracked: Option<Tracked>) {
        self.tracked = tracked;
        self.follow();
    }

    /// Adds the squared scores of a row, summed over each segment.
    pub(crate) fn observe(&mut self, sums: &[f64]) {
        if let Some(tracked) = &mut self.tracked {
            let (old, new) = sums.split_at(tracked.old_segments.min(sums.len()));
            tracked.observe(old.iter().sum(), new.iter().sum());
            self.follow();
        }
    }

    fn follow(&mut self) {
        if let Some(tracked) = &self.tracked {
            let old = self.segments.iter().take(tracked.old_segments);
            self.tau = tracked.tau(old.map(Segment::tokens).sum(), self.tokens());
        }
    }

    /// Moves an annealing `τ` to its value at a training step.
    pub(crate) fn set_step(&mut self, step: u64) {
        let Some(anneal) = &self.anneal else { return };
        self.tau = anneal.at(step);
        if step.saturating_sub(anneal.start_step) >= anneal.steps {
            self.anneal = None;
        }
    }
}

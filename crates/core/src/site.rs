//! A Pattention site: an ordered list of segments of key and value tokens, and how to normalise them.

use crate::config::{Anneal, NormSpan, SegmentConfig, SiteConfig};
use crate::device::{Norm, SegmentRef, SiteRef, Theta};
use crate::param::Param;
use smallvec::SmallVec;

/// Consecutive parameter tokens that were born together.
#[derive(Debug)]
pub struct Segment {
    /// Keys `[N_s, D_in]`.
    pub keys: Param,
    /// Values `[N_s, D_out]`.
    pub values: Param,
    tau: f64,
    stage: u32,
    born_step: u64,
}

impl Segment {
    pub(crate) fn new(config: &SegmentConfig, mut keys: Param, mut values: Param) -> Self {
        for param in [&mut keys, &mut values] {
            param.trainable = config.trainable;
            param.lr_scale = config.lr_scale;
        }
        Self {
            keys,
            values,
            tau: config.tau,
            stage: config.stage,
            born_step: config.born_step,
        }
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.keys.shape()[0]
    }

    /// Its description.
    pub fn config(&self) -> SegmentConfig {
        SegmentConfig {
            tokens: self.tokens(),
            tau: self.tau,
            stage: self.stage,
            born_step: self.born_step,
            trainable: self.keys.trainable,
            lr_scale: self.keys.lr_scale,
        }
    }

    /// Lets training change the segment, or not.
    pub fn set_trainable(&mut self, trainable: bool) {
        self.keys.trainable = trainable;
        self.values.trainable = trainable;
    }

    pub(crate) fn set_tau(&mut self, tau: f64) {
        self.tau = tau;
    }
}

/// A site: one Pattention of one block.
#[derive(Debug)]
pub struct Site {
    theta: Theta,
    eps: f32,
    pub(crate) norm: NormSpan,
    pub(crate) tau: f64,
    pub(crate) anneal: Option<Anneal>,
    pub(crate) segments: Vec<Segment>,
}

impl Site {
    pub(crate) fn new(config: &SiteConfig, theta: Theta, eps: f32, segments: Vec<Segment>) -> Self {
        let SiteConfig {
            norm, tau, anneal, ..
        } = config.clone();
        Self {
            theta,
            eps,
            norm,
            tau,
            anneal,
            segments,
        }
    }

    /// Its description.
    pub fn config(&self) -> SiteConfig {
        SiteConfig {
            norm: self.norm,
            tau: self.tau,
            anneal: self.anneal.clone(),
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

    /// Learnable numbers.
    pub fn params(&self) -> usize {
        self.segments
            .iter()
            .map(|s| s.keys.len() + s.values.len())
            .sum()
    }

    /// Width of the output.
    pub fn d_out(&self) -> usize {
        self.segments[0].values.shape()[1]
    }

    /// Width of the input.
    pub fn d_in(&self) -> usize {
        self.segments[0].keys.shape()[1]
    }

    /// Norms per row.
    pub fn groups(&self) -> usize {
        match self.norm {
            NormSpan::Joint => 1,
            NormSpan::Segment => self.segments.len(),
        }
    }

    /// The site as device operations see it.
    pub fn with_ref<T>(&self, run: impl FnOnce(&SiteRef<'_>) -> T) -> T {
        run(&self.site_ref(&self.segment_refs()))
    }

    pub(crate) fn segment_refs(&self) -> SmallVec<[SegmentRef<'_>; 8]> {
        (self.segments.iter())
            .map(|s| SegmentRef {
                keys: s.keys.value(),
                values: s.values.value(),
                tokens: s.tokens(),
                tau: s.tau as f32,
            })
            .collect()
    }

    pub(crate) fn site_ref<'a>(&self, segments: &'a [SegmentRef<'a>]) -> SiteRef<'a> {
        let norm = match self.norm {
            NormSpan::Joint => Norm::Joint {
                tau: self.tau as f32,
            },
            NormSpan::Segment => Norm::Segment,
        };
        SiteRef {
            theta: self.theta,
            norm,
            eps: self.eps,
            segments,
        }
    }

    /// Moves an annealing `τ` to where it stands at a training step.
    pub(crate) fn set_step(&mut self, step: u64) {
        let Some(anneal) = &self.anneal else { return };
        self.tau = anneal.at(step);
        if step.saturating_sub(anneal.start_step) >= anneal.steps {
            self.anneal = None;
        }
    }
}

//! Pattention whose tokens are divided: what its ranks exchange.

use super::{Divided, part_mut};
use crate::{
    Buffer, Composed, FusedSite, Result, Role, SegmentGradient, SiteDims, SiteRef, Temp, Write,
};

impl FusedSite for Divided {
    fn forward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        y: &mut Buffer,
        kept: Option<[&mut Buffer; 2]>,
    ) -> Result<()> {
        let composed = Composed {
            device: &self.inner,
        };
        self.with_own(site, |own| {
            let numbers = dims.rows * own.tokens();
            let mut weights = Temp::new(&self.inner, numbers, Role::Activation)?;
            composed.products(own, x, dims, &mut weights)?;
            let mut unkept;
            let stats = match kept {
                Some([scores, stats]) => {
                    if !scores.is_empty() {
                        let scores = self.scores_of(scores, numbers)?;
                        self.inner.copy(&weights, scores)?;
                    }
                    stats
                }
                None => {
                    let len = dims.rows * own.groups();
                    unkept = Temp::new(&self.inner, len, Role::Statistic)?;
                    &mut *unkept
                }
            };
            match numbers {
                0 => {
                    let none = own.theta.together([].iter().copied());
                    self.inner.write(&vec![none as f32; stats.len()], stats)?;
                }
                _ => self.theta().statistics(own, &weights, stats)?,
            }
            self.exchange(stats, |parts| own.theta.together(parts.iter().copied()))?;
            match numbers {
                0 => self.inner.zero(y)?,
                _ => {
                    self.theta().weights(own, stats, &mut weights)?;
                    composed.outputs(own, &weights, dims, y)?;
                }
            }
            let sum = self.begin_all_reduce(y)?.wait()?;
            self.inner.write(&sum, y)
        })
    }

    fn scores(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        scores: &mut Buffer,
    ) -> Result<()> {
        let composed = Composed {
            device: &self.inner,
        };
        self.with_own(site, |own| {
            let scores = self.scores_of(scores, dims.rows * own.tokens())?;
            composed.products(own, x, dims, scores)
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
        let composed = Composed {
            device: &self.inner,
        };
        self.with_own(site, |own| {
            let numbers = dims.rows * own.tokens();
            let (scores, d) = (
                self.scores_of(scores, numbers)?,
                self.scores_of(work, numbers)?,
            );
            let mut projections = Temp::new(&self.inner, stats.len(), Role::Statistic)?;
            match numbers {
                0 => self.inner.zero(&mut projections)?,
                _ => {
                    composed.weight_gradient(own, dy, dims, d)?;
                    self.theta()
                        .projections(own, scores, stats, d, &mut projections)?;
                }
            }
            self.exchange(&mut projections, |parts| parts.iter().sum())?;
            if numbers > 0 {
                self.theta().backward(own, stats, &projections, scores, d)?;
            }
            let mut sum = None;
            if dx.is_some() {
                let mut part = Temp::new(&self.inner, dims.rows * dims.d_in, Role::Activation)?;
                match numbers {
                    0 => self.inner.zero(&mut part)?,
                    _ => composed.input_gradient(own, d, dims, Write::Replace, &mut part)?,
                }
                sum = Some((self.begin_all_reduce(&part)?, part));
            }
            // The sum goes on meanwhile.
            let mut of_parts: Vec<SegmentGradient<'_>> = (gradients.iter_mut())
                .map(|pair| {
                    pair.as_mut()
                        .map(|pair| pair.each_mut().map(|g| part_mut(g)))
                })
                .collect();
            composed.token_gradients(own, [x, dy], [scores, d], dims, &mut of_parts)?;
            if let (Some((pending, mut part)), Some((write, dx))) = (sum, dx) {
                let numbers = pending.wait()?;
                match write {
                    Write::Replace => self.inner.write(&numbers, dx)?,
                    Write::Add => {
                        self.inner.write(&numbers, &mut part)?;
                        self.inner.add(&part, dx)?;
                    }
                }
            }
            Ok(())
        })
    }
}

//! Pattention, `Y = Θ(X·Kᵀ)·V` (paper, equations 7 and 16): attention between rows and the parameter tokens of a site.

use super::{Backward, FLOPS_PER_UNIT, Recorder};
use crate::param::Param;
use crate::recompute::Recompute;
use crate::site::Site;
use crate::tensor::{Tensor, Var};
use smallvec::SmallVec;
use std::sync::Arc;
use tokenformer_device::{
    Buffer, Composed, Device, FusedSite, Result, Role, SegmentGradient, SiteDims, Temp, Write,
};

/// A Pattention at one site.
pub(crate) struct Pattention<'m> {
    x: Tensor,
    out: Var,
    site: &'m Site,
    /// Empty if the backward pass recomputes them.
    scores: Temp,
    stats: Temp,
}

/// Calls `run` with the device's own Pattention, or with the one composed of its primitives.
fn with_fused<T>(device: &Arc<dyn Device>, run: impl FnOnce(&dyn FusedSite) -> T) -> T {
    match device.fused_site() {
        Some(fused) => run(fused),
        None => run(&Composed { device }),
    }
}

fn dims(x: &Tensor, site: &Site) -> SiteDims {
    SiteDims {
        rows: x.rows(),
        d_in: x.width(),
        d_out: site.d_out(),
    }
}

/// Operations of the products with the keys and with the values of this number of tokens.
fn product_flops(dims: SiteDims, tokens: usize) -> usize {
    2 * dims.rows * tokens * (dims.d_in + dims.d_out)
}

/// Operations of `Θ`.
fn units_flops(dims: SiteDims, tokens: usize) -> usize {
    FLOPS_PER_UNIT * dims.rows * tokens
}

impl<'m> Pattention<'m> {
    /// `x` `[B, T, D_in]`: `[B, T, D_out]`.
    pub fn forward(
        rec: &mut Recorder,
        x: Tensor,
        site: &'m Site,
    ) -> Result<(Tensor, Option<Self>)> {
        let dims = dims(&x, site);
        let mut y = rec.temp(dims.rows * dims.d_out)?;
        let mut kept = match rec.records() {
            true => {
                let keeps = rec.recompute != Recompute::Scores;
                let scores = if keeps { dims.rows * site.tokens() } else { 0 };
                let scores = Temp::new(&rec.device, scores, Role::Scores)?;
                Some([scores, rec.statistics(dims.rows * site.groups())?])
            }
            false => None,
        };
        let segments = site.segment_refs(rec.newest_stage);
        let used = site.site_ref(&segments);
        with_fused(&rec.device, |fused| {
            let kept = kept
                .as_mut()
                .map(|[scores, stats]| [&mut **scores, &mut **stats]);
            fused.forward(&used, &x.data, dims, &mut y, kept)
        })?;
        rec.count(units_flops(dims, used.tokens()) + product_flops(dims, used.tokens()));
        let [batch, length, _] = x.shape();
        let y = rec.tensor(y.share(), [batch, length, dims.d_out]);
        let note = match (kept, y.var) {
            (Some([scores, stats]), Some(out)) => Some(Self {
                x,
                out,
                site,
                scores,
                stats,
            }),
            _ => None,
        };
        Ok((y, note))
    }

    /// The parameters whose gradients the backward pass adds to.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        let segments = self.site.segments().iter();
        segments.flat_map(|segment| [&segment.keys, &segment.values])
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let Self {
            x,
            out,
            site,
            mut scores,
            mut stats,
        } = self;
        let (Some(dy), Some(var)) = (back.take(out), x.var) else {
            return Ok(());
        };
        let dims = dims(&x, site);
        let all = dims.rows * site.tokens();
        if scores.len() < all {
            scores = Temp::new(back.device, all, Role::Scores)?;
            site.with_ref(|site| {
                with_fused(back.device, |fused| {
                    fused.scores(site, &x.data, dims, &mut scores)
                })
            })?;
        }
        let mut work = Temp::new(back.device, all, Role::Scores)?;
        let mut held = SmallVec::<[Option<[Temp; 2]>; 4]>::new();
        for segment in site.segments() {
            held.push(back.take_pair([&segment.keys, &segment.values])?);
        }
        back.accumulate(var, dims.rows * dims.d_in, |back, write, dx| {
            let mut gradients: SmallVec<[SegmentGradient<'_>; 8]> = held
                .iter_mut()
                .map(|g| g.as_mut().map(|[k, v]| [&mut **k, &mut **v]))
                .collect();
            site.with_ref(|site| {
                let kept = [&mut *scores, &mut *stats];
                let dx = Some((write, &mut **dx));
                with_fused(back.device, |fused| {
                    fused.backward(
                        site,
                        &x.data,
                        &dy,
                        dims,
                        kept,
                        &mut work,
                        dx,
                        &mut gradients,
                    )
                })
            })
        })?;
        back.count(2 * units_flops(dims, site.tokens()) + product_flops(dims, site.tokens()));
        for (segment, gradient) in site.segments().iter().zip(held) {
            if let Some(gradient) = gradient {
                back.count(product_flops(dims, segment.tokens()));
                back.put_pair([&segment.keys, &segment.values], gradient);
            }
        }
        Ok(())
    }
}

/// What a site did with some rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct SiteWeights {
    /// `Θ(x·Kᵀ)`, the factor of each token's value: that of the last row `[N]`; or of all rows, the mean of its size over each
    /// sequence `[B, N]`.
    pub weights: Vec<f32>,
    /// Sum over all rows of the squared norm of what each segment adds to the output; not measured for a single row.
    pub energies: Vec<f64>,
}

/// What `site` does with the last row of `x`, or with all of them.
pub(crate) fn site_weights(
    rec: &Recorder,
    x: &Tensor,
    site: &Site,
    all_rows: bool,
) -> Result<SiteWeights> {
    let device = &rec.device;
    let last = match all_rows {
        true => None,
        false => {
            let row = Temp::indices(device, &[x.rows() as u32 - 1])?;
            let mut last = rec.temp(x.width())?;
            device.gather_rows(&x.data, &row, x.width(), &mut last)?;
            Some(last)
        }
    };
    let input = last.as_ref().map_or(&*x.data, |last| &**last);
    let segments = site.segment_refs(rec.newest_stage);
    let used = site.site_ref(&segments);
    let dims = SiteDims {
        rows: if all_rows { x.rows() } else { 1 },
        ..dims(x, site)
    };
    let mut weights = rec.temp(dims.rows * used.tokens())?;
    let mut stats = rec.statistics(dims.rows * used.groups())?;
    let composed = Composed { device };
    composed.scores(&used, input, dims, &mut weights)?;
    device.theta(&used, &mut weights, &mut stats)?;
    let mut energies = vec![0.0; if all_rows { segments.len() } else { 0 }];
    if all_rows {
        let mut sums = device.alloc(segments.len(), Role::Accumulator)?;
        device.zero(&mut sums)?;
        let mut y = rec.temp(dims.rows * dims.d_out)?;
        for s in 0..segments.len() {
            composed.segment_output(&used, &weights, dims, s, Write::Replace, &mut y)?;
            device.sum_of_squares(&y, &mut sums, s)?;
        }
        device.read_accumulator(&sums, &mut energies)?;
    }
    let mut host = vec![0.0; weights.len()];
    device.read(&weights, &mut host)?;
    let [batch, ..] = x.shape();
    Ok(SiteWeights {
        weights: match all_rows {
            true => mean_sizes(&host, batch, used.tokens()),
            false => host,
        },
        energies,
    })
}

/// The mean of `|weights|` `[B, T, N]` over `T`: `[B, N]`.
fn mean_sizes(weights: &[f32], batch: usize, tokens: usize) -> Vec<f32> {
    let length = weights.len() / (batch * tokens);
    let mut means = Vec::with_capacity(batch * tokens);
    for picture in weights.chunks_exact(length * tokens) {
        let start = means.len();
        means.resize(start + tokens, 0.0f32);
        for row in picture.chunks_exact(tokens) {
            for (mean, weight) in means[start..].iter_mut().zip(row) {
                *mean += weight.abs();
            }
        }
        means[start..]
            .iter_mut()
            .for_each(|mean| *mean /= length as f32);
    }
    means
}

/// [`Pattention::forward`] of one input at several sites of one shape, in inference.
pub(crate) fn pattention_group<const N: usize>(
    rec: &mut Recorder,
    x: &Tensor,
    sites: [&Site; N],
) -> Result<[Tensor; N]> {
    let dims = dims(x, sites[0]);
    let mut ys = SmallVec::<[Temp; 3]>::new();
    for _ in sites {
        ys.push(rec.temp(dims.rows * dims.d_out)?);
    }
    let segments = sites.map(|site| site.segment_refs(rec.newest_stage));
    let refs: SmallVec<[_; 3]> = (sites.iter().zip(&segments))
        .map(|(site, segments)| site.site_ref(segments))
        .collect();
    with_fused(&rec.device, |fused| {
        let mut buffers: SmallVec<[&mut Buffer; 3]> = ys.iter_mut().map(|y| &mut **y).collect();
        fused.forward_group(&refs, &x.data, dims, &mut buffers)
    })?;
    for site in &refs {
        rec.count(units_flops(dims, site.tokens()) + product_flops(dims, site.tokens()));
    }
    let [batch, length, _] = x.shape();
    let mut ys = ys.into_iter();
    Ok([(); N].map(|()| {
        // There is one for each of the N sites.
        let y = ys.next().expect("one output for each site");
        rec.tensor(y.share(), [batch, length, dims.d_out])
    }))
}

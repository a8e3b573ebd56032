//! The plain f64 device: what every operation means, precise enough for finite differences.
//!
//! It is slow on purpose; tests hold fast devices against it.

use crate::device::{
    AttentionShape, Buffer, Device, Handles, Kept, LossGradient, Result, RotaryTable,
    SegmentGradRef, SiteRef, Update, Write,
};
use std::sync::Arc;
use tokenformer_kernels::reference as plain;

/// The f64 device.
#[derive(Debug, Default)]
pub struct Reference {
    handles: Handles,
}

impl Reference {
    /// A device.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

/// The numbers of a buffer that a [`Reference`] made.
pub fn values(buffer: &Buffer) -> &[f64] {
    buffer.storage::<Vec<f64>>()
}

/// The numbers of a buffer that a [`Reference`] made, to change.
pub fn values_mut(buffer: &mut Buffer) -> &mut [f64] {
    buffer.storage_mut::<Vec<f64>>()
}

fn put(write: Write, from: &[f64], to: &mut Buffer) {
    let to = values_mut(to);
    assert_eq!(from.len(), to.len());
    match write {
        Write::Replace => to.copy_from_slice(from),
        Write::Add => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
    }
}

fn with_site<T>(site: &SiteRef<'_>, run: impl FnOnce(&plain::Site<'_>) -> T) -> T {
    let segments: Vec<plain::Segment<'_>> = site
        .segments
        .iter()
        .map(|s| plain::Segment {
            keys: values(s.keys),
            values: values(s.values),
            tokens: s.tokens,
            tau: f64::from(s.tau),
        })
        .collect();
    let (theta, norm, eps) = (site.theta, site.norm, f64::from(site.eps));
    run(&plain::Site {
        theta,
        norm,
        eps,
        segments: &segments,
    })
}

impl Device for Reference {
    fn describe(&self) -> String {
        "reference, f64, 1 thread".into()
    }

    fn handles(&self) -> &Handles {
        &self.handles
    }

    fn allocate(&self, len: usize) -> Result<Buffer> {
        Ok(Buffer::new(vec![0.0f64; len], len))
    }

    fn upload(&self, from: &[f32], to: &mut Buffer) -> Result<()> {
        let from: Vec<f64> = from.iter().copied().map(f64::from).collect();
        put(Write::Replace, &from, to);
        Ok(())
    }

    fn download_part(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()> {
        to.iter_mut()
            .zip(&values(from)[start..])
            .for_each(|(to, from)| *to = *from as f32);
        Ok(())
    }

    fn zero(&self, buffer: &mut Buffer) -> Result<()> {
        values_mut(buffer).fill(0.0);
        Ok(())
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) -> Result<()> {
        put(Write::Replace, values(from), to);
        Ok(())
    }

    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        put(Write::Add, values(x), y);
        Ok(())
    }

    fn embed(&self, table: &Buffer, tokens: &[u32], d: usize, y: &mut Buffer) -> Result<()> {
        let table = values(table);
        for (y, &token) in values_mut(y).chunks_exact_mut(d).zip(tokens) {
            y.copy_from_slice(&table[token as usize * d..][..d]);
        }
        Ok(())
    }

    fn embed_backward(
        &self,
        tokens: &[u32],
        dy: &Buffer,
        d: usize,
        dtable: &mut Buffer,
    ) -> Result<()> {
        let dtable = values_mut(dtable);
        for (dy, &token) in values(dy).chunks_exact(d).zip(tokens) {
            let to = &mut dtable[token as usize * d..][..d];
            to.iter_mut().zip(dy).for_each(|(to, dy)| *to += dy);
        }
        Ok(())
    }

    fn layer_norm(
        &self,
        x: &Buffer,
        affine: Option<[&Buffer; 2]>,
        eps: f32,
        d: usize,
        y: &mut Buffer,
        stats: &mut Buffer,
    ) -> Result<()> {
        // The backward pass of this device starts from the input, which a plain norm does not keep: leave
        // mean and 1/std, from which it can be had again.
        for (x, stats) in values(x)
            .chunks_exact(d)
            .zip(values_mut(stats).chunks_exact_mut(2))
        {
            let mean = x.iter().sum::<f64>() / d as f64;
            let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d as f64;
            stats.copy_from_slice(&[mean, 1.0 / (var + f64::from(eps)).sqrt()]);
        }
        let affine = affine.map(|buffers| buffers.map(values));
        put(
            Write::Replace,
            &plain::layer_norm(values(x), affine, f64::from(eps), d),
            y,
        );
        Ok(())
    }

    fn layer_norm_backward(
        &self,
        kept: Kept<'_>,
        stats: &Buffer,
        gain: Option<&Buffer>,
        dy: &Buffer,
        d: usize,
        write: Write,
        dx: &mut Buffer,
    ) -> Result<()> {
        let (x, eps) = norm_input(kept, values(stats), d);
        let gain = gain.map(values);
        let (grad, ..) = plain::layer_norm_backward(&x, gain, eps, values(dy), d);
        put(write, &grad, dx);
        Ok(())
    }

    fn layer_norm_backward_affine(
        &self,
        x: &Buffer,
        stats: &Buffer,
        dy: &Buffer,
        dgain: &mut Buffer,
        dbias: &mut Buffer,
    ) -> Result<()> {
        let d = dgain.len();
        let (x, eps) = norm_input(Kept::Input(x), values(stats), d);
        let (_, gain, bias) = plain::layer_norm_backward(&x, None, eps, values(dy), d);
        put(Write::Add, &gain, dgain);
        put(Write::Add, &bias, dbias);
        Ok(())
    }

    fn pattention(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        [_, d_in, d_out]: [usize; 3],
        y: &mut Buffer,
        _saved: Option<[&mut Buffer; 2]>,
    ) -> Result<()> {
        let out = with_site(site, |site| {
            plain::pattention(site, values(x), [d_in, d_out])
        });
        put(Write::Replace, &out, y);
        Ok(())
    }

    fn pattention_scores(
        &self,
        _site: &SiteRef<'_>,
        _x: &Buffer,
        _dims: [usize; 2],
        _scores: &mut Buffer,
    ) -> Result<()> {
        // The backward pass of this device starts from the input.
        Ok(())
    }

    fn pattention_backward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dy: &Buffer,
        [_, d_in, d_out]: [usize; 3],
        _saved: [&mut Buffer; 2],
        _work: &mut Buffer,
        dx: Option<(Write, &mut Buffer)>,
        grads: &mut [SegmentGradRef<'_>],
    ) -> Result<()> {
        let found = with_site(site, |site| {
            plain::pattention_backward(site, values(x), values(dy), [d_in, d_out])
        });
        if let Some((write, dx)) = dx {
            put(write, &found.dx, dx);
        }
        for (grad, (dk, dv)) in grads.iter_mut().zip(found.segments) {
            if let Some([keys, values]) = grad {
                put(Write::Add, &dk, keys);
                put(Write::Add, &dv, values);
            }
        }
        Ok(())
    }

    fn rotate(
        &self,
        table: &Arc<RotaryTable>,
        dims: [usize; 3],
        first: usize,
        inverse: bool,
        x: &mut Buffer,
    ) -> Result<()> {
        plain::rotate(values_mut(x), table, dims, first, inverse);
        Ok(())
    }

    fn attention(
        &self,
        shape: AttentionShape,
        qkv: [&Buffer; 3],
        o: &mut Buffer,
        _lse: Option<&mut Buffer>,
    ) -> Result<()> {
        put(Write::Replace, &plain::attention(shape, qkv.map(values)), o);
        Ok(())
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: [&Buffer; 3],
        _o: &Buffer,
        _lse: &Buffer,
        d_o: &Buffer,
        dqkv: [&mut Buffer; 3],
    ) -> Result<()> {
        let grads = plain::attention_backward(shape, qkv.map(values), values(d_o));
        for (grad, to) in grads.iter().zip(dqkv) {
            put(Write::Replace, grad, to);
        }
        Ok(())
    }

    fn store_rows(
        &self,
        rows: &Buffer,
        [b, t, d]: [usize; 3],
        at: usize,
        capacity: usize,
        cache: &mut Buffer,
    ) -> Result<()> {
        let (rows, cache) = (values(rows), values_mut(cache));
        for i in 0..b {
            let to = (i * capacity + at) * d;
            cache[to..to + t * d].copy_from_slice(&rows[i * t * d..(i + 1) * t * d]);
        }
        Ok(())
    }

    fn logits(
        &self,
        h: &Buffer,
        table: &Buffer,
        scale: f32,
        d: usize,
        logits: &mut Buffer,
    ) -> Result<()> {
        let out = plain::logits(values(h), values(table), f64::from(scale), d);
        put(Write::Replace, &out, logits);
        Ok(())
    }

    fn cross_entropy(
        &self,
        h: &Buffer,
        table: &Buffer,
        scale: f32,
        targets: &[u32],
        d: usize,
        nll: &mut Buffer,
        gradient: Option<LossGradient<'_>>,
    ) -> Result<()> {
        let weight = gradient.as_ref().map_or(0.0, |g| f64::from(g.weight));
        let (h, table, scale) = (values(h), values(table), f64::from(scale));
        let (loss, dh, dtable) = plain::cross_entropy(h, table, scale, targets, weight, d);
        put(Write::Replace, &loss, nll);
        if let Some(gradient) = gradient {
            put(Write::Replace, &dh, gradient.dh);
            if let Some(to) = gradient.dtable {
                put(Write::Add, &dtable, to);
            }
        }
        Ok(())
    }

    fn sum_of_squares(&self, x: &Buffer) -> Result<f64> {
        Ok(values(x).iter().map(|x| x * x).sum())
    }

    fn adamw(
        &self,
        update: Update,
        p: &mut Buffer,
        g: &Buffer,
        m: &mut Buffer,
        v: &mut Buffer,
    ) -> Result<()> {
        plain::adamw(
            update,
            values_mut(p),
            values(g),
            values_mut(m),
            values_mut(v),
        );
        Ok(())
    }
}

/// The input of a norm, up to a shift and with the matching eps: a plain norm that kept its output `x̂` is
/// the same function at `x̂/rstd`, whose mean is 0 and whose variance is what it was.
fn norm_input(kept: Kept<'_>, stats: &[f64], d: usize) -> (Vec<f64>, f64) {
    let (x, from_output) = match kept {
        Kept::Output(y) => (values(y), true),
        Kept::Input(x) => (values(x), false),
    };
    let mut input = x.to_vec();
    if from_output {
        for (row, stats) in input.chunks_exact_mut(d).zip(stats.chunks_exact(2)) {
            row.iter_mut().for_each(|x| *x /= stats[1]);
        }
    }
    // eps = 1/rstd² − var, the same for every row.
    let eps = input
        .chunks_exact(d)
        .zip(stats.chunks_exact(2))
        .next()
        .map_or(0.0, |(row, stats)| {
            let mean = row.iter().sum::<f64>() / d as f64;
            let var = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d as f64;
            1.0 / (stats[1] * stats[1]) - var
        });
    (input, eps)
}

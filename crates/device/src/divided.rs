//! A device whose ranks divide the parameter tokens of sites. It is in one file because most of it hands operations on.

use crate::{
    AdamStep, AttentionDims, Buffer, CachedSequence, Collective, Composed, Device, DeviceError,
    FusedSite, Handles, Head, KeptForNorm, LossGradient, Matmul, Operand, Output, PackedMatrix,
    Pending, Result, Role, RotaryDims, RotaryTable, RowsToStore, Segment, SegmentGradient, Site,
    SiteDims, SiteRef, Targets, Temp, ThetaInParts, Usage, WeightFormat, Write, clip_factors,
};
use std::ops::Range;
use std::sync::Arc;

/// A device of several ranks that divide the parameter tokens of every site between them.
///
/// Rank `r` of `n` has the tokens `N·r/n .. N·(r+1)/n` of each segment: their keys, values, gradients and moments. What flows
/// between sites, and all other parameters, every rank has whole, and computes alike. A site exchanges, over all ranks:
///
/// | pass | what | numbers |
/// |---|---|---|
/// | forward | statistics of its norms | `R · groups` |
/// | forward | the sum of the outputs | `R · D_out` |
/// | backward | projections on what its norms normalise | `R · groups` |
/// | backward | the sum of the gradients of the input | `R · D_in` |
///
/// To other code a divided array is whole: it is written whole, and reading it brings the parts together. So every rank has to do
/// the same with the device, in the same order, also where only one of them wants the result.
#[derive(Debug)]
pub struct Divided {
    inner: Arc<dyn Device>,
    ranks: Arc<dyn Collective>,
}

/// This rank's part of an array with a row for each parameter token.
#[derive(Debug)]
struct Share {
    part: Buffer,
    tokens: usize,
    width: usize,
}

/// Scores of a divided site, which get their memory with their first numbers: only the site knows how many are this rank's.
#[derive(Debug)]
struct Scores {
    own: Buffer,
}

impl Divided {
    /// Divides the tokens of sites on `inner` between the ranks.
    ///
    /// # Errors
    /// If the device has no [`ThetaInParts`].
    pub fn between(inner: Arc<dyn Device>, ranks: Arc<dyn Collective>) -> Result<Arc<dyn Device>> {
        match inner.theta_in_parts() {
            Some(_) => Ok(Arc::new(Self { inner, ranks })),
            None => Err(inner.unsupported("sites whose tokens are divided between ranks")),
        }
    }

    fn theta(&self) -> &dyn ThetaInParts {
        // `between` accepts no other device.
        self.inner.theta_in_parts().expect("checked by `between`")
    }

    /// The tokens of a rank among `tokens`.
    fn tokens_of(&self, rank: usize, tokens: usize) -> Range<usize> {
        let world = self.ranks.world();
        tokens * rank / world..tokens * (rank + 1) / world
    }

    fn own(&self, tokens: usize) -> Range<usize> {
        self.tokens_of(self.ranks.rank(), tokens)
    }

    /// Calls `run` with this rank's part of a site.
    fn with_own<T>(
        &self,
        site: &SiteRef<'_>,
        run: impl FnOnce(&SiteRef<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut segments = Vec::with_capacity(site.segments.len());
        for segment in site.segments {
            let (Some(keys), Some(values)) = (share(segment.keys), share(segment.values)) else {
                return Err(self.unsupported("a site whose weights are packed"));
            };
            segments.push(Segment {
                keys: &keys.part,
                values: &values.part,
                tokens: self.own(segment.tokens).len(),
                tau: segment.tau,
            });
        }
        run(&Site {
            theta: site.theta,
            norm: site.norm,
            tau: site.tau,
            eps: site.eps,
            segments: &segments,
        })
    }

    /// Puts together the numbers of all ranks, number by number and in the order of ranks: `stats` becomes `together` of them.
    fn exchange(&self, stats: &mut Buffer, together: impl Fn(&[f64]) -> f64) -> Result<()> {
        let (rank, world) = (self.ranks.rank(), self.ranks.world());
        let mut own = vec![0.0; stats.len()];
        self.inner.read(stats, &mut own)?;
        // Sums of slots that are zero on all ranks but one are exact.
        let mut slots = vec![0.0; own.len() * world];
        for (slots, own) in slots.chunks_exact_mut(world).zip(&own) {
            slots[rank] = f64::from(*own);
        }
        // Minus infinity, the statistic of no scores at all, would make the others' sums infinite.
        let none = f64::from(f32::MIN);
        slots.iter_mut().for_each(|slot| *slot = slot.max(none));
        self.ranks.sum(&mut slots)?;
        let all: Vec<f32> = slots
            .chunks_exact(world)
            .map(|parts| together(parts) as f32)
            .collect();
        self.inner.write(&all, stats)
    }

    /// Begins to add up a buffer of all ranks.
    fn begin_sum(&self, buffer: &Buffer) -> Result<Box<dyn Pending>> {
        let mut numbers = vec![0.0; buffer.len()];
        self.inner.read(buffer, &mut numbers)?;
        self.ranks.begin_sum(numbers)
    }

    /// All of an array on every rank.
    fn whole(&self, share: &Share) -> Result<Temp> {
        let mut numbers = vec![0.0; share.tokens * share.width];
        self.read_share(share, 0, &mut numbers)?;
        let mut whole = Temp::new(&self.inner, numbers.len(), Role::Activation)?;
        self.inner.write(&numbers, &mut whole)?;
        Ok(whole)
    }

    fn read_share(&self, share: &Share, start: usize, to: &mut [f32]) -> Result<()> {
        let wanted = start..start + to.len();
        for rank in 0..self.ranks.world() {
            let rows = self.tokens_of(rank, share.tokens);
            let all = rows.start * share.width..rows.end * share.width;
            let part = wanted.start.max(all.start)..wanted.end.min(all.end);
            if part.is_empty() {
                continue;
            }
            let mut numbers = vec![0.0; part.len()];
            if rank == self.ranks.rank() {
                let from = part.start - all.start;
                self.inner.read_part(&share.part, from, &mut numbers)?;
            }
            let numbers = self.ranks.begin_broadcast(rank, numbers)?.wait()?;
            to[part.start - start..part.end - start].copy_from_slice(&numbers);
        }
        Ok(())
    }

    /// Calls `run` with an operand that is whole on this rank.
    fn with_whole<T>(
        &self,
        operand: Operand<'_>,
        run: impl FnOnce(Operand<'_>) -> Result<T>,
    ) -> Result<T> {
        match share(operand.buffer) {
            None => run(operand),
            Some(share) => {
                let whole = self.whole(share)?;
                run(Operand {
                    buffer: &whole,
                    ..operand
                })
            }
        }
    }

    /// The scores of a site on this rank, `numbers` of them.
    fn scores_of<'b>(&self, buffer: &'b mut Buffer, numbers: usize) -> Result<&'b mut Buffer> {
        let own = &mut buffer.storage_mut::<Scores>().own;
        if own.len() != numbers {
            self.inner.release(own);
            // Not `Role::Scores`, whose numbers no other operation may read.
            self.inner.temporary(numbers, Role::Activation, own)?;
        }
        Ok(own)
    }
}

fn share(buffer: &Buffer) -> Option<&Share> {
    buffer.storage_if()
}

/// This rank's part of an array that may be divided.
fn part(buffer: &Buffer) -> &Buffer {
    share(buffer).map_or(buffer, |share| &share.part)
}

fn part_mut(buffer: &mut Buffer) -> &mut Buffer {
    match buffer.storage_if::<Share>() {
        Some(_) => &mut buffer.storage_mut::<Share>().part,
        None => buffer,
    }
}

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
            let sum = self.begin_sum(y)?.wait()?;
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
                sum = Some((self.begin_sum(&part)?, part));
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

/// Operations on arrays that are whole are the device's own.
impl Device for Divided {
    fn describe(&self) -> String {
        let (world, inner) = (self.ranks.world(), self.inner.describe());
        format!("{inner}, parameter tokens divided between {world} ranks")
    }

    fn token_ranks(&self) -> usize {
        self.ranks.world()
    }

    fn handles(&self) -> &Handles {
        self.inner.handles()
    }

    fn alloc(&self, len: usize, role: Role) -> Result<Buffer> {
        self.inner.alloc(len, role)
    }

    fn alloc_from(&self, numbers: Vec<f32>, role: Role) -> Result<Buffer> {
        self.inner.alloc_from(numbers, role)
    }

    fn alloc_tokens(&self, [tokens, width]: [usize; 2], role: Role) -> Result<Buffer> {
        let part = self.inner.alloc(self.own(tokens).len() * width, role)?;
        let share = Share {
            part,
            tokens,
            width,
        };
        Ok(Buffer::new(share, tokens * width))
    }

    fn alloc_tokens_from(
        &self,
        numbers: Vec<f32>,
        [tokens, width]: [usize; 2],
        role: Role,
    ) -> Result<Buffer> {
        let own = self.own(tokens);
        let own = numbers[own.start * width..own.end * width].to_vec();
        let part = self.inner.alloc_from(own, role)?;
        let share = Share {
            part,
            tokens,
            width,
        };
        Ok(Buffer::new(share, tokens * width))
    }

    fn temporary_tokens(
        &self,
        [tokens, width]: [usize; 2],
        role: Role,
        buffer: &mut Buffer,
    ) -> Result<()> {
        let mut part = Buffer::empty();
        let numbers = self.own(tokens).len() * width;
        self.inner.temporary(numbers, role, &mut part)?;
        buffer.refill(
            Share {
                part,
                tokens,
                width,
            },
            tokens * width,
        );
        Ok(())
    }

    fn temporary(&self, len: usize, role: Role, buffer: &mut Buffer) -> Result<()> {
        if role == Role::Scores {
            let own = Buffer::empty();
            buffer.refill(Scores { own }, len);
            return Ok(());
        }
        self.inner.temporary(len, role, buffer)
    }

    fn release(&self, buffer: &mut Buffer) {
        if buffer.storage_if::<Scores>().is_some() {
            self.inner.release(&mut buffer.storage_mut::<Scores>().own);
            *buffer = Buffer::empty();
        } else if share(buffer).is_some() {
            self.inner.release(part_mut(buffer));
            *buffer = Buffer::empty();
        } else {
            self.inner.release(buffer);
        }
    }

    fn trim(&self) {
        self.inner.trim();
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }

    fn synchronize(&self) -> Result<()> {
        self.inner.synchronize()
    }

    fn write(&self, from: &[f32], to: &mut Buffer) -> Result<()> {
        match share(to) {
            None => self.inner.write(from, to),
            Some(&Share { tokens, width, .. }) => {
                let own = self.own(tokens);
                let own = &from[own.start * width..own.end * width];
                self.inner.write(own, part_mut(to))
            }
        }
    }

    fn write_indices(&self, from: &[u32], to: &mut Buffer) -> Result<()> {
        self.inner.write_indices(from, to)
    }

    fn read_part(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()> {
        match share(from) {
            None => self.inner.read_part(from, start, to),
            Some(share) => self.read_share(share, start, to),
        }
    }

    /// The sum over all ranks: see [`Device::sum_of_squares`] here.
    fn read_accumulator(&self, from: &Buffer, to: &mut [f64]) -> Result<()> {
        self.inner.read_accumulator(from, to)?;
        self.ranks.sum(to)
    }

    fn zero(&self, buffer: &mut Buffer) -> Result<()> {
        self.inner.zero(part_mut(buffer))
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) -> Result<()> {
        self.inner.copy(part(from), part_mut(to))
    }

    fn pack_weights(
        &self,
        weights: Buffer,
        matrix: PackedMatrix,
        format: WeightFormat,
    ) -> Result<Buffer> {
        match share(&weights) {
            None => self.inner.pack_weights(weights, matrix, format),
            Some(_) => Err(self.unsupported("packing weights that are divided")),
        }
    }

    fn unsupported(&self, operation: &str) -> DeviceError {
        DeviceError::Failed {
            device: self.describe(),
            operation: operation.into(),
            reason: "this device does not support it".into(),
        }
    }

    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.inner.add(part(x), part_mut(y))
    }

    fn add_to_rows(&self, bias: &Buffer, y: &mut Buffer) -> Result<()> {
        self.inner.add_to_rows(bias, y)
    }

    fn sum_rows(&self, dy: &Buffer, d_bias: &mut Buffer) -> Result<()> {
        self.inner.sum_rows(dy, d_bias)
    }

    fn scale_rows(&self, x: &Buffer, factors: &Buffer, write: Write, y: &mut Buffer) -> Result<()> {
        self.inner.scale_rows(x, factors, write, y)
    }

    fn matmul(&self, product: Matmul<'_>, write: Write, c: Output<'_>) -> Result<()> {
        self.with_whole(product.a, |a| {
            self.with_whole(product.b, |b| {
                self.inner.matmul(Matmul { a, b, ..product }, write, c)
            })
        })
    }

    fn gelu(&self, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.inner.gelu(x, y)
    }

    fn gelu_backward(&self, x: &Buffer, dy: &Buffer, dx: &mut Buffer) -> Result<()> {
        self.inner.gelu_backward(x, dy, dx)
    }

    fn theta(&self, site: &SiteRef<'_>, scores: &mut Buffer, stats: &mut Buffer) -> Result<()> {
        self.inner.theta(site, scores, stats)
    }

    fn theta_backward(
        &self,
        site: &SiteRef<'_>,
        scores: &mut Buffer,
        stats: &Buffer,
        d_scores: &mut Buffer,
    ) -> Result<()> {
        self.inner.theta_backward(site, scores, stats, d_scores)
    }

    fn gather_rows(
        &self,
        table: &Buffer,
        index: &Buffer,
        width: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        self.inner.gather_rows(table, index, width, y)
    }

    fn scatter_add_rows(
        &self,
        index: &Buffer,
        dy: &Buffer,
        width: usize,
        d_table: &mut Buffer,
    ) -> Result<()> {
        self.inner.scatter_add_rows(index, dy, width, d_table)
    }

    fn layer_norm(
        &self,
        x: &Buffer,
        affine: Option<[&Buffer; 2]>,
        eps: f32,
        width: usize,
        y: &mut Buffer,
        stats: &mut Buffer,
    ) -> Result<()> {
        self.inner.layer_norm(x, affine, eps, width, y, stats)
    }

    fn layer_norm_backward(
        &self,
        kept: KeptForNorm<'_>,
        stats: &Buffer,
        gain: Option<&Buffer>,
        dy: &Buffer,
        width: usize,
        write: Write,
        dx: &mut Buffer,
    ) -> Result<()> {
        (self.inner).layer_norm_backward(kept, stats, gain, dy, width, write, dx)
    }

    fn layer_norm_backward_affine(
        &self,
        x: &Buffer,
        stats: &Buffer,
        dy: &Buffer,
        d_gain: &mut Buffer,
        d_bias: &mut Buffer,
    ) -> Result<()> {
        (self.inner).layer_norm_backward_affine(x, stats, dy, d_gain, d_bias)
    }

    fn rotate(
        &self,
        table: &RotaryTable,
        dims: RotaryDims,
        inverse: bool,
        x: &mut Buffer,
    ) -> Result<()> {
        self.inner.rotate(table, dims, inverse, x)
    }

    fn attention(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &mut Buffer,
        log_sums: Option<&mut Buffer>,
    ) -> Result<()> {
        self.inner.attention(dims, qkv, o, log_sums)
    }

    fn attention_each(
        &self,
        heads: usize,
        qkv: [&Buffer; 3],
        sequences: &mut [CachedSequence<'_>],
        o: &mut Buffer,
    ) -> Result<()> {
        self.inner.attention_each(heads, qkv, sequences, o)
    }

    fn attention_backward(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &Buffer,
        log_sums: &Buffer,
        d_o: &Buffer,
        d_qkv: [&mut Buffer; 3],
    ) -> Result<()> {
        (self.inner).attention_backward(dims, qkv, o, log_sums, d_o, d_qkv)
    }

    fn store_rows(&self, rows: &Buffer, dims: RowsToStore, cache: &mut Buffer) -> Result<()> {
        self.inner.store_rows(rows, dims, cache)
    }

    fn loss(
        &self,
        head: Head<'_>,
        targets: Targets<'_>,
        losses: &mut Buffer,
        gradient: Option<LossGradient<'_>>,
    ) -> Result<()> {
        self.inner.loss(head, targets, losses, gradient)
    }

    /// Adds this rank's part of a divided array. What all ranks have is counted by rank 0 alone, so that the sum over the ranks is
    /// that of everything.
    fn sum_of_squares(&self, x: &Buffer, sums: &mut Buffer, group: usize) -> Result<()> {
        if share(x).is_none() && self.ranks.rank() > 0 {
            return Ok(());
        }
        self.inner.sum_of_squares(part(x), sums, group)
    }

    fn clip_factors(&self, sums: &Buffer, limit: f64, factors: &mut Buffer) -> Result<()> {
        let mut all = vec![0.0; sums.len()];
        self.read_accumulator(sums, &mut all)?;
        let mut found = vec![0.0; all.len()];
        clip_factors(&all, limit, &mut found);
        self.inner.write(&found, factors)
    }

    fn adamw(
        &self,
        step: AdamStep<'_>,
        p: &mut Buffer,
        g: &Buffer,
        m: &mut Buffer,
        v: &mut Buffer,
    ) -> Result<()> {
        let (p, m, v) = (part_mut(p), part_mut(m), part_mut(v));
        self.inner.adamw(step, p, part(g), m, v)
    }

    fn lerp(&self, weight: f32, x: &Buffer, y: &mut Buffer) -> Result<()> {
        self.inner.lerp(weight, part(x), part_mut(y))
    }

    fn fused_site(&self) -> Option<&dyn FusedSite> {
        Some(self)
    }
}

//! All other operations: on arrays that are whole, those of the device inside.

use super::{Divided, Scores, Share, part, part_mut, share};
use crate::{
    AdamStep, AttentionDims, Buffer, CachedSequence, Device, DeviceError, FusedSite, Handles, Head,
    KeptForNorm, LossGradient, Matmul, Output, PackedMatrix, Result, Role, RotaryDims, RotaryTable,
    RowsToStore, SiteRef, Targets, Usage, WeightFormat, Write, clip_factors,
};

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

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }

    fn activation_bytes(&self) -> usize {
        self.inner.activation_bytes()
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
        self.ranks.all_reduce(to)
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

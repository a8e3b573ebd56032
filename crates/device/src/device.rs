//! The trait that a device implements.

use crate::{
    AdamStep, AttentionDims, Buffer, CachedSequence, DeviceError, Handles, Head, KeptForNorm,
    LossGradient, Matmul, Output, PackedMatrix, Result, Role, RotaryDims, RotaryTable, RowsToStore,
    SegmentGradient, SiteDims, SiteRef, Targets, ThetaInParts, WeightFormat, Write,
};
use std::fmt;
use std::sync::Arc;

/// The memory that a device holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Long-lived buffers: weights, moments, tables.
    pub persistent: usize,
    /// Live temporaries.
    pub temporary: usize,
    /// Memory that temporaries and scratch memory of kernels have taken from the system since the last
    /// [`Device::trim`].
    pub temporary_reserved: usize,
    /// Scratch memory of the device's own threads or streams.
    pub scratch: usize,
}

impl Usage {
    /// All memory that was taken from the system.
    pub fn total(&self) -> usize {
        self.persistent + self.temporary_reserved + self.scratch
    }
}

/// Memory and operations. Operations may run asynchronously, in the order of the calls; [`Device::read`] and
/// [`Device::synchronize`] wait for them. In parameter lists, outputs come last.
///
/// Shapes are row-major. `R` are rows (positions of all sequences, `B·T`), `D` a width, `N` the parameter tokens of a site, `V` a
/// vocabulary. Every operation returns an error only if the device fails: [`DeviceError::OutOfMemory`] or
/// [`DeviceError::Failed`].
///
/// # Panics
/// If the lengths of buffers do not fit the shapes that an operation states; the caller has checked what comes from outside.
pub trait Device: Send + Sync + fmt::Debug {
    /// Human-readable description of the device: instruction sets, threads, precision.
    fn describe(&self) -> String;

    // ----- memory -----

    /// Handles of temporary buffers that can be reused.
    fn handles(&self) -> &Handles;

    /// A new, zeroed, long-lived buffer of `len` numbers.
    fn alloc(&self, len: usize, role: Role) -> Result<Buffer>;

    /// A long-lived buffer of these numbers. A device that uses the host's memory keeps the allocation and copies
    /// nothing.
    fn alloc_from(&self, numbers: Vec<f32>, role: Role) -> Result<Buffer> {
        let mut buffer = self.alloc(numbers.len(), role)?;
        self.write(&numbers, &mut buffer)?;
        Ok(buffer)
    }

    /// Ranks between which arrays with a row for each parameter token are divided. If there are several, they must do the same
    /// with the device, in the same order: reading such an array needs all of them.
    fn token_ranks(&self) -> usize {
        1
    }

    /// [`Device::alloc`] of an array with a row of `width` numbers for each of `tokens` parameter tokens, which several devices
    /// may divide between them ([`crate::Divided`]). For other code it is whole.
    fn alloc_tokens(&self, [tokens, width]: [usize; 2], role: Role) -> Result<Buffer> {
        self.alloc(tokens * width, role)
    }

    /// [`Device::alloc_from`] of such an array.
    fn alloc_tokens_from(
        &self,
        numbers: Vec<f32>,
        [_tokens, _width]: [usize; 2],
        role: Role,
    ) -> Result<Buffer> {
        self.alloc_from(numbers, role)
    }

    /// [`Device::temporary`] of such an array.
    fn temporary_tokens(
        &self,
        [tokens, width]: [usize; 2],
        role: Role,
        buffer: &mut Buffer,
    ) -> Result<()> {
        self.temporary(tokens * width, role, buffer)
    }

    /// Makes `buffer` a temporary of `len` numbers with arbitrary content, from the device's memory for temporaries.
    fn temporary(&self, len: usize, role: Role, buffer: &mut Buffer) -> Result<()> {
        *buffer = self.alloc(len, role)?;
        Ok(())
    }

    /// Frees the memory of a temporary buffer.
    fn release(&self, buffer: &mut Buffer) {
        *buffer = Buffer::empty();
    }

    /// Returns the memory of temporaries to the system if none is alive (after a growth, when sizes change).
    fn trim(&self) {}

    /// The memory that the device holds.
    fn usage(&self) -> Usage;

    /// Bytes that buffers can still take, of a device that has memory of its own; `None` if it uses the host's.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Bytes of a number that flows through the network, [`Role::Activation`].
    fn activation_bytes(&self) -> usize {
        size_of::<f32>()
    }

    /// A copy of this device that allocates the same memory but computes nothing: numbers read from it are 0. The
    /// memory of a run is planned by running it on this copy.
    ///
    /// # Errors
    /// If the device has no dry run.
    fn dry_run(&self) -> Result<Arc<dyn Device>> {
        Err(self.unsupported("a dry run"))
    }

    /// Waits until all operations are done.
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    /// Copies numbers from the host.
    fn write(&self, from: &[f32], to: &mut Buffer) -> Result<()>;

    /// Copies indices from the host to a buffer of [`Role::Index`].
    fn write_indices(&self, from: &[u32], to: &mut Buffer) -> Result<()>;

    /// Copies all numbers to the host.
    fn read(&self, from: &Buffer, to: &mut [f32]) -> Result<()> {
        self.read_part(from, 0, to)
    }

    /// Copies `to.len()` numbers from number `start` on to the host.
    fn read_part(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()>;

    /// Copies the numbers of an [`Role::Accumulator`] to the host.
    fn read_accumulator(&self, from: &Buffer, to: &mut [f64]) -> Result<()>;

    /// Sets every number to zero.
    fn zero(&self, buffer: &mut Buffer) -> Result<()>;

    /// `to = from`.
    fn copy(&self, from: &Buffer, to: &mut Buffer) -> Result<()>;

    /// Packs a weight matrix for inference in a format. Afterwards it can be used in [`Device::gather_rows`] (as
    /// table), [`Device::matmul`] (as right factor), [`FusedSite::forward`], [`Device::loss`] without gradients and
    /// [`Device::read`].
    ///
    /// # Errors
    /// If the device does not support the format, or has no memory left.
    fn pack_weights(
        &self,
        weights: Buffer,
        _matrix: PackedMatrix,
        format: WeightFormat,
    ) -> Result<Buffer> {
        match format {
            WeightFormat::F32 => Ok(weights),
            other => Err(self.unsupported(&format!("packing weights in {}", other.name()))),
        }
    }

    /// The error for an operation that this device does not support.
    fn unsupported(&self, operation: &str) -> DeviceError {
        DeviceError::Failed {
            device: self.describe(),
            operation: operation.into(),
            reason: "this device does not support it".into(),
        }
    }

    // ----- primitives -----

    /// `y += x`, of equal lengths.
    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()>;

    /// Adds `bias` `[D]` to each row of `y` `[R, D]`.
    fn add_to_rows(&self, bias: &Buffer, y: &mut Buffer) -> Result<()>;

    /// Adds the sum of the rows of `dy` `[R, D]` to `d_bias` `[D]`.
    fn sum_rows(&self, dy: &Buffer, d_bias: &mut Buffer) -> Result<()>;

    /// `y[r] = factors[r] · x[r]`, or added to `y`, for the rows of `x` and `y`; there are as many as `factors`.
    fn scale_rows(&self, x: &Buffer, factors: &Buffer, write: Write, y: &mut Buffer) -> Result<()>;

    /// `C = scale · A·B` `[rows, cols]`, or added to `C`; each [`Operand`](crate::Operand) says whether it is transposed.
    fn matmul(&self, product: Matmul<'_>, write: Write, c: Output<'_>) -> Result<()>;

    /// Exact GELU, element by element: `y = x·Φ(x)`, of equal lengths.
    fn gelu(&self, x: &Buffer, y: &mut Buffer) -> Result<()>;

    /// Gradient of [`Device::gelu`]: `dx = dy · gelu'(x)`, of equal lengths.
    fn gelu_backward(&self, x: &Buffer, dy: &Buffer, dx: &mut Buffer) -> Result<()>;

    /// Applies `Θ` of a site along each row of `scores` `[R, N]`, in place; `stats` `[R, groups]` receives what the
    /// backward pass needs: the norm of each group, or the log of its softmax denominator. Weights of the site are not
    /// read.
    fn theta(&self, site: &SiteRef<'_>, scores: &mut Buffer, stats: &mut Buffer) -> Result<()>;

    /// Gradient of [`Device::theta`]: replaces `scores` by weights, and `d_scores` `[R, N]`, the gradient of the
    /// weights, by the gradient of the scores.
    fn theta_backward(
        &self,
        site: &SiteRef<'_>,
        scores: &mut Buffer,
        stats: &Buffer,
        d_scores: &mut Buffer,
    ) -> Result<()>;

    /// `y` `[R, D]` are the rows `index` `[R]` of `table` `[V, D]`, `D` the `width`.
    fn gather_rows(
        &self,
        table: &Buffer,
        index: &Buffer,
        width: usize,
        y: &mut Buffer,
    ) -> Result<()>;

    /// Adds the rows of `dy` `[R, D]` to the rows `index` `[R]` of `d_table` `[V, D]`, in the order of `R`.
    fn scatter_add_rows(
        &self,
        index: &Buffer,
        dy: &Buffer,
        width: usize,
        d_table: &mut Buffer,
    ) -> Result<()>;

    /// LayerNorm of the rows of `x` `[R, D]` to `y` `[R, D]`, `D` the `width`. `affine` is gain `[D]` and bias `[D]`; `stats` `[R, 2]` receives
    /// mean and reciprocal deviation for the backward pass.
    fn layer_norm(
        &self,
        x: &Buffer,
        affine: Option<[&Buffer; 2]>,
        eps: f32,
        width: usize,
        y: &mut Buffer,
        stats: &mut Buffer,
    ) -> Result<()>;

    /// Gradient of [`Device::layer_norm`] by its input.
    #[allow(clippy::too_many_arguments)]
    fn layer_norm_backward(
        &self,
        kept: KeptForNorm<'_>,
        stats: &Buffer,
        gain: Option<&Buffer>,
        dy: &Buffer,
        width: usize,
        write: Write,
        dx: &mut Buffer,
    ) -> Result<()>;

    /// Gradients of [`Device::layer_norm`] by gain and bias, which are added to the outputs; `x` is the norm's input.
    fn layer_norm_backward_affine(
        &self,
        x: &Buffer,
        stats: &Buffer,
        dy: &Buffer,
        d_gain: &mut Buffer,
        d_bias: &mut Buffer,
    ) -> Result<()>;

    /// Rotary position embedding of `x` `[B·T, H·C]` in place; `inverse` is the backward pass.
    fn rotate(
        &self,
        table: &RotaryTable,
        dims: RotaryDims,
        inverse: bool,
        x: &mut Buffer,
    ) -> Result<()>;

    /// Multi-head softmax attention between tokens: `o` `[B·T_q, D]` from queries `[B·T_q, D]`, keys and values
    /// `[B·key_stride, D]`; `log_sums` `[B, H, T_q]` receives what the backward pass needs.
    fn attention(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &mut Buffer,
        log_sums: Option<&mut Buffer>,
    ) -> Result<()>;

    /// Causal attention of several sequences of `heads` heads. Their rows of queries, keys and values follow each other in
    /// `qkv` `[R, D]`, as those of the output do in `o` `[R, D]`. The new keys and values of each are added to its cache
    /// first, and its queries see the positions up to theirs.
    fn attention_each(
        &self,
        heads: usize,
        qkv: [&Buffer; 3],
        sequences: &mut [CachedSequence<'_>],
        o: &mut Buffer,
    ) -> Result<()>;

    /// Gradients of self-attention (`key_stride = keys = queries`), replaced.
    fn attention_backward(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &Buffer,
        log_sums: &Buffer,
        d_o: &Buffer,
        d_qkv: [&mut Buffer; 3],
    ) -> Result<()>;

    /// Copies `rows` `[B·length, width]` into a cache `[B, capacity, width]`, those of each sequence from position `at` on.
    fn store_rows(&self, rows: &Buffer, dims: RowsToStore, cache: &mut Buffer) -> Result<()>;

    /// Cross-entropy (nats) of each row `[R]` through an output head, and gradients of `weight · Σ losses` on request.
    /// An implementation need not store the logits of all rows at once.
    fn loss(
        &self,
        head: Head<'_>,
        targets: Targets<'_>,
        losses: &mut Buffer,
        gradient: Option<LossGradient<'_>>,
    ) -> Result<()>;

    // ----- optimizer -----

    /// `sums[group] += Σ x²`, in f64; `sums` is a [`Role::Accumulator`].
    fn sum_of_squares(&self, x: &Buffer, sums: &mut Buffer, group: usize) -> Result<()>;

    /// `factors`, one per group, by which its gradients are multiplied so that their norm is at most `limit` (0 means
    /// no limit). `sums` are the sums of their squares, and a factor is 1 or `limit / (norm + 1e-6)`. If any norm is
    /// not finite, all factors are NaN.
    fn clip_factors(&self, sums: &Buffer, limit: f64, factors: &mut Buffer) -> Result<()>;

    /// One update of AdamW (Loshchilov and Hutter, arXiv 1711.05101) of `p` from the gradient `g` and the moments `m` and `v`, all of
    /// equal lengths. If the factor of [`Device::clip_factors`] is NaN, nothing changes.
    fn adamw(
        &self,
        step: AdamStep<'_>,
        p: &mut Buffer,
        g: &Buffer,
        m: &mut Buffer,
        v: &mut Buffer,
    ) -> Result<()>;

    /// Moves `y` towards `x` by a share of the way, of equal lengths: `y += weight · (x − y)`.
    fn lerp(&self, weight: f32, x: &Buffer, y: &mut Buffer) -> Result<()>;

    // ----- fused operations -----

    /// Pattention as one operation, if the device has it. If `None`, Pattention is composed of primitives.
    fn fused_site(&self) -> Option<&dyn FusedSite> {
        None
    }

    /// The parts of `Θ`, if the device has them: then sites may be divided ([`crate::Divided`]).
    fn theta_in_parts(&self) -> Option<&dyn ThetaInParts> {
        None
    }
}

/// Pattention `Y = Θ(X·Kᵀ)·V` as one operation.
pub trait FusedSite {
    /// Computes `y` `[R, d_out]` from `x` `[R, d_in]`. `kept` is scores `[R, N]` ([`Role::Scores`]) and stats `[R,
    /// groups]` for the backward pass; if the scores are empty, [`FusedSite::scores`] recomputes them later.
    fn forward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        y: &mut Buffer,
        kept: Option<[&mut Buffer; 2]>,
    ) -> Result<()>;

    /// [`FusedSite::forward`] of one input at several sites, in inference: `ys[i]` is the output of `sites[i]`.
    fn forward_group(
        &self,
        sites: &[SiteRef<'_>],
        x: &Buffer,
        dims: SiteDims,
        ys: &mut [&mut Buffer],
    ) -> Result<()> {
        (sites.iter().zip(ys)).try_for_each(|(site, y)| self.forward(site, x, dims, y, None))
    }

    /// Recomputes the scores `[R, N]` that [`FusedSite::forward`] stores.
    fn scores(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: SiteDims,
        scores: &mut Buffer,
    ) -> Result<()>;

    /// Gradients of [`FusedSite::forward`]. The kept scores may be overwritten; `work` is scratch memory of their size
    /// and role.
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dy: &Buffer,
        dims: SiteDims,
        kept: [&mut Buffer; 2],
        work: &mut Buffer,
        dx: Option<(Write, &mut Buffer)>,
        gradients: &mut [SegmentGradient<'_>],
    ) -> Result<()>;
}

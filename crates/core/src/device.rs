//! The device seam: every operation that the model, growth and training are written against.
//!
//! A device owns memory ([`Buffer`]s of numbers) and implements the operations below; nothing outside it
//! knows how. [`crate::cpu::Cpu`] is the fast one, [`crate::reference::Reference`] the plain f64 one that
//! tests hold it against. Another device is another implementation of this trait, in a crate of its own.
//!
//! Axis letters: `R` rows (all tokens of a batch), `B` batch, `T` time, `D` width, `N` parameter tokens of
//! a site, `H` heads, `C` channels of a head, `V` vocabulary. Shapes are contracts: an implementation may
//! panic on a violation, which is a bug in the caller and cannot be caused by outside data.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

pub use tokenformer_kernels::adamw::Update;
pub use tokenformer_kernels::attention::Shape as AttentionShape;
pub use tokenformer_kernels::gemm::Format as WeightFormat;
pub use tokenformer_kernels::gemm::Write;
pub use tokenformer_kernels::pattention::{Norm, Theta};
pub use tokenformer_kernels::rotary::Table as RotaryTable;

/// What can go wrong on a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Memory could not be had.
    #[error(
        "{device}: out of memory\n  expected: {needed_bytes} more bytes\n  help:     use a smaller \
         batch, context or model"
    )]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes asked for.
        needed_bytes: usize,
    },
    /// The device's driver or library failed.
    #[error("{device}: {operation} failed: {reason}")]
    Failed {
        /// The device's name.
        device: String,
        /// What was being done.
        operation: String,
        /// The driver's words.
        reason: String,
    },
}

/// Result of an operation on a device.
pub type Result<T> = std::result::Result<T, DeviceError>;

/// A block of `len` numbers on a device, in whatever form the device keeps them.
pub struct Buffer {
    storage: Box<dyn Any + Send + Sync>,
    len: usize,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({})", self.len)
    }
}

impl Buffer {
    /// Wraps a device's own storage of `len` numbers.
    pub fn new(storage: impl Any + Send + Sync, len: usize) -> Self {
        Self {
            storage: Box::new(storage),
            len,
        }
    }

    /// Numbers in the buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The storage if it is an `S`: devices may keep numbers in several forms.
    pub fn storage_if<S: Any>(&self) -> Option<&S> {
        self.storage.downcast_ref()
    }

    /// The storage, for the device that made it.
    ///
    /// # Panics
    /// If another device made it.
    pub fn storage<S: Any>(&self) -> &S {
        self.storage
            .downcast_ref()
            .expect("a buffer is used on the device that made it")
    }

    /// The storage, to write.
    ///
    /// # Panics
    /// If another device made it.
    pub fn storage_mut<S: Any>(&mut self) -> &mut S {
        self.storage
            .downcast_mut()
            .expect("a buffer is used on the device that made it")
    }
}

/// On which side of a weight matrix `W` `[rows, cols]` its inputs stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `X·Wᵀ`: keys, and the table of the output head.
    Rows,
    /// `Σ·W`: values.
    Columns,
}

/// One segment of a site as operations see it.
#[derive(Clone, Copy)]
pub struct SegmentRef<'a> {
    /// Keys `[N_s, D_in]`.
    pub keys: &'a Buffer,
    /// Values `[N_s, D_out]`.
    pub values: &'a Buffer,
    /// Tokens `N_s`.
    pub tokens: usize,
    /// Scale under [`Norm::Segment`].
    pub tau: f32,
}

/// A Pattention site as operations see it.
#[derive(Clone, Copy)]
pub struct SiteRef<'a> {
    /// Nonlinearity.
    pub theta: Theta,
    /// Span of the norm.
    pub norm: Norm,
    /// Added to each norm.
    pub eps: f32,
    /// The tokens.
    pub segments: &'a [SegmentRef<'a>],
}

/// Gradient buffers of a segment's keys and values; `None` where it is frozen.
pub type SegmentGradRef<'a> = Option<[&'a mut Buffer; 2]>;

/// What a LayerNorm kept for its backward pass.
#[derive(Clone, Copy)]
pub enum Kept<'a> {
    /// The output, of a norm without gain and bias.
    Output(&'a Buffer),
    /// The input.
    Input(&'a Buffer),
}

/// Where [`Device::cross_entropy`] puts gradients.
pub struct LossGradient<'a> {
    /// Factor of every row's loss.
    pub weight: f32,
    /// Gradient of the hidden states `[R, D]`, written.
    pub dh: &'a mut Buffer,
    /// Gradient of the table `[V, D]`, added to; `None` if frozen.
    pub dtable: Option<&'a mut Buffer>,
}

/// The operations of a TokenFormer.
///
/// Outputs come last. `Write` says whether an output is replaced or added to.
pub trait Device: Send + Sync + fmt::Debug {
    /// A line that tells a person what computes: instruction sets, threads, precision.
    fn describe(&self) -> String;

    /// Free buffers of this device.
    fn pool(&self) -> &BufferPool;

    /// New memory for `len` numbers, all zero.
    fn allocate(&self, len: usize) -> Result<Buffer>;

    /// Length of a buffer for `len` numbers that [`Device::pattention`] keeps: fewer where they are rounded.
    fn kept_len(&self, len: usize) -> usize {
        len
    }

    /// A buffer of these numbers. A device whose memory is the host's keeps the allocation and copies nothing.
    fn adopt(&self, numbers: Vec<f32>) -> Result<Buffer> {
        let mut buffer = self.allocate(numbers.len())?;
        self.upload(&numbers, &mut buffer)?;
        Ok(buffer)
    }

    /// Host to device.
    fn upload(&self, from: &[f32], to: &mut Buffer) -> Result<()>;

    /// The weights `[rows, cols]` in the form in which the device multiplies with them fastest, in a format.
    /// They serve inference from then on: [`Device::embed`], [`Device::pattention`], [`Device::logits`] and
    /// [`Device::cross_entropy`] without gradients, and [`Device::download`].
    ///
    /// # Errors
    /// If the device does not know the format, or has no memory left.
    fn prepare(
        &self,
        weights: Buffer,
        [_rows, _cols]: [usize; 2],
        _side: Side,
        format: WeightFormat,
    ) -> Result<Buffer> {
        match format {
            WeightFormat::F32 => Ok(weights),
            WeightFormat::Bf16 | WeightFormat::Int8 => Err(DeviceError::Failed {
                device: self.describe(),
                operation: format!("preparing weights in {}", format.name()),
                reason: "it keeps them in one format only".into(),
            }),
        }
    }

    /// Device to host.
    fn download(&self, from: &Buffer, to: &mut [f32]) -> Result<()>;

    /// Sets every number to zero.
    fn zero(&self, buffer: &mut Buffer) -> Result<()>;

    /// `to = from`.
    fn copy(&self, from: &Buffer, to: &mut Buffer) -> Result<()>;

    /// `y += x`.
    fn add(&self, x: &Buffer, y: &mut Buffer) -> Result<()>;

    /// Rows `tokens` of `table` `[V, d]` into `y` `[R, d]`.
    fn embed(&self, table: &Buffer, tokens: &[u32], d: usize, y: &mut Buffer) -> Result<()>;

    /// Adds `dy` `[R, d]` to the rows `tokens` of `dtable`.
    fn embed_backward(
        &self,
        tokens: &[u32],
        dy: &Buffer,
        d: usize,
        dtable: &mut Buffer,
    ) -> Result<()>;

    /// LayerNorm of rows of `d`; `affine` is gain and bias; `stats` `[R, 2]`.
    fn layer_norm(
        &self,
        x: &Buffer,
        affine: Option<[&Buffer; 2]>,
        eps: f32,
        d: usize,
        y: &mut Buffer,
        stats: &mut Buffer,
    ) -> Result<()>;

    /// Gradient of [`Device::layer_norm`] for its input.
    #[allow(clippy::too_many_arguments)]
    fn layer_norm_backward(
        &self,
        kept: Kept<'_>,
        stats: &Buffer,
        gain: Option<&Buffer>,
        dy: &Buffer,
        d: usize,
        write: Write,
        dx: &mut Buffer,
    ) -> Result<()>;

    /// Gradients of [`Device::layer_norm`] for gain and bias, added to them; `x` is the norm's input.
    fn layer_norm_backward_affine(
        &self,
        x: &Buffer,
        stats: &Buffer,
        dy: &Buffer,
        dgain: &mut Buffer,
        dbias: &mut Buffer,
    ) -> Result<()>;

    /// Pattention of `x` `[R, d_in]` into `y` `[R, d_out]`; `dims` is `[R, d_in, d_out]`. `saved` is
    /// scores `[R, N]` (in [`Device::kept_len`]) and stats `[R, groups]`, kept for the backward pass.
    fn pattention(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: [usize; 3],
        y: &mut Buffer,
        saved: Option<[&mut Buffer; 2]>,
    ) -> Result<()>;

    /// [`Device::pattention`] of one input at several sites, in inference: `ys[i]` is the output of `sites[i]`.
    fn pattention_group(
        &self,
        sites: &[SiteRef<'_>],
        x: &Buffer,
        dims: [usize; 3],
        ys: &mut [&mut Buffer],
    ) -> Result<()> {
        (sites.iter().zip(ys)).try_for_each(|(site, y)| self.pattention(site, x, dims, y, None))
    }

    /// Gradients of [`Device::pattention`]. The saved scores may be overwritten; `work` is a work area of
    /// their size.
    #[allow(clippy::too_many_arguments)]
    fn pattention_backward(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dy: &Buffer,
        dims: [usize; 3],
        saved: [&mut Buffer; 2],
        work: &mut Buffer,
        dx: Option<(Write, &mut Buffer)>,
        grads: &mut [SegmentGradRef<'_>],
    ) -> Result<()>;

    /// Rotary embedding of `x` `[B·T, H·C]` in place; `dims` is `[T, H, C]`, row `r` stands at position
    /// `first + r % T`; `inverse` is the backward pass.
    fn rotate(
        &self,
        table: &Arc<RotaryTable>,
        dims: [usize; 3],
        first: usize,
        inverse: bool,
        x: &mut Buffer,
    ) -> Result<()>;

    /// Softmax attention between tokens; `lse` receives what the backward pass needs.
    fn attention(
        &self,
        shape: AttentionShape,
        qkv: [&Buffer; 3],
        o: &mut Buffer,
        lse: Option<&mut Buffer>,
    ) -> Result<()>;

    /// Gradients of self-attention, written.
    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: [&Buffer; 3],
        o: &Buffer,
        lse: &Buffer,
        d_o: &Buffer,
        dqkv: [&mut Buffer; 3],
    ) -> Result<()>;

    /// Copies rows `[B·T, d]` to positions `at..at + T` of a cache `[B, capacity, d]`.
    fn store_rows(
        &self,
        rows: &Buffer,
        dims: [usize; 3],
        at: usize,
        capacity: usize,
        cache: &mut Buffer,
    ) -> Result<()>;

    /// `logits` `[R, V] = scale · h[R, d] · table[V, d]ᵀ`.
    fn logits(
        &self,
        h: &Buffer,
        table: &Buffer,
        scale: f32,
        d: usize,
        logits: &mut Buffer,
    ) -> Result<()>;

    /// Per-row cross-entropy `nll` `[R]` of `targets` through the output head, with gradients of
    /// `weight · Σ nll` on request.
    #[allow(clippy::too_many_arguments)]
    fn cross_entropy(
        &self,
        h: &Buffer,
        table: &Buffer,
        scale: f32,
        targets: &[u32],
        d: usize,
        nll: &mut Buffer,
        gradient: Option<LossGradient<'_>>,
    ) -> Result<()>;

    /// `Σ x²`.
    fn sum_of_squares(&self, x: &Buffer) -> Result<f64>;

    /// One AdamW update of `p` from `g` and the moments `m`, `v`.
    fn adamw(
        &self,
        update: Update,
        p: &mut Buffer,
        g: &Buffer,
        m: &mut Buffer,
        v: &mut Buffer,
    ) -> Result<()>;
}

/// Buffers that are free to be used again, by length: after its first step a training run takes all its
/// memory from here.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Mutex<HashMap<usize, Vec<Buffer>>>,
}

impl BufferPool {
    fn take(&self, len: usize) -> Option<Buffer> {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(&len)?
            .pop()
    }

    fn give(&self, buffer: Buffer) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.entry(buffer.len()).or_default().push(buffer);
    }

    /// Gives all free buffers back to the system (after a growth, say, when lengths change).
    pub fn clear(&self) {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// A temporary buffer with arbitrary content that returns to its device's pool when dropped.
#[derive(Debug)]
pub struct Temp {
    device: Arc<dyn Device>,
    buffer: Option<Buffer>,
}

impl Temp {
    /// A buffer of `len` numbers from the device's pool.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn new(device: &Arc<dyn Device>, len: usize) -> Result<Self> {
        let buffer = match device.pool().take(len) {
            Some(buffer) => buffer,
            None => device.allocate(len)?,
        };
        Ok(Self {
            device: Arc::clone(device),
            buffer: Some(buffer),
        })
    }
}

impl std::ops::Deref for Temp {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        self.buffer.as_ref().expect("present until dropped")
    }
}

impl std::ops::DerefMut for Temp {
    fn deref_mut(&mut self) -> &mut Buffer {
        self.buffer.as_mut().expect("present until dropped")
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.device.pool().give(buffer);
        }
    }
}

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

    /// A buffer of nothing, which belongs to no device.
    pub fn empty() -> Self {
        Self::new((), 0)
    }

    /// Puts other storage of `len` numbers into the buffer, in the memory of the old one's handle if it is
    /// of the same kind.
    pub fn refill<S: Any + Send + Sync>(&mut self, storage: S, len: usize) {
        match self.storage.downcast_mut::<S>() {
            Some(old) => *old = storage,
            None => self.storage = Box::new(storage),
        }
        self.len = len;
    }

    /// The storage, for the device that made it.
    ///
    /// # Panics
    /// If another device made it: a mistake of the program, since a model, its optimizer and its tapes share one device
    /// and no input names another.
    pub fn storage<S: Any>(&self) -> &S {
        self.storage
            .downcast_ref()
            .expect("a buffer is used on the device that made it")
    }

    /// The storage, to write.
    ///
    /// # Panics
    /// As [`Buffer::storage`].
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

    /// Handles of temporary buffers that are free to be used again.
    fn handles(&self) -> &Handles;

    /// New memory for `len` numbers, all zero, for a long time.
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

    /// Makes `buffer` one of `len` numbers with arbitrary content, from memory that is kept for what comes
    /// and goes.
    fn lend(&self, len: usize, buffer: &mut Buffer) -> Result<()> {
        *buffer = self.allocate(len)?;
        Ok(())
    }

    /// Takes back what [`Device::lend`] gave.
    fn reclaim(&self, buffer: &mut Buffer) {
        *buffer = Buffer::empty();
    }

    /// Gives the memory of [`Device::lend`] back to the system, if none of it is in use (after a growth,
    /// say, when lengths change).
    fn clear(&self) {}

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
    fn download(&self, from: &Buffer, to: &mut [f32]) -> Result<()> {
        self.download_part(from, 0, to)
    }

    /// `to.len()` numbers from number `start` on, device to host.
    fn download_part(&self, from: &Buffer, start: usize, to: &mut [f32]) -> Result<()>;

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
    /// scores `[R, N]` (in [`Device::kept_len`]) and stats `[R, groups]`, kept for the backward pass; scores
    /// may be empty, and are then to be had again from [`Device::pattention_scores`].
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

    /// The scores `[R, N]` that [`Device::pattention`] keeps, once more, in [`Device::kept_len`]; `dims` is
    /// `[R, d_in]`.
    fn pattention_scores(
        &self,
        site: &SiteRef<'_>,
        x: &Buffer,
        dims: [usize; 2],
        scores: &mut Buffer,
    ) -> Result<()>;

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

/// Handles of temporary buffers without any memory, kept so that making a temporary needs no allocation.
#[derive(Debug, Default)]
pub struct Handles {
    free: Mutex<Vec<Arc<Buffer>>>,
}

impl Handles {
    fn take(&self) -> Arc<Buffer> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_else(|| Arc::new(Buffer::empty()))
    }

    fn give(&self, handle: Arc<Buffer>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(handle);
    }
}

/// A temporary buffer, whose memory goes back to its device when dropped.
#[derive(Debug)]
pub struct Temp {
    device: Arc<dyn Device>,
    /// With one owner, but in a [`SharedTemp`].
    buffer: Option<Arc<Buffer>>,
}

impl Temp {
    /// A buffer of `len` numbers with arbitrary content.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn new(device: &Arc<dyn Device>, len: usize) -> Result<Self> {
        let mut temp = Self {
            device: Arc::clone(device),
            buffer: Some(device.handles().take()),
        };
        device.lend(len, &mut temp)?;
        Ok(temp)
    }

    /// The same buffer, for several owners.
    pub fn share(self) -> SharedTemp {
        SharedTemp(self)
    }
}

impl std::ops::Deref for Temp {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        // Only `drop` takes it out.
        self.buffer.as_ref().expect("present until dropped")
    }
}

impl std::ops::DerefMut for Temp {
    fn deref_mut(&mut self) -> &mut Buffer {
        // As above; and only `SharedTemp` clones it, which hands out a `Temp` to write when it is alone.
        let buffer = self.buffer.as_mut().expect("present until dropped");
        Arc::get_mut(buffer).expect("a temporary that is not shared has one owner")
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let Some(mut handle) = self.buffer.take() else {
            return;
        };
        if let Some(buffer) = Arc::get_mut(&mut handle) {
            self.device.reclaim(buffer);
            self.device.handles().give(handle);
        }
    }
}

/// A temporary buffer of several owners; cloning shares it.
#[derive(Debug)]
pub struct SharedTemp(Temp);

impl SharedTemp {
    /// The buffer to write, if this is its only owner.
    pub fn unique(&mut self) -> Option<&mut Temp> {
        let only = self.0.buffer.as_mut().and_then(Arc::get_mut).is_some();
        only.then_some(&mut self.0)
    }
}

impl Clone for SharedTemp {
    fn clone(&self) -> Self {
        Self(Temp {
            device: Arc::clone(&self.0.device),
            buffer: self.0.buffer.clone(),
        })
    }
}

impl std::ops::Deref for SharedTemp {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.0
    }
}

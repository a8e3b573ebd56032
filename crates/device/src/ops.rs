//! Operands of operations: inputs, outputs and named sizes.

use crate::Buffer;

/// What a buffer is for. A device may choose the type and the place of its numbers accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trainable parameters, and constant tables.
    Weight,
    /// A moment of the optimizer.
    Moment,
    /// A moment of the optimizer that may be rounded to bfloat16 after every update, for half the memory.
    HalfMoment,
    /// A gradient of parameters.
    Gradient,
    /// A value that flows through the network, or its gradient.
    Activation,
    /// Numbers about rows that must not be rounded as activations may be: statistics of norms, log-denominators, losses,
    /// soft targets, logits that leave the device, factors.
    Statistic,
    /// Scores that a fused operation stores for its backward pass: possibly rounded, never read by other operations.
    Scores,
    /// A sum over many numbers, in the largest precision that the device has.
    Accumulator,
    /// Whole numbers: tokens, classes, row numbers. Written by [`crate::Device::write_indices`].
    Index,
}

/// Whether an operation replaces its output or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The output is replaced.
    Replace,
    /// The result is added to the output.
    Add,
}

impl Write {
    /// `Replace` for the first of several contributions, `Add` for the others.
    pub fn nth(index: usize) -> Self {
        if index == 0 { Self::Replace } else { Self::Add }
    }
}

/// A matrix inside a buffer, to read.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// Number of the first element.
    pub offset: usize,
    /// Numbers between the starts of two stored rows.
    pub row_stride: usize,
    /// Whether the stored matrix is transposed before it is multiplied.
    pub transposed: bool,
}

impl<'a> Operand<'a> {
    /// A matrix of `cols` columns, stored row by row without gaps.
    pub fn rows(buffer: &'a Buffer, cols: usize) -> Self {
        Self {
            buffer,
            offset: 0,
            row_stride: cols,
            transposed: false,
        }
    }

    /// The transpose of a matrix that is stored with `cols` columns, row by row without gaps.
    pub fn transposed(buffer: &'a Buffer, cols: usize) -> Self {
        Self {
            transposed: true,
            ..Self::rows(buffer, cols)
        }
    }
}

/// A matrix inside a buffer, to write row by row.
#[derive(Debug)]
pub struct Output<'a> {
    /// The buffer.
    pub buffer: &'a mut Buffer,
    /// Number of the first element.
    pub offset: usize,
    /// Numbers between the starts of two rows.
    pub row_stride: usize,
}

impl<'a> Output<'a> {
    /// A matrix of `cols` columns without gaps.
    pub fn rows(buffer: &'a mut Buffer, cols: usize) -> Self {
        Self {
            buffer,
            offset: 0,
            row_stride: cols,
        }
    }
}

/// A product `C = scale · A·B` of `A` `[rows, inner]` and `B` `[inner, cols]`.
#[derive(Clone, Copy, Debug)]
pub struct Matmul<'a> {
    /// Left factor.
    pub a: Operand<'a>,
    /// Right factor.
    pub b: Operand<'a>,
    /// Rows of the product.
    pub rows: usize,
    /// Length of the sums.
    pub inner: usize,
    /// Columns of the product.
    pub cols: usize,
    /// Factor of the product.
    pub scale: f32,
}

/// A weight matrix `W` `[rows, cols]` that will be used for many products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedMatrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Whether products are `X·Wᵀ` (keys, linear weights, the table of the head) or `X·W` (values).
    pub transposed: bool,
}

/// Cosines and sines of rotary position embedding, each `[positions, dims/2]`.
#[derive(Debug)]
pub struct RotaryTable {
    /// Rotated channels per head, even.
    pub dims: usize,
    /// Cosines.
    pub cos: Buffer,
    /// Sines.
    pub sin: Buffer,
}

impl RotaryTable {
    /// Cosines and sines of angles `position · base^(−2i/dims)`; the product is rounded to f32 as in the released
    /// code.
    pub fn numbers(positions: usize, dims: usize, base: f64) -> [Vec<f32>; 2] {
        assert!(dims.is_multiple_of(2));
        let half = dims / 2;
        let frequency = |i: usize| (1.0 / base.powf(2.0 * i as f64 / dims as f64)) as f32;
        let angles =
            (0..positions * half).map(|at| f64::from((at / half) as f32 * frequency(at % half)));
        let (sin, cos) = angles.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
        [cos, sin]
    }
}

/// Sizes of a rotary embedding of rows `[B·T, H·C]`; row `r` is at position `first + r % T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotaryDims {
    /// Positions `T` of a sequence.
    pub length: usize,
    /// Heads `H`.
    pub heads: usize,
    /// Channels `C` per head.
    pub channels: usize,
    /// Position of the first row of a sequence.
    pub first: usize,
}

/// Sizes of an attention between tokens. Queries are the last `queries` of `keys` positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionDims {
    /// Sequences `B`.
    pub batch: usize,
    /// Query positions `T_q` per sequence.
    pub queries: usize,
    /// Key positions `T_k >= T_q` in use per sequence.
    pub keys: usize,
    /// Key positions between the starts of two sequences (the capacity of a cache).
    pub key_stride: usize,
    /// Heads `H`.
    pub heads: usize,
    /// Channels `C` per head; `D = H·C`.
    pub channels: usize,
    /// Whether a query sees only positions up to its own.
    pub causal: bool,
}

impl AttentionDims {
    /// Width `D` of rows.
    pub fn width(&self) -> usize {
        self.heads * self.channels
    }

    /// Numbers of the log-denominators `[B, H, T_q]`.
    pub fn stats_len(&self) -> usize {
        self.batch * self.heads * self.queries
    }

    /// Keys that query `i` of a sequence sees.
    pub fn visible(&self, i: usize) -> usize {
        if self.causal {
            self.keys - self.queries + i + 1
        } else {
            self.keys
        }
    }

    /// Factor of the scores, `1/√C`.
    pub fn scale(&self) -> f32 {
        1.0 / (self.channels as f32).sqrt()
    }
}

/// One of the sequences of [`Device::attention_each`](crate::Device::attention_each).
#[derive(Debug)]
pub struct CachedSequence<'a> {
    /// New positions, each with a row of queries, keys and values.
    pub queries: usize,
    /// Positions that the cache already holds.
    pub seen: usize,
    /// Keys and values `[capacity, D]`.
    pub cache: [&'a mut Buffer; 2],
}

impl CachedSequence<'_> {
    /// Sizes of its attention, with heads of `channels`.
    pub fn dims(&self, heads: usize, channels: usize) -> AttentionDims {
        AttentionDims {
            batch: 1,
            queries: self.queries,
            keys: self.seen + self.queries,
            key_stride: self.cache[0].len() / (heads * channels),
            heads,
            channels,
            causal: true,
        }
    }
}

/// Rows `[B·length, width]` to copy to positions `at..at + length` of a cache `[B, capacity, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsToStore {
    /// Sequences `B`.
    pub batch: usize,
    /// Rows per sequence.
    pub length: usize,
    /// Width of a row.
    pub width: usize,
    /// First position.
    pub at: usize,
    /// Positions of the cache per sequence.
    pub capacity: usize,
}

/// What a LayerNorm saved for its backward pass.
#[derive(Clone, Copy, Debug)]
pub enum KeptForNorm<'a> {
    /// The output, of a norm without gain and bias.
    Output(&'a Buffer),
    /// The input.
    Input(&'a Buffer),
}

/// An output head: `logits` `[R, V] = scale · h[R, D] · table[V, D]ᵀ + bias[V]`.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Hidden states `[R, D]`.
    pub hidden: &'a Buffer,
    /// Table `[V, D]`.
    pub table: &'a Buffer,
    /// Bias `[V]`, if there is one.
    pub bias: Option<&'a Buffer>,
    /// Factor of the logits, before the bias is added.
    pub scale: f32,
    /// Width `D`.
    pub width: usize,
}

/// The targets of the rows of a head. `C` and `W` hold the numbers: buffers of a device ([`Targets`]), or slices in
/// memory.
#[derive(Clone, Copy, Debug)]
pub enum RowTargets<C, W> {
    /// A class per row: indices `[R]`.
    Classes(C),
    /// A weight per row and class: `[R, V]`; the loss of a row is `−Σ_v weight_v · log softmax(logits)_v`.
    Soft(W),
}

/// Targets in buffers of a device.
pub type Targets<'a> = RowTargets<&'a Buffer, &'a Buffer>;

/// The gradients that a loss computes.
#[derive(Debug)]
pub struct LossGradient<'a> {
    /// Factor of every row's loss in the objective, for instance `1/R` for a mean.
    pub weight: f32,
    /// Gradient of the hidden states `[R, D]`, replaced.
    pub d_hidden: &'a mut Buffer,
    /// Gradient of the table `[V, D]`, added to; `None` if it is frozen.
    pub d_table: Option<&'a mut Buffer>,
    /// Gradient of the bias `[V]`, added to; `None` if there is none, or it is frozen.
    pub d_bias: Option<&'a mut Buffer>,
}

/// AdamW with decoupled weight decay (Loshchilov & Hutter): the settings that stay the same in every step. Those that
/// change are on the device, so that a recorded step stays valid: three numbers per parameter, see [`Adam::scalars`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
}

/// Where the update of a parameter finds its numbers on the device.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep<'a> {
    /// The settings that stay the same in every step.
    pub adam: Adam,
    /// A buffer of [`Adam::SCALARS`] numbers for each parameter.
    pub scalars: &'a Buffer,
    /// Index of the parameter in `scalars`.
    pub slot: usize,
    /// The factors of gradients, see [`crate::Device::clip_factors`].
    pub factors: &'a Buffer,
    /// Index of the parameter's factor.
    pub group: usize,
}

impl Adam {
    /// Numbers per parameter that [`crate::Device::adamw`] reads: learning rate, inverse root, and the share that
    /// weight decay keeps.
    pub const SCALARS: usize = 3;

    /// The scalars of update `step` (1 is the first) at a learning rate: the rate with the first moment's bias
    /// correction, the factor `1/√(1 − β₂ᵗ)` of the second moment's root, and the share `1 − lr · decay` of the
    /// parameter that weight decay leaves.
    pub fn scalars(&self, lr: f32, weight_decay: f32, step: u64) -> [f32; Self::SCALARS] {
        let step = step.min(i32::MAX as u64) as i32;
        let correction1 = 1.0 - f64::from(self.beta1).powi(step);
        let correction2 = 1.0 - f64::from(self.beta2).powi(step);
        [
            (f64::from(lr) / correction1) as f32,
            (1.0 / correction2.sqrt()) as f32,
            1.0 - lr * weight_decay,
        ]
    }
}

/// The factors of [`crate::Device::clip_factors`], for a device whose numbers are the host's, and for sums that several
/// processes have added up.
pub fn clip_factors(sums_of_squares: &[f64], limit: f64, factors: &mut [f32]) {
    let is_finite = sums_of_squares.iter().all(|sum| sum.is_finite());
    for (factor, sum) in factors.iter_mut().zip(sums_of_squares) {
        let norm = sum.sqrt();
        *factor = match is_finite {
            false => f32::NAN,
            true if limit > 0.0 && norm > limit => (limit / (norm + 1e-6)) as f32,
            true => 1.0,
        };
    }
}

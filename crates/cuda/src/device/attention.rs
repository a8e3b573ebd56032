//! Attention between tokens: in bfloat16 by kernels on tensor cores ([`flash`]), in f32 and for other sizes of heads by kernels
//! with a warp per query or key.

use super::launch::{args, named, size};
use super::storage::{floats, number, of_type};
use super::{Cuda, flash};
use crate::gpu::{Address, Number};
use tokenformer_device::{AttentionDims, Buffer, CachedSequence, Result, RowsToStore};

/// Queries or keys that a block works for.
const WARPS: usize = 4;
/// Bytes of shared memory that every GPU gives a block.
const SHARED: usize = 48 << 10;

/// Bytes of shared memory of a block, whose warps have `vectors` of the head's size and `others` numbers.
fn shared(vectors: usize, channels: usize, others: usize) -> usize {
    WARPS * (vectors * channels + others) * size_of::<f32>()
}

impl Cuda {
    /// All blocks along the first axis, which alone is long enough for every batch.
    fn grid(dims: &AttentionDims) -> [u32; 3] {
        let blocks = dims.batch * dims.heads * dims.queries.div_ceil(WARPS);
        [size(blocks), 1, 1]
    }

    pub(super) fn attend(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &mut Buffer,
        log_sums: Option<&mut Buffer>,
    ) -> Result<()> {
        let number = number(o);
        assert_eq!(o.len(), dims.batch * dims.queries * dims.width());
        assert!(qkv[1].len() >= ((dims.batch - 1) * dims.key_stride + dims.keys) * dims.width());
        let (qkv, o) = (qkv.map(|b| of_type(b, number)), of_type(o, number));
        // SAFETY: the buffers have these sizes.
        unsafe { self.attend_at(dims, number, qkv, o, log_sums.map(|b| floats(b))) }
    }

    pub(super) fn attend_each(
        &self,
        heads: usize,
        qkv: [&Buffer; 3],
        sequences: &mut [CachedSequence<'_>],
        o: &mut Buffer,
    ) -> Result<()> {
        let number = number(o);
        let rows: usize = sequences.iter().map(|s| s.queries).sum();
        let (width, mut row) = (o.len() / rows.max(1), 0);
        assert!(qkv.iter().all(|b| b.len() == o.len()) && o.len() == rows * width);
        let (qkv, o) = (qkv.map(|b| of_type(b, number)), of_type(o, number));
        for sequence in sequences {
            let dims = sequence.dims(heads, width / heads);
            assert!(sequence.cache.iter().all(|b| b.len() >= dims.keys * width));
            let at = row * width * number.bytes();
            let [q, k, v] = qkv.map(|address| address.plus(at));
            let cache = sequence.cache.each_ref().map(|b| of_type(b, number));
            let stored = RowsToStore {
                batch: 1,
                length: sequence.queries,
                width,
                at: sequence.seen,
                capacity: dims.key_stride,
            };
            // SAFETY: the rows of the sequence are within the buffers, as asserted.
            unsafe {
                self.store_at(stored, number, k, cache[0])?;
                self.store_at(stored, number, v, cache[1])?;
                self.attend_at(dims, number, [q, cache[0], cache[1]], o.plus(at), None)?;
            }
            row += sequence.queries;
        }
        Ok(())
    }

    /// # Safety
    /// Queries and output must be `[B·T_q, D]`, keys and values `[B·key_stride, D]`, and `log_sums` as [`Cuda::attend`] has them.
    unsafe fn attend_at(
        &self,
        dims: AttentionDims,
        number: Number,
        [q, k, v]: [Address; 3],
        out: Address,
        log_sums: Option<Address>,
    ) -> Result<()> {
        if number == Number::Bf16 && flash::supports(&dims) {
            // SAFETY: the caller guarantees it.
            let done = unsafe { flash::forward(&*self.gpu, &dims, [q, k, v], out, log_sums) };
            return self.done("attention", done);
        }
        let shared = shared(2, dims.channels, 32);
        if shared > SHARED {
            return Err(self.head_is_too_large(dims));
        }
        let [queries, keys, stride] = [dims.queries, dims.keys, dims.key_stride].map(size);
        let [heads, channels] = [dims.heads, dims.channels].map(size);
        let (causal, scale) = (dims.causal, dims.scale());
        let args = args![
            q, k, v, out, log_sums, queries, keys, stride, heads, channels, causal, scale
        ];
        let kernel = named!("attention_rows", number);
        let grid = Self::grid(&dims);
        // SAFETY: the caller guarantees it.
        unsafe { self.launch(kernel, grid, 32 * WARPS as u32, shared, args) }
    }

    fn head_is_too_large(&self, dims: AttentionDims) -> tokenformer_device::DeviceError {
        use tokenformer_device::Device;
        self.unsupported(&format!("attention of heads of {} channels", dims.channels))
    }

    pub(super) fn attend_backward(
        &self,
        dims: AttentionDims,
        qkv: [&Buffer; 3],
        o: &Buffer,
        log_sums: &Buffer,
        d_o: &Buffer,
        d_qkv: [&mut Buffer; 3],
    ) -> Result<()> {
        let number = number(o);
        assert!(dims.queries == dims.keys && dims.keys == dims.key_stride);
        let all = qkv.into_iter().chain([o, d_o]);
        assert!(
            all.chain(d_qkv.iter().map(|b| &**b))
                .all(|b| b.len() == o.len())
        );
        assert_eq!(log_sums.len(), dims.stats_len());
        let block = self.scratch(dims.stats_len() * size_of::<f32>())?;
        let [q, k, v] = qkv.map(|b| of_type(b, number));
        let [dq, dk, dv] = d_qkv.map(|b| of_type(b, number));
        let [o, d_o] = [o, d_o].map(|b| of_type(b, number));
        let (sums, inner) = (floats(log_sums), block.at());
        if number == Number::Bf16 && flash::supports(&dims) {
            let to = [dq, dk, dv];
            // SAFETY: the buffers have these sizes.
            let done =
                unsafe { flash::backward(&*self.gpu, &dims, [q, k, v], o, sums, d_o, to, inner) };
            return self.done("the backward pass of attention", done);
        }
        let of_key = shared(4, dims.channels, 64);
        if of_key > SHARED {
            return Err(self.head_is_too_large(dims));
        }
        let [length, heads, channels] = [dims.queries, dims.heads, dims.channels].map(size);
        let (causal, scale) = (dims.causal, dims.scale());
        let (grid, threads) = (Self::grid(&dims), 32 * WARPS as u32);
        let of_query = shared(3, dims.channels, 32);
        // SAFETY: all buffers have a row of the width per position, and the statistics one number per head and query.
        unsafe {
            let kernel = named!("attention_rows_inner", number);
            let args = args![o, d_o, inner, length, heads, channels];
            self.launch(kernel, grid, threads, 0, args)?;
            let kernel = named!("attention_rows_query_gradient", number);
            let args = args![
                q, k, v, d_o, sums, inner, dq, length, heads, channels, causal, scale
            ];
            self.launch(kernel, grid, threads, of_query, args)?;
            let kernel = named!("attention_rows_key_gradient", number);
            let args = args![
                q, k, v, d_o, sums, inner, dk, dv, length, heads, channels, causal, scale
            ];
            self.launch(kernel, grid, threads, of_key, args)
        }
    }
}

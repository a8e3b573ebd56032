//! Attention between tokens: in bfloat16 by kernels on tensor cores ([`flash`]), in f32 and for other sizes of heads by kernels
//! with a warp per query or key.

use super::launch::{args, named, size};
use super::storage::{floats, number, of_type};
use super::{Cuda, flash};
use crate::gpu::Number;
use tokenformer_device::{AttentionDims, Buffer, Result};

/// Queries or keys that a block works for.
const WARPS: usize = 4;
/// Bytes of shared memory that every GPU gives a block.
const SHARED: usize = 48 << 10;

/// Bytes of shared memory of a block, whose warps have `vectors` of the head's size and `others` numbers.
fn shared(vectors: usize, channels: usize, others: usize) -> usize {
    WARPS * (vectors * channels + others) * size_of::<f32>()
}

impl Cuda {
    fn grid(dims: &AttentionDims, positions: usize) -> [u32; 3] {
        [positions.div_ceil(WARPS), dims.heads, dims.batch].map(size)
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
        if number == Number::Bf16 && flash::supports(&dims) {
            let [q, k, v] = qkv.map(|b| of_type(b, number));
            let (o, log_sums) = (of_type(o, number), log_sums.map(|b| floats(b)));
            // SAFETY: the buffers have these sizes.
            let done = unsafe { flash::forward(&*self.gpu, &dims, [q, k, v], o, log_sums) };
            return self.done("attention", done);
        }
        let shared = shared(2, dims.channels, 32);
        if shared > SHARED {
            return Err(self.head_is_too_large(dims));
        }
        let [q, k, v] = qkv.map(|b| of_type(b, number));
        let log_sums = log_sums.map(|b| floats(b));
        let [queries, keys, stride] = [dims.queries, dims.keys, dims.key_stride].map(size);
        let [heads, channels] = [dims.heads, dims.channels].map(size);
        let out = of_type(o, number);
        let (causal, scale) = (dims.causal, dims.scale());
        let args = args![
            q, k, v, out, log_sums, queries, keys, stride, heads, channels, causal, scale
        ];
        let kernel = named!("attention_rows", number);
        let grid = Self::grid(&dims, dims.queries);
        // SAFETY: the buffers have these sizes.
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
        let (grid, threads) = (Self::grid(&dims, dims.queries), 32 * WARPS as u32);
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

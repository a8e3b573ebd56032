//! Multi-head softmax attention between the tokens of each sequence.

use super::{Backward, Recorder};
use crate::tensor::Tensor;
use tokenformer_device::{AttentionDims, CachedSequence, Result, RowsToStore, Temp};

/// `softmax(Q·Kᵀ/√C)·V` per head.
pub(crate) struct Attention {
    qkv: [Tensor; 3],
    o: Tensor,
    log_sums: Temp,
    dims: AttentionDims,
}

/// Operations of `Q·Kᵀ` and of the product with `V`, without credit for the mask.
fn product_flops(dims: AttentionDims) -> usize {
    4 * dims.batch * dims.queries * dims.keys * dims.heads * dims.channels
}

impl Attention {
    /// `qkv` `[B, T, H·C]` each.
    pub fn forward(
        rec: &mut Recorder,
        qkv: [Tensor; 3],
        heads: usize,
        causal: bool,
    ) -> Result<(Tensor, Option<Self>)> {
        let [batch, length, width] = qkv[0].shape();
        let dims = AttentionDims {
            batch,
            queries: length,
            keys: length,
            key_stride: length,
            heads,
            channels: width / heads,
            causal,
        };
        let mut o = rec.temp(batch * length * width)?;
        let mut log_sums = match rec.records() {
            true => Some(rec.statistics(dims.stats_len())?),
            false => None,
        };
        let buffers = [&*qkv[0].data, &*qkv[1].data, &*qkv[2].data];
        rec.device
            .attention(dims, buffers, &mut o, log_sums.as_deref_mut())?;
        rec.count(product_flops(dims));
        let o = rec.tensor(o.share(), [batch, length, width]);
        let note = log_sums.map(|log_sums| Self {
            qkv,
            o: o.clone(),
            log_sums,
            dims,
        });
        Ok((o, note))
    }

    pub fn backward(self, back: &mut Backward<'_>) -> Result<()> {
        let Some(d_o) = self.o.var.and_then(|out| back.take(out)) else {
            return Ok(());
        };
        let len = d_o.len();
        let mut gradients = [back.temp(len)?, back.temp(len)?, back.temp(len)?];
        let [dq, dk, dv] = &mut gradients;
        let buffers = [&*self.qkv[0].data, &*self.qkv[1].data, &*self.qkv[2].data];
        let to = [&mut **dq, &mut **dk, &mut **dv];
        back.device().attention_backward(
            self.dims,
            buffers,
            &self.o.data,
            &self.log_sums,
            &d_o,
            to,
        )?;
        back.count(2 * product_flops(self.dims));
        for (input, gradient) in self.qkv.iter().zip(gradients) {
            if let Some(var) = input.var {
                back.contribute(var, gradient.share())?;
            }
        }
        Ok(())
    }
}

/// Attention of new queries `[B, T, H·C]` to a cache of keys and values `[B, capacity, H·C]`, into which the new ones
/// are stored first, at position `seen`. A cache has no gradient.
pub(crate) fn attention_cached(
    rec: &mut Recorder,
    [q, k, v]: [Tensor; 3],
    heads: usize,
    seen: usize,
    capacity: usize,
    cache: &mut [Temp; 2],
) -> Result<Tensor> {
    let [batch, length, width] = q.shape();
    let rows = RowsToStore {
        batch,
        length,
        width,
        at: seen,
        capacity,
    };
    let dims = AttentionDims {
        batch,
        queries: length,
        keys: seen + length,
        key_stride: capacity,
        heads,
        channels: width / heads,
        causal: true,
    };
    let [keys, values] = cache;
    rec.device.store_rows(&k.data, rows, keys)?;
    rec.device.store_rows(&v.data, rows, values)?;
    let mut o = rec.temp(batch * length * width)?;
    rec.device
        .attention(dims, [&q.data, keys, values], &mut o, None)?;
    Ok(rec.tensor(o.share(), [batch, length, width]))
}

/// The new rows `[1, R, D]` of several sequences attend to the caches of their sequences.
pub(crate) fn attention_each(
    rec: &mut Recorder,
    [q, k, v]: [Tensor; 3],
    heads: usize,
    sequences: &mut [CachedSequence<'_>],
) -> Result<Tensor> {
    let shape = q.shape();
    let mut o = rec.temp(shape.iter().product())?;
    rec.device
        .attention_each(heads, [&q.data, &k.data, &v.data], sequences, &mut o)?;
    Ok(rec.tensor(o.share(), shape))
}

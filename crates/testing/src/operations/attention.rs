//! Attention between tokens.

use super::{Found, Suite, buffer, read, read_all};
use crate::Random;
use std::sync::Arc;
use tokenformer_device::{AttentionDims, CachedSequence, Device, Role, Temp};

/// Queries, keys, values and the gradient of the output.
fn numbers(dims: AttentionDims, seed: u64) -> [Vec<f32>; 4] {
    let mut random = Random::new(seed);
    let q = dims.batch * dims.queries * dims.width();
    let kv = dims.batch * dims.key_stride * dims.width();
    [q, kv, kv, q].map(|len| random.normals(len, 1.0))
}

/// Output and gradients of self-attention.
fn self_attention(device: &Arc<dyn Device>, dims: AttentionDims, of: &[Vec<f32>; 4]) -> Found {
    let [q, k, v, d_o] = of.each_ref().map(|numbers| buffer(&**device, numbers));
    let (q, k, v, d_o) = (q?, k?, v?, d_o?);
    let temp = || Temp::new(device, q.len(), Role::Activation);
    let (mut o, mut dq, mut dk, mut dv) = (temp()?, temp()?, temp()?, temp()?);
    let mut log_sums = Temp::new(device, dims.stats_len(), Role::Statistic)?;
    let qkv = [&q, &k, &v];
    device.attention(dims, qkv, &mut o, Some(&mut log_sums))?;
    let to = [&mut *dq, &mut *dk, &mut *dv];
    device.attention_backward(dims, qkv, &o, &log_sums, &d_o, to)?;
    read_all(&**device, [&*o, &log_sums, &dq, &dk, &dv])
}

impl Suite {
    /// New queries on a cache of keys and values.
    pub fn attention_on_a_cache(&self, dims: AttentionDims, seed: u64) {
        let [q, k, v, _] = numbers(dims, seed);
        self.agree(&format!("{dims:?}"), 2e-5, |device| {
            let (q, k, v) = (
                buffer(&**device, &q)?,
                buffer(&**device, &k)?,
                buffer(&**device, &v)?,
            );
            let mut o = Temp::new(device, q.len(), Role::Activation)?;
            device.attention(dims, [&q, &k, &v], &mut o, None)?;
            Ok(vec![read(&**device, &o)?])
        });
    }

    /// New rows of several sequences, each with a cache: new and seen positions of each. What the caches then hold is
    /// compared, too.
    pub fn attention_of_several(
        &self,
        sequences: &[(usize, usize)],
        heads: usize,
        channels: usize,
        seed: u64,
    ) {
        const ROOM: usize = 3;
        let width = heads * channels;
        let mut random = Random::new(seed);
        let rows: usize = sequences.iter().map(|(queries, _)| queries).sum();
        let qkv = [(); 3].map(|()| random.normals(rows * width, 1.0));
        let caches: Vec<_> = (sequences.iter())
            .map(|(queries, seen)| (queries + seen + ROOM) * width)
            .map(|len| [(); 2].map(|()| random.normals(len, 1.0)))
            .collect();
        self.agree(&format!("{sequences:?}"), 2e-5, |device| {
            let [q, k, v] = qkv.each_ref().map(|numbers| buffer(&**device, numbers));
            let (q, k, v) = (q?, k?, v?);
            let mut kept = Vec::new();
            for [keys, values] in &caches {
                kept.push([buffer(&**device, keys)?, buffer(&**device, values)?]);
            }
            let of_each = kept.iter_mut().zip(sequences);
            let mut sequences: Vec<_> = of_each
                .map(|(cache, &(queries, seen))| CachedSequence {
                    queries,
                    seen,
                    cache: cache.each_mut(),
                })
                .collect();
            let mut o = Temp::new(device, rows * width, Role::Activation)?;
            device.attention_each(heads, [&q, &k, &v], &mut sequences, &mut o)?;
            let mut found = vec![read(&**device, &o)?];
            for cache in kept.iter().flatten() {
                found.push(read(&**device, cache)?);
            }
            Ok(found)
        });
    }

    /// Self-attention (`key_stride = keys = queries`) and its gradients.
    pub fn self_attention(&self, dims: AttentionDims, seed: u64) {
        let numbers = numbers(dims, seed);
        let [got, want] = self.both(|device| self_attention(device, dims, &numbers));
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let what = format!("result {i} of {dims:?}");
            // With one visible position the probabilities are 1 and the gradients of queries and keys are 0.
            if dims.keys == 1 && [2, 3].contains(&i) {
                let bar = 1e-4f32.max(self.least_bar as f32 * 4.0);
                assert!(got.iter().all(|x| x.abs() < bar), "{what}");
            } else {
                super::assert_near(&what, got, want, 4e-5f64.max(self.least_bar));
            }
        }
    }
}

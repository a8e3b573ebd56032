//! Keys and values of the positions seen so far, for decoding.

use crate::block::AttentionSettings;
use crate::error::Result;
use crate::graph::Graph;
use crate::tensor::Tensor;
use std::sync::Arc;
use tokenformer_device::{self as device, CachedSequence, Device, Role, RotaryTable, Temp};

/// Keys and values of the positions seen so far, `[B, capacity, D]` each, for every block.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<[Temp; 2]>,
    batch: usize,
    capacity: usize,
    len: usize,
}

/// The keys and values of one block.
pub(crate) struct LayerCache<'a> {
    pub kv: &'a mut [Temp; 2],
    pub capacity: usize,
    /// Positions seen.
    pub seen: usize,
}

/// What the new rows of a block look back at.
pub(crate) trait Past {
    /// Takes in new keys and values `[B, T, D]`, and attends to all of them with the new queries: `[B, T, D]`.
    fn attend(
        &mut self,
        g: &mut Graph<'_>,
        how: &AttentionSettings,
        qkv: [Tensor; 3],
    ) -> device::Result<Tensor>;
}

impl Past for LayerCache<'_> {
    fn attend(
        &mut self,
        g: &mut Graph<'_>,
        how: &AttentionSettings,
        qkv: [Tensor; 3],
    ) -> device::Result<Tensor> {
        let qkv = how.apply_rotary(g, qkv, self.seen)?;
        g.attention_cached(qkv, how.heads, self.seen, self.capacity, self.kv)
    }
}

/// The rows of sequences of different lengths, each with a separate cache.
pub(crate) struct EachCache<'a> {
    /// A cache of one sequence, and how many rows are the sequence's.
    pub sequences: Vec<(LayerCache<'a>, usize)>,
    /// The rotary table at the position of each row.
    pub rotary: Option<&'a Arc<RotaryTable>>,
}

impl Past for EachCache<'_> {
    fn attend(
        &mut self,
        g: &mut Graph<'_>,
        how: &AttentionSettings,
        qkv: [Tensor; 3],
    ) -> device::Result<Tensor> {
        if let [(cache, _)] = &mut self.sequences[..] {
            return cache.attend(g, how, qkv);
        }
        let qkv = how.apply_rotary_table(g, qkv, self.rotary, 0)?;
        let mut sequences: Vec<_> = (self.sequences.iter_mut())
            .map(|(cache, queries)| CachedSequence {
                queries: *queries,
                seen: cache.seen,
                cache: cache.kv.each_mut().map(|kv| &mut **kv),
            })
            .collect();
        g.attention_each(qkv, how.heads, &mut sequences)
    }
}

impl Cache {
    pub(crate) fn new(
        device: &Arc<dyn Device>,
        layers: usize,
        batch: usize,
        capacity: usize,
        width: usize,
    ) -> Result<Self> {
        let len = batch * capacity * width;
        let temp = || Temp::new(device, len, Role::Activation);
        let layers = (0..layers)
            .map(|_| Ok([temp()?, temp()?]))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            layers,
            batch,
            capacity,
            len: 0,
        })
    }

    pub(crate) fn layer(&mut self, block: usize) -> LayerCache<'_> {
        LayerCache {
            kv: &mut self.layers[block],
            capacity: self.capacity,
            seen: self.len,
        }
    }

    pub(crate) fn advance(&mut self, positions: usize) {
        self.len += positions;
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Positions seen.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Most positions that it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets everything after the first `len` positions.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// A cache of `sequences.len()` sequences with capacity for `capacity` positions; sequence `i` starts with the keys
    /// and values of sequence `sequences[i]` of this one. So the common beginning of several texts is computed only
    /// once.
    ///
    /// # Errors
    /// If memory is short.
    ///
    /// # Panics
    /// If a sequence is not in this cache, nothing has been seen, or `capacity` is below what was seen.
    pub fn fork(
        &self,
        device: &Arc<dyn Device>,
        sequences: &[usize],
        capacity: usize,
    ) -> Result<Self> {
        assert!(sequences.iter().all(|&s| s < self.batch));
        self.copy_of(device, sequences, self.len, capacity)
    }

    /// A cache of the first sequence with room for `capacity` positions, which has seen its first `len` positions.
    /// It lets texts with a common prefix share the computation of the prefix.
    ///
    /// # Errors
    /// If memory is short.
    ///
    /// # Panics
    /// If `len` is 0, or above what was seen or `capacity`.
    pub fn prefix(&self, device: &Arc<dyn Device>, len: usize, capacity: usize) -> Result<Self> {
        assert!(len <= self.len, "no more than what was seen");
        self.copy_of(device, &[0], len, capacity)
    }

    fn copy_of(
        &self,
        device: &Arc<dyn Device>,
        sequences: &[usize],
        len: usize,
        capacity: usize,
    ) -> Result<Self> {
        assert!((1..=capacity).contains(&len));
        // Positions beyond those seen hold copies of the last until they are written.
        let rows: Vec<u32> = (sequences.iter())
            .flat_map(|s| (0..capacity).map(move |t| s * self.capacity + t.min(len - 1)))
            .map(|row| row as u32)
            .collect();
        let rows = Temp::indices(device, &rows)?;
        let copy = |from: &Temp| -> Result<Temp> {
            let width = from.len() / (self.batch * self.capacity);
            let mut to = Temp::new(device, rows.len() * width, Role::Activation)?;
            device.gather_rows(from, &rows, width, &mut to)?;
            Ok(to)
        };
        let layers = (self.layers.iter())
            .map(|[keys, values]| Ok([copy(keys)?, copy(values)?]))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            layers,
            batch: sequences.len(),
            capacity,
            len,
        })
    }
}

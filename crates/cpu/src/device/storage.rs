//! How the numbers of a buffer lie in memory.

use crate::arena::{Region, Zeroed};
use crate::gemm::{Element, Kept, PackedWeights};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokenformer_device::Buffer;

/// Where the floats of a buffer are. Indices and rounded scores lie in the memory of floats, too.
pub(super) enum Floats {
    /// In memory of their own.
    Own(Own),
    /// In the arena of temporaries.
    Temporary(Region),
    /// Nowhere: the memory has been given back.
    Released,
}

/// Long-lived memory, counted while it lives.
pub(super) struct Own {
    memory: Backing,
    count: Arc<AtomicUsize>,
}

/// Memory from the system by the page, or a list that was handed over.
pub(super) enum Backing {
    Zeroed(Zeroed),
    List(Vec<f32>),
}

/// Sums in f64.
pub(super) struct Accumulator(pub Vec<f64>);

/// A weight matrix that is packed for inference.
pub(super) struct Packed {
    pub weights: PackedWeights,
    /// Whether the matrix was packed transposed.
    pub transposed: bool,
}

impl Own {
    pub(super) fn new(memory: Backing, count: &Arc<AtomicUsize>) -> Self {
        let own = Self {
            memory,
            count: Arc::clone(count),
        };
        own.count.fetch_add(own.floats().len(), Ordering::Relaxed);
        own
    }

    fn floats(&self) -> &[f32] {
        match &self.memory {
            Backing::Zeroed(zeroed) => zeroed,
            Backing::List(list) => list,
        }
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Backing::Zeroed(zeroed) => zeroed,
            Backing::List(list) => list,
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.count.fetch_sub(self.floats().len(), Ordering::Relaxed);
    }
}

pub(super) fn floats(buffer: &Buffer) -> &[f32] {
    match buffer.storage::<Floats>() {
        Floats::Own(own) => own.floats(),
        Floats::Temporary(region) => region,
        Floats::Released => &[],
    }
}

pub(super) fn floats_mut(buffer: &mut Buffer) -> &mut [f32] {
    match buffer.storage_mut::<Floats>() {
        Floats::Own(own) => own.floats_mut(),
        Floats::Temporary(region) => region,
        Floats::Released => &mut [],
    }
}

/// The indices of a buffer.
pub(super) fn indices(buffer: &Buffer) -> &[u32] {
    let floats = floats(buffer);
    // SAFETY: u32 has the size and alignment of f32, and every bit pattern is one.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
}

pub(super) fn indices_mut(buffer: &mut Buffer) -> &mut [u32] {
    let floats = floats_mut(buffer);
    // SAFETY: as above, and access is exclusive.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}

/// The `len` scores that kernels with factors of type `P` keep in a buffer.
pub(super) fn scores_mut<P: Element>(buffer: &mut Buffer, len: usize) -> &mut [P::Kept] {
    &mut P::Kept::in_floats(floats_mut(buffer))[..len]
}

pub(super) fn packed(buffer: &Buffer) -> Option<&PackedWeights> {
    Some(&buffer.storage_if::<Packed>()?.weights)
}

impl Packed {
    /// `to` `[rows, cols]` = the weights, widened.
    pub(super) fn widen(&self, to: &mut [f32]) {
        let [k, n] = self.weights.shape();
        let mut column = vec![0.0; k];
        for i in 0..n {
            self.weights.column(i, &mut column);
            match self.transposed {
                true => to[i * k..(i + 1) * k].copy_from_slice(&column),
                false => {
                    (to[i..].iter_mut().step_by(n).zip(&column)).for_each(|(t, c)| *t = *c);
                }
            }
        }
    }
}

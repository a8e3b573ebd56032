//! The storage of a buffer: owned memory or memory of the arena, with numbers in a form that the buffer's role
//! determines.

use crate::arena::{Region, Zeroed};
use crate::gemm::{Bf16, Element, Kept, PackedWeights};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokenformer_device::{Buffer, PackedMatrix, Role};

/// The storage of a buffer whose weights are not packed.
pub(super) struct Numbers {
    memory: Memory,
    form: Form,
}

/// The type of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    F32,
    Bf16,
    /// The type in which products of the device's precision store scores.
    Scores,
    U32,
    F64,
}

impl Form {
    /// The form of buffers of a role.
    pub(super) fn of(role: Role) -> Self {
        match role {
            Role::Weight | Role::Moment | Role::Gradient | Role::Activation | Role::Statistic => {
                Self::F32
            }
            Role::HalfMoment => Self::Bf16,
            Role::Scores => Self::Scores,
            Role::Accumulator => Self::F64,
            Role::Index => Self::U32,
        }
    }

    /// Number of floats whose memory holds `len` numbers; scores are those of products with factors of type `P`.
    pub(super) fn floats<P: Element>(self, len: usize) -> usize {
        match self {
            Self::F32 | Self::U32 => len,
            Self::Bf16 => len.div_ceil(Bf16::PER_FLOAT),
            Self::Scores => len.div_ceil(P::Kept::PER_FLOAT),
            Self::F64 => len.saturating_mul(size_of::<f64>() / size_of::<f32>()),
        }
    }
}

enum Memory {
    Own(Own),
    /// In the arena of temporaries.
    Temporary(Region),
    /// The buffer was released and has no memory.
    Released,
}

/// Long-lived memory, which is counted in floats while it lives.
struct Own {
    memory: Backing,
    count: Arc<AtomicUsize>,
}

/// Memory from the system by the page, or a vector that the caller passed.
pub(super) enum Backing {
    Zeroed(Zeroed),
    List(Vec<f32>),
}

impl Own {
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

impl Numbers {
    /// Storage in long-lived memory, whose floats are added to `count` while it lives.
    pub(super) fn own(memory: Backing, form: Form, count: &Arc<AtomicUsize>) -> Self {
        let own = Own {
            memory,
            count: Arc::clone(count),
        };
        own.count.fetch_add(own.floats().len(), Ordering::Relaxed);
        let memory = Memory::Own(own);
        Self { memory, form }
    }

    pub(super) fn temporary(region: Region, form: Form) -> Self {
        let memory = Memory::Temporary(region);
        Self { memory, form }
    }

    pub(super) fn released() -> Self {
        Self {
            memory: Memory::Released,
            form: Form::F32,
        }
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// The memory as floats, in any form.
    pub(super) fn memory(&self) -> &[f32] {
        match &self.memory {
            Memory::Own(own) => own.floats(),
            Memory::Temporary(region) => region,
            Memory::Released => &[],
        }
    }

    /// As [`Numbers::memory`], mutable.
    pub(super) fn memory_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Memory::Own(own) => own.floats_mut(),
            Memory::Temporary(region) => region,
            Memory::Released => &mut [],
        }
    }
}

/// The memory of a buffer that must have this form.
fn memory_of(buffer: &Buffer, form: Form) -> &[f32] {
    let numbers = buffer.storage::<Numbers>();
    assert_eq!(numbers.form, form, "a buffer is used as its role says");
    numbers.memory()
}

fn memory_of_mut(buffer: &mut Buffer, form: Form) -> &mut [f32] {
    let numbers = buffer.storage_mut::<Numbers>();
    assert_eq!(numbers.form, form, "a buffer is used as its role says");
    numbers.memory_mut()
}

/// The f32 numbers of a buffer.
pub(super) fn floats(buffer: &Buffer) -> &[f32] {
    memory_of(buffer, Form::F32)
}

pub(super) fn floats_mut(buffer: &mut Buffer) -> &mut [f32] {
    memory_of_mut(buffer, Form::F32)
}

/// The bfloat16 numbers of a buffer, if it holds such.
pub(super) fn halves(buffer: &Buffer) -> Option<&[Bf16]> {
    let numbers = buffer.storage_if::<Numbers>()?;
    let is_half = numbers.form == Form::Bf16;
    is_half.then(|| &Bf16::of_floats(numbers.memory())[..buffer.len()])
}

pub(super) fn halves_mut(buffer: &mut Buffer) -> &mut [Bf16] {
    let len = buffer.len();
    &mut Bf16::in_floats(memory_of_mut(buffer, Form::Bf16))[..len]
}

/// The indices of a buffer.
pub(super) fn indices(buffer: &Buffer) -> &[u32] {
    let memory = memory_of(buffer, Form::U32);
    // SAFETY: u32 has the size and alignment of f32, and every bit pattern is valid.
    unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), memory.len()) }
}

pub(super) fn indices_mut(buffer: &mut Buffer) -> &mut [u32] {
    let memory = memory_of_mut(buffer, Form::U32);
    // SAFETY: as above, and access is exclusive.
    unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), memory.len()) }
}

/// The sums of an accumulator.
pub(super) fn sums(buffer: &Buffer) -> &[f64] {
    let (len, first) = (buffer.len(), memory_of(buffer, Form::F64).as_ptr());
    let first = first.cast::<f64>();
    assert!(first.is_aligned());
    // SAFETY: the memory holds `len` aligned f64 ([`Form::floats`]), and every bit pattern is valid.
    unsafe { std::slice::from_raw_parts(first, len) }
}

pub(super) fn sums_mut(buffer: &mut Buffer) -> &mut [f64] {
    let len = buffer.len();
    let first = memory_of_mut(buffer, Form::F64).as_mut_ptr().cast::<f64>();
    assert!(first.is_aligned());
    // SAFETY: as above, and access is exclusive.
    unsafe { std::slice::from_raw_parts_mut(first, len) }
}

/// The scores that kernels with factors of type `P` store in a buffer.
pub(super) fn scores_mut<P: Element>(buffer: &mut Buffer) -> &mut [P::Kept] {
    let len = buffer.len();
    &mut P::Kept::in_floats(memory_of_mut(buffer, Form::Scores))[..len]
}

/// The storage of a weight matrix that is packed for inference.
pub(super) struct Packed {
    pub weights: PackedWeights,
    pub matrix: PackedMatrix,
}

/// The matrix of a buffer if it is packed.
pub(super) fn packed(buffer: &Buffer) -> Option<&Packed> {
    buffer.storage_if()
}

impl Packed {
    /// Copies numbers `start..start + to.len()` of the matrix, row by row and widened; `column` `[K]` is scratch
    /// memory.
    pub(super) fn widen(&self, start: usize, to: &mut [f32], column: &mut [f32]) {
        let [k, n] = self.weights.shape();
        let end = start + to.len();
        for i in 0..n {
            // Where column `i` of the right factor is in the matrix: a row, or every `n`-th number.
            let (first, step) = match self.matrix.transposed {
                true => (i * k, 1),
                false => (i, n),
            };
            let position = |number: usize| number.saturating_sub(first).div_ceil(step).min(k);
            let wanted = position(start)..position(end);
            if wanted.is_empty() {
                continue;
            }
            self.weights.column(i, column);
            for j in wanted {
                to[first + j * step - start] = column[j];
            }
        }
    }
}

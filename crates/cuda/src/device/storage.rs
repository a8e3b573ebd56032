//! The storage of a buffer: memory of the GPU, with numbers in a form that the buffer's role determines.

use super::pool::Block;
use crate::gpu::{Address, Gpu, Number};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokenformer_device::{Buffer, Precision, Role};

/// The type of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Number(Number),
    U32,
    F64,
}

impl Form {
    pub const F32: Self = Self::Number(Number::F32);
    pub const BF16: Self = Self::Number(Number::Bf16);

    /// The form of buffers of a role: in [`Precision::Bf16`], what flows through the network is bfloat16.
    pub fn of(role: Role, precision: Precision) -> Self {
        match role {
            Role::Weight | Role::Moment | Role::Gradient | Role::Statistic => Self::F32,
            Role::Activation | Role::Scores => match precision {
                Precision::F32 => Self::F32,
                Precision::Bf16 => Self::BF16,
            },
            Role::HalfMoment => Self::BF16,
            Role::Accumulator => Self::F64,
            Role::Index => Self::U32,
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Number(number) => number.bytes(),
            Self::U32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Long-lived memory, which is counted while it lives.
pub(super) struct Own {
    gpu: Arc<dyn Gpu>,
    at: Address,
    bytes: usize,
    count: Arc<AtomicUsize>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Own({} bytes)", self.bytes)
    }
}

impl Own {
    /// Takes over memory that the GPU allocated.
    pub fn new(gpu: &Arc<dyn Gpu>, at: Address, bytes: usize, count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(bytes, Ordering::Relaxed);
        Self {
            gpu: Arc::clone(gpu),
            at,
            bytes,
            count: Arc::clone(count),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes, Ordering::Relaxed);
        // SAFETY: the memory was allocated with this size, and the buffer was its only user.
        unsafe { self.gpu.free(self.at, self.bytes) };
    }
}

#[derive(Debug)]
pub(super) enum Place {
    Own(Own),
    Temporary(Block),
    /// The buffer has no numbers.
    Nowhere,
}

#[derive(Debug)]
pub(super) struct Storage {
    pub place: Place,
    pub form: Form,
}

impl Storage {
    pub fn at(&self) -> Address {
        match &self.place {
            Place::Own(own) => own.at,
            Place::Temporary(block) => block.at(),
            Place::Nowhere => Address(0),
        }
    }
}

/// The storage of a buffer.
pub(super) fn storage(buffer: &Buffer) -> &Storage {
    buffer.storage::<Storage>()
}

/// The address of a buffer, which must have this form.
pub(super) fn address(buffer: &Buffer, form: Form) -> Address {
    let storage = storage(buffer);
    assert_eq!(storage.form, form, "a buffer is used as its role says");
    storage.at()
}

/// The type of a buffer's numbers, which are no indices and no accumulator.
pub(super) fn number(buffer: &Buffer) -> Number {
    match storage(buffer).form {
        Form::Number(number) => number,
        other => panic!("a buffer is used as its role says: {other:?} are no numbers"),
    }
}

/// The address of a buffer of this type.
pub(super) fn of_type(buffer: &Buffer, number: Number) -> Address {
    address(buffer, Form::Number(number))
}

/// The address of f32 numbers.
pub(super) fn floats(buffer: &Buffer) -> Address {
    address(buffer, Form::F32)
}

/// The address of indices.
pub(super) fn indices(buffer: &Buffer) -> Address {
    address(buffer, Form::U32)
}

/// The address of an accumulator's sums.
pub(super) fn sums(buffer: &Buffer) -> Address {
    address(buffer, Form::F64)
}

//! Buffers of numbers on a device, long-lived and temporary.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A block of `len` numbers on a device, in the form that the device chooses.
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

    /// An empty buffer, which belongs to no device.
    pub fn empty() -> Self {
        Self::new((), 0)
    }

    /// Number of elements in the buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces the storage of the buffer by other storage of `len` numbers. The handle's memory is reused if the old
    /// storage is of the same type, so that a temporary costs no allocation on the host.
    pub fn refill<S: Any + Send + Sync>(&mut self, storage: S, len: usize) {
        match self.storage.downcast_mut::<S>() {
            Some(old) => *old = storage,
            None => self.storage = Box::new(storage),
        }
        self.len = len;
    }

    /// The storage if it is an `S`; a device may store numbers in several forms.
    pub fn storage_if<S: Any>(&self) -> Option<&S> {
        self.storage.downcast_ref()
    }

    /// The storage, for the device that made it.
    ///
    /// # Panics
    /// If another device made it. This is an error in the program, since a model, its optimizer and its tapes share one
    /// device, and no outside input chooses another.
    pub fn storage<S: Any>(&self) -> &S {
        self.storage
            .downcast_ref()
            .expect("a buffer is used on the device that made it")
    }

    /// The storage, mutable.
    ///
    /// # Panics
    /// As [`Buffer::storage`].
    pub fn storage_mut<S: Any>(&mut self) -> &mut S {
        self.storage
            .downcast_mut()
            .expect("a buffer is used on the device that made it")
    }
}

/// Handles of temporary buffers without any memory, kept so that making a temporary needs no allocation.
#[derive(Debug, Default)]
pub struct Handles {
    free: Mutex<Vec<Arc<Buffer>>>,
}

impl Handles {
    pub(crate) fn take(&self) -> Arc<Buffer> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_else(|| Arc::new(Buffer::empty()))
    }

    pub(crate) fn give(&self, handle: Arc<Buffer>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(handle);
    }
}

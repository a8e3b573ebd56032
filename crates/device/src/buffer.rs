//! Buffers of numbers on a device, long-lived and temporary.

use crate::{Device, Result, Role};
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
    fn take(&self) -> Arc<Buffer> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_else(|| Arc::new(Buffer::empty()))
    }

    fn give(&self, handle: Arc<Buffer>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(handle);
    }
}

/// A temporary buffer, whose memory is returned to its device when it is dropped.
#[derive(Debug)]
pub struct Temp {
    device: Arc<dyn Device>,
    /// Has one owner, except inside a [`SharedTemp`].
    buffer: Option<Arc<Buffer>>,
}

impl Temp {
    /// A buffer of `len` numbers with arbitrary content.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn new(device: &Arc<dyn Device>, len: usize, role: Role) -> Result<Self> {
        let mut temp = Self {
            device: Arc::clone(device),
            buffer: Some(device.handles().take()),
        };
        device.temporary(len, role, &mut temp)?;
        Ok(temp)
    }

    /// A temporary buffer with these indices.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn indices(device: &Arc<dyn Device>, indices: &[u32]) -> Result<Self> {
        let mut temp = Self::new(device, indices.len(), Role::Index)?;
        device.write_indices(indices, &mut temp)?;
        Ok(temp)
    }

    /// Converts the buffer to one that several owners can share.
    pub fn share(self) -> SharedTemp {
        SharedTemp(self)
    }
}

impl std::ops::Deref for Temp {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        // Only `drop` removes it.
        self.buffer.as_ref().expect("present until dropped")
    }
}

impl std::ops::DerefMut for Temp {
    fn deref_mut(&mut self) -> &mut Buffer {
        // As above; and only `SharedTemp` clones it, which returns a mutable `Temp` only if it is the only owner.
        let buffer = self.buffer.as_mut().expect("present until dropped");
        Arc::get_mut(buffer).expect("a temporary that is not shared has one owner")
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let Some(mut handle) = self.buffer.take() else {
            return;
        };
        if let Some(buffer) = Arc::get_mut(&mut handle) {
            self.device.release(buffer);
            self.device.handles().give(handle);
        }
    }
}

/// A temporary buffer of several owners; cloning shares it.
#[derive(Debug)]
pub struct SharedTemp(Temp);

impl SharedTemp {
    /// The buffer, mutable, if this is its only owner.
    pub fn unique(&mut self) -> Option<&mut Temp> {
        let only = self.0.buffer.as_mut().and_then(Arc::get_mut).is_some();
        only.then_some(&mut self.0)
    }
}

impl Clone for SharedTemp {
    fn clone(&self) -> Self {
        Self(Temp {
            device: Arc::clone(&self.0.device),
            buffer: self.0.buffer.clone(),
        })
    }
}

impl std::ops::Deref for SharedTemp {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.0
    }
}

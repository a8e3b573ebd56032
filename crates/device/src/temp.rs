//! Temporary buffers, whose memory is returned to their device.

use crate::{Buffer, Device, Result, Role};
use std::sync::Arc;

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

    /// A buffer with a row of `width` numbers for each of `tokens` parameter tokens, see [`Device::alloc_tokens`].
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn tokens(device: &Arc<dyn Device>, size: [usize; 2], role: Role) -> Result<Self> {
        let mut temp = Self {
            device: Arc::clone(device),
            buffer: Some(device.handles().take()),
        };
        device.temporary_tokens(size, role, &mut temp)?;
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

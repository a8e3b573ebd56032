//! What can go wrong on a device.

/// An operation that a device could not carry out.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is not enough memory.
    #[error(
        "{device}: out of memory\n  expected: {needed_bytes} more bytes\n  help:     use a smaller \
         batch, context or model"
    )]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes asked for.
        needed_bytes: usize,
    },
    /// The device's driver or library failed, or the device cannot do what was asked for.
    #[error("{device}: {operation} failed: {reason}")]
    Failed {
        /// The device's name.
        device: String,
        /// What was being done.
        operation: String,
        /// The driver's words.
        reason: String,
    },
}

/// Result of an operation on a device.
pub type Result<T> = std::result::Result<T, DeviceError>;

//! Errors of devices.

/// An operation that failed on a device.
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
        /// Bytes requested.
        needed_bytes: usize,
    },
    /// The device cannot be used on this machine.
    #[error("{device}: {reason}")]
    Unavailable {
        /// The device's name.
        device: String,
        /// What is missing, and what to do.
        reason: String,
    },
    /// The device's driver or library failed, or the device does not support the operation.
    #[error("{device}: {operation} failed: {reason}")]
    Failed {
        /// The device's name.
        device: String,
        /// What was being done.
        operation: String,
        /// The reason that the driver gave.
        reason: String,
    },
}

/// Result of an operation on a device.
pub type Result<T> = std::result::Result<T, DeviceError>;

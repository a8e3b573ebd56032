//! The plain f64 device.

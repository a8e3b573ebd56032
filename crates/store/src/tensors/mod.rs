//! The `.safetensors` format: named tensors behind one JSON header.
//!
//! Layout (<https://huggingface.co/docs/safetensors>): 8 bytes, little-endian, the length of the header; the header, a
//! JSON object from each name to `dtype`, `shape` and `data_offsets`, with an optional `__metadata__` object of
//! strings; then the tensors' bytes, row-major and little-endian, without gaps. Offsets count from the header's end.
//!
//! The header is checked here and not by the `safetensors` crate because a repeated name must be an error, not a silent
//! choice, and because messages name the file, the tensor and the fault.

mod convert;
mod dtype;
mod header;
mod read;
mod write;

pub use dtype::Dtype;
pub use header::unique_strings;
pub use read::SafetensorsFile;
pub use write::{TensorData, TensorSource, write_safetensors};

pub(crate) use write::{encoded_bytes, write_to};

/// The header key that is not a tensor.
const METADATA: &str = "__metadata__";

/// Size limit of the header, the same as in the official readers.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Elements of a shape; `None` when the product overflows.
fn elements(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &axis| product.checked_mul(axis))
}

//! The exact order in which GPT-NeoX trains on token data.
//!
//! Documents are split by contiguous ranges ([`split_documents`]). Within a range [`SampleOrder`] repeats the documents
//! as often as the training needs, shuffles all repetitions together, cuts the result into samples that overlap by one
//! token, and shuffles the samples. Several data sets are mixed by [`blend`]. Source: `megatron/data/gpt2_dataset.py`,
//! `blendable_dataset.py` and `helpers.cpp`. Each sequence of the data counts as a document, as in the source.

mod blend;
mod order;
mod split;

pub use blend::{BlendedSample, blend, blend_requests};
pub use order::{SampleOrder, SampleStart};
pub use split::split_documents;

use crate::Error;

fn argument(name: &'static str, expected: String, got: String) -> Error {
    Error::Argument {
        name,
        expected,
        got,
    }
}

//! From text to training batches.
//!
//! | module            | concern |
//! |-------------------|---------|
//! | [`corpus`]        | documents from files, folders, JSON Lines and compressed files |
//! | [`tokenizer`]     | text to token ids and back: bytes or byte-pair encodings |
//! | [`tokens`]        | `*.tokens`, the memory-mapped token file |
//! | [`mod@prepare`]   | the whole way from documents to a dataset folder |
//! | [`dataset`]       | opening a dataset folder, verified |
//! | [`sampler`]       | shuffled training batches, a pure function of (seed, file, index) |
//! | [`eval`]          | windows that score every token of a text exactly once |
//! | [`fetch`]         | public texts from a package registry |
//! | [`token_rows`]    | rows of tokens from JSON |
//! | [`crate_sources`] | real text that is always there: the sources of the crates in `Cargo.lock` |
//!
//! Everything is deterministic: the same documents, options and seed give the same bytes, for any
//! number of threads.
//!
//! ```
//! use tokenformer_data::{Dataset, Document, DocumentSource, PrepareOptions, WindowSampler, prepare};
//!
//! let folder = tempfile::tempdir()?;
//! let document = |n: u32| Document { source: format!("story {n}"), text: format!("{n} little ducks went out one day. ").repeat(9) };
//! let source = DocumentSource::Memory { label: "ducks".into(), documents: (0..20).map(document).collect() };
//! prepare(&PrepareOptions::new(source, folder.path().join("ducks")), |_| ())?;
//!
//! let dataset = Dataset::open(&folder.path().join("ducks"))?;
//! let sampler = WindowSampler::new(dataset.train, 32, 7)?;
//! let batch = sampler.batch_at(0, 4)?; // [4, 32] tokens, and those that follow each
//! assert_eq!(batch.inputs[1..32], batch.targets[..31]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod corpus;
pub mod crate_sources;
pub mod dataset;
mod error;
pub mod eval;
pub mod fetch;
mod file_names;
mod permutation;
pub mod prepare;
pub mod sampler;
mod text;
pub mod token_rows;
pub mod tokenizer;
pub mod tokens;

pub use corpus::{Corpus, CorpusOptions, CorpusStats, Document, LeftOut};
pub use dataset::{Dataset, inspect};
pub use error::{Error, Result};
pub use eval::{EvalWindow, EvalWindows};
pub use prepare::{
    DocumentSource, ImportOptions, PrepareOptions, Progress, Stage, Summary, import, prepare,
};
pub use sampler::{Batch, TokenSource, WindowSampler};
pub use tokenizer::{ByteCounts, DecodeStream, Losses, Tokenizer, TokenizerSpec};
pub use tokens::{TokenFile, TokenFileWriter};

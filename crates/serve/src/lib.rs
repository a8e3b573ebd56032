//! A server of TokenFormer models: OpenAI's interface over continuous batches, a page to write with them, and a
//! live view of a training run (`docs/serve.md`).
//!
//! The models compute on one thread, [`scheduler`]; everything else only moves messages between it and the network.

mod access;
mod answer;
mod body;
mod error;
mod failures;
mod http;
pub mod job;
mod logprobs;
pub mod metrics;
mod models;
mod offsets;
mod page;
mod patient;
mod prefix_cache;
pub mod prompt;
pub mod queue;
pub mod request;
mod run_view;
pub mod scheduler;
mod server;
mod stream;
mod texts;

pub use error::{ApiError, Error, Result};
pub use http::NetLimits;
pub use models::{Served, Stage};
pub use server::{Server, Settings};

//! A server of TokenFormer models: OpenAI's interface over continuous batches, a page to write with them, and a
//! live view of a training run (`docs/serve.md`).
//!
//! The models compute on one thread, [`scheduler`]; everything else only moves messages between it and the network.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
//! use std::time::Duration;
//! use tokenformer_core::{Device, Model, ModelSpec, WeightFormat, config::Slots};
//! use tokenformer_serve::scheduler::Limits;
//! use tokenformer_serve::{NetLimits, Served, Server, Settings};
//!
//! let device: Arc<dyn Device> = tokenformer_cpu::Cpu::new(Some(1));
//! let slots = Slots { qkv: 8, proj: 8, ffn: 16 };
//! let spec = ModelSpec { vocab: 257, width: 16, layers: 1, heads: 2, context: 16, slots, ..ModelSpec::default() };
//! let model = Model::fresh_for_inference(&device, &spec.build()?, WeightFormat::F32, 1)?;
//! let limits = Limits {
//!     batch: 4,
//!     prompt_tokens: 16,
//!     cache_bytes: 1 << 20,
//!     threads: 1,
//!     logits_per_thread: 1000,
//!     wait: Duration::from_secs(60),
//! };
//! let settings = Settings {
//!     bind: "127.0.0.1:0".parse()?,
//!     keys: vec![],
//!     allow_no_key: false,
//!     limits,
//!     net: NetLimits::default(),
//!     run: None,
//! };
//! let served = Served::new("untrained", model, tokenformer_data::Tokenizer::bytes())?;
//! let server = Server::bind(vec![served], settings)?;
//! let address = server.address()?;
//!
//! fn ask(address: std::net::SocketAddr) -> std::io::Result<String> {
//!     let mut connection = std::net::TcpStream::connect(address)?;
//!     connection.write_all(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
//!     let mut answer = String::new();
//!     connection.read_to_string(&mut answer)?;
//!     Ok(answer)
//! }
//! let stop = AtomicBool::new(false);
//! let answer = std::thread::scope(|scope| {
//!     scope.spawn(|| server.run(&stop));
//!     let answer = ask(address);
//!     stop.store(true, Ordering::Relaxed);
//!     answer
//! })?;
//! assert!(answer.contains("\"id\":\"untrained\""), "{answer}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

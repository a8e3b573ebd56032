//! Makes reports and plots from a run's records.
//!
//! A run appends [`Record`]s to `metrics.jsonl` through [`MetricsWriter`]; everything else is derived from them:
//!
//! | file | made by |
//! |---|---|
//! | `metrics.csv` | [`metrics_csv`] |
//! | `events.out.tfevents.*` | [`write_events`] |
//! | `plots/*.svg` | [`plots`] |
//! | `report.html` | [`render`] |
//!
//! [`write_report`] writes all but the event files. The crate knows nothing about models or training.
//!
//! ```
//! use tokenformer_report::{Record, metrics_csv};
//!
//! // A line of `metrics.jsonl`.
//! let line = r#"{"kind": "eval", "step": 400, "tokens": 819200, "stage": 1, "params": 655000, "loss": 1.5, "eval_tokens": 4096}"#;
//! let measured: Record = serde_json::from_str(line)?;
//! let csv = metrics_csv(&[measured]);
//! assert!(csv.lines().nth(1).is_some_and(|row| row.starts_with("eval,400,819200,1,655000,1.5")), "{csv}");
//! # Ok::<(), serde_json::Error>(())
//! ```

mod csv;
mod error;
mod escape;
pub mod figure;
mod files;
mod html;
pub mod pictures;
mod plots;
mod records;
mod series;
mod svg;
pub mod table;
mod tensorboard;
mod timeline;
mod write;

pub use csv::metrics_csv;
pub use error::Error;
pub use html::{Page, ReportInput, render};
pub use plots::{Plot, ZOOM_AFTER, ZOOM_BEFORE, plots};
pub use records::{
    ControlRecord, Damage, EvalRecord, GrowRecord, MetricsWriter, NoteRecord, Record, ResumePoint,
    SampleRecord, SiteGrowth, StartRecord, TrainRecord, Unit, read,
};
pub use tensorboard::write_events;
pub use write::write_report;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

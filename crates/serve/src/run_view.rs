//! A live view of a training run, from the files that it writes: another process may still be writing them, or the run has ended.

use crate::error::ApiError;
use crate::http::App;
use crate::stream::{event_stream, message};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The file of the recipe in the directory of a run.
const RECIPE: &str = "config.toml";
/// How often the files are looked at.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of records in a message, unless one record is longer.
const PART_BYTES: u64 = 64 << 10;
/// Longest line of records.
const LINE_BYTES: u64 = 4 << 20;

/// The records of the run as server-sent events: first the existing ones, then each new one. A message is
/// `{"kind": "run", ...}` for what is known of the whole, at first and whenever the recipe is written,
/// `{"kind": "reset"}` when the records start again, `{"kind": "records", "records": [...]}`, or
/// `{"kind": "alive", "silent_s": ...}`.
pub(crate) async fn events(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let Some(dir) = app.run.clone() else {
        let help = "start the server with --run runs/NAME";
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "this server shows no run",
            help,
        ));
    };
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut events = RunEvents {
        follow: Follow::new(&dir),
        app,
        ticks,
        has_more: false,
        told: None,
    };
    Ok(event_stream(move |cx| events.poll(cx)))
}

struct RunEvents {
    app: Arc<App>,
    follow: Follow,
    ticks: Interval,
    has_more: bool,
    /// When the recipe was written that the client knows; `None` before it knows anything.
    told: Option<Option<SystemTime>>,
}

impl RunEvents {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        // A run that begins or is resumed while it is looked at writes its recipe then.
        let recipe = self.follow.dir.join(RECIPE).metadata();
        let written = recipe.and_then(|recipe| recipe.modified()).ok();
        if self.told.replace(written) != Some(written) {
            return Poll::Ready(Some(message(&about(&self.follow.dir))));
        }
        if !self.has_more {
            ready!(self.ticks.poll_tick(cx));
        }
        if self.app.is_draining.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        let value = self.follow.next();
        self.has_more = value["kind"] != "alive";
        Poll::Ready(Some(message(&value)))
    }
}

/// What is known of the whole run: its name and the steps that it is to make.
fn about(dir: &Path) -> Value {
    let recipe = tokenformer_train::recipe::resolve(Some(&dir.join(RECIPE)), &[]);
    let steps = recipe.ok().map(|resolved| resolved.recipe.train.steps);
    let name = dir.canonicalize().unwrap_or_else(|_| dir.into());
    let name = name
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    json!({"kind": "run", "name": name, "steps": steps})
}

/// Reads the records of a run as they are written.
struct Follow {
    dir: PathBuf,
    /// Where the next line begins.
    at: u64,
}

impl Follow {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.into(),
            at: 0,
        }
    }

    /// The next message.
    fn next(&mut self) -> Value {
        let path = self.dir.join("metrics.jsonl");
        let Ok(mut file) = File::open(&path) else {
            return json!({"kind": "alive", "silent_s": null});
        };
        let about = file.metadata().ok();
        let len = about.as_ref().map_or(0, std::fs::Metadata::len);
        if len < self.at {
            // A run that is resumed from a checkpoint drops the records after it.
            self.at = 0;
            return json!({"kind": "reset"});
        }
        let records = self.records(&mut file).unwrap_or_default();
        if !records.is_empty() {
            return json!({"kind": "records", "records": records});
        }
        let changed = about.and_then(|about| about.modified().ok());
        let silent = changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
        json!({"kind": "alive", "silent_s": silent.map(|silent| silent.as_secs())})
    }

    /// Whole lines from where the last ones ended. What is no record is left out.
    fn records(&mut self, file: &mut File) -> std::io::Result<Vec<Value>> {
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        let mut part = file.take(PART_BYTES);
        part.read_to_end(&mut bytes)?;
        if !bytes.contains(&b'\n') && bytes.len() as u64 == PART_BYTES {
            part.set_limit(LINE_BYTES);
            part.read_to_end(&mut bytes)?;
        }
        let end = match bytes.iter().rposition(|&byte| byte == b'\n') {
            Some(end) => end + 1,
            // A line without an end is skipped, because it would be read again and again.
            None if bytes.len() as u64 >= LINE_BYTES => bytes.len(),
            None => return Ok(Vec::new()),
        };
        self.at += end as u64;
        let lines = bytes[..end].split(|&byte| byte == b'\n');
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn records_come_as_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut follow = Follow::new(dir.path());
        assert_eq!(follow.next()["kind"], "alive");
        let path = dir.path().join("metrics.jsonl");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"{\"step\":1}\nnoise\n{\"step\":2}\n{\"st")
            .unwrap();
        let records = follow.next();
        assert_eq!(records["records"], json!([{"step": 1}, {"step": 2}]));
        assert_eq!(follow.next()["kind"], "alive", "half a line is no record");
        file.write_all(b"ep\":3}\n").unwrap();
        assert_eq!(follow.next()["records"], json!([{"step": 3}]));
        std::fs::write(&path, "{\"step\":2}\n").unwrap();
        assert_eq!(follow.next()["kind"], "reset");
        assert_eq!(follow.next()["records"], json!([{"step": 2}]));
    }

    #[test]
    fn a_line_without_an_end_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, vec![b'x'; 6 << 20]).unwrap();
        let mut follow = Follow::new(dir.path());
        for _ in 0..3 {
            assert_eq!(follow.next()["kind"], "alive");
        }
        assert!(follow.at >= 4 << 20);
    }
}

//! Failures of the models on standard error, for the person who runs the server.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most lines in a period, so that a client that makes a model fail cannot fill a disk.
const MOST_LINES: usize = 10;
const PERIOD: Duration = Duration::from_secs(60);

/// What was told in the current period.
#[derive(Debug)]
struct Period {
    began: Instant,
    lines: usize,
    /// Failures since the last line.
    left_out: usize,
}

/// Writes failures to standard error.
#[derive(Debug)]
pub(crate) struct Failures(Mutex<Period>);

impl Failures {
    pub fn new() -> Self {
        Self(Mutex::new(Period {
            began: Instant::now(),
            lines: 0,
            left_out: 0,
        }))
    }

    /// Tells of a failure of a model.
    pub fn tell(&self, model: &str, error: &str) {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = period.line(Instant::now(), model, error) {
            // The server still answers if standard error is closed.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }
}

impl Period {
    /// The line of a failure; none if there were too many.
    fn line(&mut self, now: Instant, model: &str, error: &str) -> Option<String> {
        if now.duration_since(self.began) >= PERIOD {
            (self.began, self.lines) = (now, 0);
        }
        if self.lines == MOST_LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        let words: Vec<&str> = error.split_whitespace().collect();
        let line = format!("error: {model}: {}", words.join(" "));
        Some(match std::mem::take(&mut self.left_out) {
            0 => line,
            more => format!("{line} (and {more} failures before it)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_lines_of_which_there_are_not_too_many() {
        let began = Instant::now();
        let mut period = Period {
            began,
            lines: 0,
            left_out: 0,
        };
        let line = period.line(began, "m", "it failed\n  help:     none");
        assert_eq!(line.as_deref(), Some("error: m: it failed help: none"));
        let told = (0..30).filter_map(|_| period.line(began, "m", "again"));
        assert_eq!(told.count(), MOST_LINES - 1);
        let line = period.line(began + PERIOD, "m", "later");
        let more = "error: m: later (and 21 failures before it)";
        assert_eq!(line.as_deref(), Some(more));
        let line = period.line(began + PERIOD, "m", "later");
        assert_eq!(line.as_deref(), Some("error: m: later"));
    }
}

//! Counters in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets of times, in seconds.
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Upper bounds of the buckets of batch sizes.
const SIZES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// How often values lay below each bound.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [f64; N],
    buckets: [AtomicU64; N],
    count: AtomicU64,
    /// In millionths.
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [f64; N]) -> Self {
        Self {
            bounds,
            buckets: [const { AtomicU64::new(0) }; N],
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        if let Some(at) = self.bounds.iter().position(|&bound| value <= bound) {
            self.buckets[at].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} histogram\n");
        let mut below = 0;
        for (bound, bucket) in self.bounds.iter().zip(&self.buckets) {
            below += bucket.load(Relaxed);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {below}");
        }
        let count = self.count.load(Relaxed);
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let sum = self.sum.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_sum {sum}\n{name}_count {count}");
    }
}

/// What the server counts.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Metrics {
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    pub in_flight: AtomicU64,
    pub connections: AtomicU64,
    pub queued: AtomicU64,
    pub running: AtomicU64,
    pub cancelled: AtomicU64,
    pub prompt_tokens: AtomicU64,
    pub shared_tokens: AtomicU64,
    pub new_tokens: AtomicU64,
    pub cache_bytes: AtomicU64,
    pub cache_limit_bytes: AtomicU64,
    pub first_token: Histogram<12>,
    pub per_token: Histogram<12>,
    pub batch: Histogram<7>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            running: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            shared_tokens: AtomicU64::new(0),
            new_tokens: AtomicU64::new(0),
            cache_bytes: AtomicU64::new(0),
            cache_limit_bytes: AtomicU64::new(0),
            first_token: Histogram::new(SECONDS),
            per_token: Histogram::new(SECONDS),
            batch: Histogram::new(SIZES),
        }
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}

/// Sets a gauge.
pub(crate) fn set(gauge: &AtomicU64, n: usize) {
    gauge.store(n as u64, Relaxed);
}

/// Seconds, for a histogram.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

impl Metrics {
    /// The page of metrics.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let plain = [
            (
                "requests_total",
                "counter",
                "Requests for texts that were taken.",
                &self.requests,
            ),
            (
                "refused_total",
                "counter",
                "Requests that were answered with an error.",
                &self.refused,
            ),
            (
                "cancelled_total",
                "counter",
                "Texts whose reader left.",
                &self.cancelled,
            ),
            (
                "prompt_tokens_total",
                "counter",
                "Tokens of prompts.",
                &self.prompt_tokens,
            ),
            (
                "shared_tokens_total",
                "counter",
                "Tokens of prompts that were taken from a text that begins alike.",
                &self.shared_tokens,
            ),
            (
                "new_tokens_total",
                "counter",
                "Tokens that were generated.",
                &self.new_tokens,
            ),
            (
                "requests_in_flight",
                "gauge",
                "Requests that are being answered.",
                &self.in_flight,
            ),
            (
                "connections",
                "gauge",
                "Open connections.",
                &self.connections,
            ),
            (
                "texts_queued",
                "gauge",
                "Texts that wait for their turn.",
                &self.queued,
            ),
            (
                "texts_running",
                "gauge",
                "Texts that are being continued.",
                &self.running,
            ),
            (
                "cache_bytes",
                "gauge",
                "Memory of keys and values in use.",
                &self.cache_bytes,
            ),
            (
                "cache_limit_bytes",
                "gauge",
                "Memory that keys and values may take.",
                &self.cache_limit_bytes,
            ),
        ];
        for (name, kind, help, value) in plain {
            let name = format!("tokenformer_{name}");
            let value = value.load(Relaxed);
            let _ = write!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            );
        }
        let name = |end: &str| format!("tokenformer_{end}");
        let first = "Time from a request to its first token.";
        self.first_token
            .write(&mut out, &name("time_to_first_token_seconds"), first);
        let each = "Time between the tokens of a text.";
        self.per_token
            .write(&mut out, &name("time_per_token_seconds"), each);
        let batch = "Texts that share a step.";
        self.batch.write(&mut out, &name("batch_size"), batch);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_what_lies_below_them() {
        let metrics = Metrics::default();
        for size in [1.0, 3.0, 100.0] {
            metrics.batch.observe(size);
        }
        let text = metrics.text();
        for line in [
            "tokenformer_batch_size_bucket{le=\"1\"} 1",
            "tokenformer_batch_size_bucket{le=\"4\"} 2",
            "tokenformer_batch_size_bucket{le=\"64\"} 2",
            "tokenformer_batch_size_bucket{le=\"+Inf\"} 3",
            "tokenformer_batch_size_sum 104",
            "tokenformer_texts_queued 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}

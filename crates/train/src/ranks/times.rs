//! Where the time of each rank goes.

use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokenformer_core::device::Collective;

/// The file in a run directory.
const FILE: &str = "ranks.csv";
const HEADER: &str = "step,rank,name,computing_ms,waiting_ms,targets_per_s\n";
/// A rank that computes this many times as long as the median is slow.
const SLOW: f64 = 1.3;
/// Records in a row before a slow rank is named.
const IN_A_ROW: u32 = 3;

/// Time of one rank.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Times {
    /// Forward and backward passes, updates, data.
    pub computing: Duration,
    /// Waiting for other ranks and the connection.
    pub waiting: Duration,
    /// Predictions of this rank.
    pub targets: u64,
}

/// Times of all ranks since the last record, on all ranks.
pub(crate) struct RankTimes {
    collective: std::sync::Arc<dyn Collective>,
    file: PathBuf,
    pending: Times,
    last: Vec<[f64; 3]>,
    slow: Option<(usize, u32)>,
}

impl RankTimes {
    /// Begins, or goes on after `step`: what a run that was killed wrote after it is removed.
    pub fn open(
        collective: &std::sync::Arc<dyn Collective>,
        out: &Path,
        step: u64,
    ) -> Result<Self> {
        let times = Self {
            collective: std::sync::Arc::clone(collective),
            file: out.join(FILE),
            pending: Times::default(),
            last: Vec::new(),
            slow: None,
        };
        if collective.world() > 1 && collective.rank() == 0 {
            let before = std::fs::read_to_string(&times.file).unwrap_or_default();
            let is_kept = |line: &&str| {
                let of = line
                    .split(',')
                    .next()
                    .and_then(|step| step.parse::<u64>().ok());
                of.is_some_and(|of| of <= step)
            };
            let mut text = HEADER.to_string();
            before
                .lines()
                .filter(is_kept)
                .for_each(|line| text += &format!("{line}\n"));
            times.write(&text)?;
        }
        Ok(times)
    }

    fn write(&self, text: &str) -> Result<()> {
        std::fs::write(&self.file, text).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Io {
            action: "write the times of ranks",
            path: self.file.clone(),
            source,
            help: "check the permissions and the free disk space",
        }
    }

    /// Takes in an update.
    pub fn add(&mut self, more: Times) {
        self.pending.computing += more.computing;
        self.pending.waiting += more.waiting;
        self.pending.targets += more.targets;
    }

    /// The times since the last record.
    pub fn pending(&self) -> Times {
        self.pending
    }

    /// Goes back to what [`RankTimes::pending`] was before updates that are taken back.
    pub fn go_back_to(&mut self, pending: Times) {
        self.pending = pending;
    }

    /// Brings the times since the last record together and writes them; a sentence if a rank is slow.
    pub fn record(&mut self, step: u64) -> Result<Option<String>> {
        let (rank, world) = (self.collective.rank(), self.collective.world());
        let own = std::mem::take(&mut self.pending);
        if world == 1 {
            return Ok(None);
        }
        let mut numbers = vec![0.0; 3 * world];
        numbers[3 * rank] = own.computing.as_secs_f64();
        numbers[3 * rank + 1] = own.waiting.as_secs_f64();
        numbers[3 * rank + 2] = own.targets as f64;
        self.collective.all_reduce(&mut numbers)?;
        self.last = numbers.chunks(3).map(|of| [of[0], of[1], of[2]]).collect();
        if rank == 0 {
            let mut text = String::new();
            for (of, [computing, waiting, targets]) in self.last.iter().enumerate() {
                let per_s = targets / (computing + waiting).max(f64::MIN_POSITIVE);
                let name = self.collective.name(of).replace([',', '\n'], " ");
                // Writing to a text does not fail.
                let _ = writeln!(
                    text,
                    "{step},{of},{name},{:.3},{:.3},{per_s:.1}",
                    computing * 1e3,
                    waiting * 1e3
                );
            }
            self.append(&text)?;
        }
        Ok(self.slow_rank())
    }

    fn append(&self, text: &str) -> Result<()> {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.file);
        let written =
            file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
        written.map_err(|source| self.failed(source))
    }

    /// Names a rank that has been slow for some records, once for as long as it is.
    fn slow_rank(&mut self) -> Option<String> {
        let computing: Vec<f64> = self.last.iter().map(|of| of[0]).collect();
        let (slowest, factor) = slowest(&computing)?;
        if factor < SLOW {
            self.slow = None;
            return None;
        }
        let row = match self.slow {
            Some((rank, row)) if rank == slowest => row + 1,
            _ => 1,
        };
        self.slow = Some((slowest, row));
        (row == IN_A_ROW).then(|| {
            format!(
                "{} computes {factor:.1} times as long as the median of the ranks, and the others wait for it",
                self.collective.name(slowest)
            )
        })
    }

    /// Rows for the report: how each rank has spent the time before the last record.
    pub fn rows(&self) -> Vec<(String, String)> {
        let rows = self.last.iter().enumerate();
        rows.map(|(rank, [computing, waiting, targets])| {
            let all = (computing + waiting).max(f64::MIN_POSITIVE);
            let share = 100.0 * waiting / all;
            let text = format!(
                "{:.0} per second, waiting {share:.0} % of the time",
                targets / all
            );
            (self.collective.name(rank), text)
        })
        .collect()
    }
}

/// The largest number, and how many times the median of all it is, if that is above 0.
fn slowest(times: &[f64]) -> Option<(usize, f64)> {
    let most = times.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The lower one of two, so that one of two ranks can be slow.
    let median = sorted[(sorted.len() - 1) / 2];
    (median > 0.0).then(|| (most.0, most.1 / median))
}

#[cfg(test)]
mod tests {
    use super::slowest;

    #[test]
    fn the_slowest_is_compared_with_the_median() {
        assert_eq!(slowest(&[1.0, 2.0]), Some((1, 2.0)));
        assert_eq!(slowest(&[1.0, 1.0, 1.0, 3.0]), Some((3, 3.0)));
        assert_eq!(slowest(&[]), None);
        assert_eq!(slowest(&[0.0, 1.0]), None);
    }
}

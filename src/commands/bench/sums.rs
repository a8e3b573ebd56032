//! What ranks exchange: the time to add up numbers of all of them, and to bring those of one to all.

use super::median;
use crate::Failure;
use crate::args::BenchArgs;
use crate::commands::{print_json, ranks};
use crate::usage;
use std::time::Instant;
use tokenformer_core::device::{Collective, Pending};
use tokenformer_report::table::{Table, human_bytes};
use tokenformer_train::{Error, Result};

/// Numbers of a message: 4 KiB to 64 MiB of f32.
const NUMBERS: [usize; 5] = [1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 24];

/// How several ranks are started that can be connected.
const START: &str = "or with tokenformer launch -n 2 -- bench sums";

#[derive(serde::Serialize)]
struct Row {
    bytes: u64,
    sum_ms: f64,
    broadcast_ms: f64,
}

#[derive(serde::Serialize)]
struct Output {
    ranks: usize,
    /// Time of a sum of one number, which is that of two messages and of waking up.
    latency_us: f64,
    messages: Vec<Row>,
}

/// Measures as one of the ranks; returns the exit code.
pub fn run(args: &BenchArgs) -> std::result::Result<i32, Failure> {
    let collective = match ranks::join(true, START)? {
        ranks::Role::Rank(collective) => collective,
        #[cfg(unix)]
        ranks::Role::Guard(code) => return Ok(code),
    };
    let ranks = &*collective;
    if ranks.world() == 1 {
        let help = format!("start it with mpirun -n 2, {START}");
        return Err(usage("bench sums", "several ranks", "one process", &help).into());
    }
    let mut output = Output {
        ranks: ranks.world(),
        latency_us: 1e6
            * median(times(ranks, 10 * args.steps, || {
                Ok(ranks.all_reduce(&mut [1.0])?)
            })?),
        messages: Vec::new(),
    };
    for numbers in NUMBERS {
        let ones = vec![1.0f32; numbers];
        // The copies that the operations take are made before, as their users make them.
        let mut copies = vec![ones; args.steps + 1];
        let sum = || {
            let numbers = copies.pop().unwrap_or_default();
            let sum = ranks.begin_all_reduce(numbers).and_then(Pending::wait)?;
            match sum.first() {
                Some(sum) if *sum == ranks.world() as f32 => Ok(()),
                other => Err(wrong(ranks, other)),
            }
        };
        let sum_ms = 1e3 * median(times(ranks, args.steps, sum)?);
        let mut copies = vec![vec![1.0f32; numbers]; args.steps + 1];
        let broadcast = || {
            let numbers = copies.pop().unwrap_or_default();
            ranks.begin_broadcast(0, numbers).and_then(Pending::wait)?;
            Ok(())
        };
        let broadcast_ms = 1e3 * median(times(ranks, args.steps, broadcast)?);
        output.messages.push(Row {
            bytes: (numbers * size_of::<f32>()) as u64,
            sum_ms,
            broadcast_ms,
        });
    }
    match (ranks.rank(), args.json) {
        (0, true) => print_json(&output),
        (0, false) => print(&output),
        _ => {}
    }
    Ok(0)
}

/// The error for a sum that is not the number of ranks.
fn wrong(ranks: &dyn Collective, got: Option<&f32>) -> Error {
    let expected = format!("sums of {} ones", ranks.world());
    let got = got.map_or("none".into(), ToString::to_string);
    let help = "the MPI library adds wrongly; try another one";
    usage("bench sums", &expected, got, help)
}

/// Seconds of `count` runs that all ranks begin together, after one that is not counted.
fn times(
    ranks: &dyn Collective,
    count: usize,
    mut run: impl FnMut() -> Result<()>,
) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for number in 0..=count {
        ranks.all_reduce(&mut [0.0])?;
        let started = Instant::now();
        run()?;
        if number > 0 {
            times.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(times)
}

fn print(output: &Output) {
    outln!(
        "{} ranks; a sum of one number takes {:.0} us",
        output.ranks,
        output.latency_us
    );
    let mut table = Table::new(["message", "sum, ms", "GB/s", "broadcast, ms", "GB/s"]);
    for row in &output.messages {
        let speed = |ms: f64| format!("{:.2}", row.bytes as f64 / ms / 1e6);
        table.row([
            human_bytes(row.bytes),
            format!("{:.3}", row.sum_ms),
            speed(row.sum_ms),
            format!("{:.3}", row.broadcast_ms),
            speed(row.broadcast_ms),
        ]);
    }
    out!("{table}");
}

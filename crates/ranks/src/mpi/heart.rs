//! Signs of life between the ranks, in a thread of each.
//!
//! A launcher notices a process that ended, but not a machine that was cut off or a process that stands still: the others would
//! wait without an end. So every rank sends a number to rank 0 each second, and rank 0 to every rank. The thread also lets operations
//! go on while the process computes.

use super::Connection;
use super::calls::Id;
use crate::error::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// A rank that gave no sign for so long is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(20);
/// What the main thread gets to report the loss in its own words.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks, with and without operations in flight.
const BUSY: Duration = Duration::from_micros(500);
const IDLE: Duration = Duration::from_millis(20);
/// The last message of a rank.
const GOODBYE: f64 = -1.0;

/// The thread.
pub struct Heart {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// A rank on the other side.
struct Peer {
    rank: usize,
    /// What was sent last, while MPI may read it.
    sent: Box<f64>,
    sending: Option<Id>,
    received: Box<f64>,
    receiving: Option<Id>,
    heard: Instant,
    has_left: bool,
}

impl Heart {
    /// Starts the thread, with a communicator in which nothing else is sent.
    pub fn start(connection: &'static Connection, within: Id) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || beat(connection, within, &asked));
        Self { stop, thread }
    }

    /// Says goodbye, and waits until the other side has done so, too.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic of the thread has been printed.
        let _ = self.thread.join();
    }
}

fn beat(connection: &'static Connection, within: Id, stop: &AtomicBool) {
    let ranks = match connection.rank {
        0 => 1..connection.world,
        _ => 0..1,
    };
    let mut peers: Vec<Peer> = ranks.map(Peer::new).collect();
    let outcome = exchange(connection, within, stop, &mut peers);
    let reason = match outcome {
        Ok(None) => return,
        Ok(Some(rank)) => {
            let name = connection.name(rank);
            format!(
                "{name} has given no sign of life for {} s",
                LOST_AFTER.as_secs()
            )
        }
        Err(error) => error.to_string(),
    };
    // MPI may still read or write the numbers.
    std::mem::forget(peers);
    eprintln!(
        "error: {reason}\n  expected: a sign of life each second\n  got:      none; {} ends\n  help:     its machine, its network or its \
         process has stopped; the same command goes on from the last checkpoint",
        connection.name(connection.rank)
    );
    // The main thread may be waiting for the lost rank, and then ends the job itself.
    let _ = connection.lost.set(reason);
    std::thread::sleep(GRACE);
    connection.abort(1);
}

/// Exchanges signs of life until both sides have left; returns a rank that was lost.
fn exchange(
    connection: &Connection,
    within: Id,
    stop: &AtomicBool,
    peers: &mut [Peer],
) -> Result<Option<usize>> {
    let mut last_beat: Option<Instant> = None;
    loop {
        let leaves = stop.load(Ordering::Relaxed);
        let is_due = last_beat.is_none_or(|last| last.elapsed() >= BEAT);
        if is_due {
            last_beat = Some(Instant::now());
        }
        let mut is_over = leaves;
        for peer in peers.iter_mut() {
            peer.listen(connection, within)?;
            peer.speak(connection, within, is_due, leaves)?;
            is_over &= peer.is_over();
            if !peer.has_left && peer.heard.elapsed() > LOST_AFTER {
                return Ok(Some(peer.rank));
            }
        }
        if is_over {
            return Ok(None);
        }
        let pause = match connection.in_flight.load(Ordering::Relaxed) {
            0 => IDLE,
            _ => BUSY,
        };
        std::thread::sleep(pause);
    }
}

impl Peer {
    fn new(rank: usize) -> Self {
        Self {
            rank,
            sent: Box::new(0.0),
            sending: None,
            received: Box::new(0.0),
            receiving: None,
            heard: Instant::now(),
            has_left: false,
        }
    }

    /// Probes for a message; every probe also drives all operations of MPI.
    fn listen(&mut self, connection: &Connection, within: Id) -> Result<()> {
        if self.has_left {
            return Ok(());
        }
        if let Some(receiving) = self.receiving {
            if !connection.calls.is_done(receiving)? {
                return Ok(());
            }
            self.receiving = None;
            self.heard = Instant::now();
            if *self.received == GOODBYE {
                self.has_left = true;
                return Ok(());
            }
        }
        // SAFETY: the number is boxed, and lives and stays untouched until the request is done, or is never freed (`beat`).
        self.receiving = Some(unsafe {
            connection
                .calls
                .receive(&mut self.received, self.rank, within)?
        });
        Ok(())
    }

    /// Sends a sign of life if one is due and the last one is gone, or the goodbye.
    fn speak(
        &mut self,
        connection: &Connection,
        within: Id,
        is_due: bool,
        leaves: bool,
    ) -> Result<()> {
        if let Some(sending) = self.sending {
            if !connection.calls.is_done(sending)? {
                return Ok(());
            }
            self.sending = None;
        }
        let has_said_goodbye = *self.sent == GOODBYE;
        if has_said_goodbye || !(is_due || leaves) {
            return Ok(());
        }
        *self.sent = if leaves { GOODBYE } else { 1.0 };
        // SAFETY: as in `listen`.
        self.sending = Some(unsafe { connection.calls.send(&self.sent, self.rank, within)? });
        Ok(())
    }

    /// Whether both sides have said goodbye and nothing is under way.
    fn is_over(&self) -> bool {
        self.has_left && self.sending.is_none() && *self.sent == GOODBYE
    }
}

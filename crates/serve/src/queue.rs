//! Texts that wait for their turn: the requests take turns, each with one text after the other.

use crate::job::{Event, Job};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The texts of a request that still wait.
#[derive(Debug)]
struct Request {
    arrived: Instant,
    /// When it came, or when the last of its texts began.
    waits_since: Instant,
    jobs: VecDeque<Job>,
}

/// Where a text waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Place of its request in the queue.
    request: usize,
    /// Its place among those of its request.
    job: usize,
}

/// A fair queue.
#[derive(Debug, Default)]
pub struct Queue {
    requests: VecDeque<Request>,
}

impl Queue {
    /// Puts the texts of a request at the end.
    pub fn push(&mut self, jobs: Vec<Job>, now: Instant) {
        if !jobs.is_empty() {
            self.requests.push_back(Request {
                arrived: now,
                waits_since: now,
                jobs: jobs.into(),
            });
        }
    }

    /// Whether no text waits.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Texts that wait.
    pub fn len(&self) -> usize {
        self.requests.iter().map(|r| r.jobs.len()).sum()
    }

    /// The next text that may begin now. Those before it keep their places.
    pub fn next(&self, may_begin: impl Fn(&Job) -> bool) -> Option<(Place, &Job)> {
        self.requests.iter().enumerate().find_map(|(request, of)| {
            let job = of.jobs.iter().position(&may_begin)?;
            Some((Place { request, job }, &of.jobs[job]))
        })
    }

    /// Takes the text at a place that [`Queue::next`] has told, and tells when it came. Its request goes to the end of the
    /// queue, so that a request with many texts does not keep others waiting.
    pub fn take(&mut self, place: Place, now: Instant) -> Option<(Instant, Job)> {
        let mut request = self.requests.remove(place.request)?;
        let job = request.jobs.remove(place.job);
        let arrived = request.arrived;
        request.waits_since = now;
        if !request.jobs.is_empty() {
            self.requests.push_back(request);
        }
        Some((arrived, job?))
    }

    /// Drops texts whose reader is gone, and, with [`Event::Busy`], the texts of requests none of which has begun for longer than
    /// `wait`. Returns how many readers were gone.
    pub fn drop_left(&mut self, wait: Duration, now: Instant) -> usize {
        let mut left = 0;
        for request in &mut self.requests {
            let is_late = now.saturating_duration_since(request.waits_since) > wait;
            request.jobs.retain(|job| {
                let is_gone = job.events.is_closed();
                left += usize::from(is_gone);
                if is_late && !is_gone {
                    let _ = job.events.send((job.index, Event::Busy));
                }
                !is_gone && !is_late
            });
        }
        self.requests.retain(|request| !request.jobs.is_empty());
        left
    }
}

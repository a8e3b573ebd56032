//! Texts that wait for their turn: the requests take turns, each with one text after the other.

use crate::job::{Event, Job};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The texts of a request that still wait.
#[derive(Debug)]
struct Request {
    arrived: Instant,
    jobs: VecDeque<Job>,
}

/// A fair queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    requests: VecDeque<Request>,
    aside: Vec<Request>,
}

impl Queue {
    pub fn push(&mut self, jobs: Vec<Job>) {
        self.requests.push_back(Request {
            arrived: Instant::now(),
            jobs: jobs.into(),
        });
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Texts that wait.
    pub fn len(&self) -> usize {
        self.requests.iter().map(|r| r.jobs.len()).sum()
    }

    /// The next text. Its request goes to the end of the queue, so that one with many texts keeps none waiting.
    pub fn pop(&mut self) -> Option<(Instant, Job)> {
        loop {
            let mut request = self.requests.pop_front()?;
            let arrived = request.arrived;
            let Some(job) = request.jobs.pop_front() else {
                continue;
            };
            if !request.jobs.is_empty() {
                self.requests.push_back(request);
            }
            return Some((arrived, job));
        }
    }

    /// Puts a text back to the front.
    pub fn put_back(&mut self, arrived: Instant, job: Job) {
        self.requests.push_front(single(arrived, job));
    }

    /// Puts a text aside until [`Queue::take_aside`].
    pub fn put_aside(&mut self, arrived: Instant, job: Job) {
        self.aside.push(single(arrived, job));
    }

    /// Puts what was set aside back to the front, in its order.
    pub fn take_aside(&mut self) {
        for request in self.aside.drain(..).rev() {
            self.requests.push_front(request);
        }
    }

    /// Drops texts whose reader is gone, and says so to those that have waited longer than `wait`. Returns how many readers
    /// were gone.
    pub fn drop_left(&mut self, wait: Duration) -> usize {
        let mut left = 0;
        for request in &mut self.requests {
            let is_late = request.arrived.elapsed() > wait;
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

fn single(arrived: Instant, job: Job) -> Request {
    Request {
        arrived,
        jobs: VecDeque::from([job]),
    }
}

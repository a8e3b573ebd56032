//! The queue of texts: requests take turns, also while some of their texts wait for a common beginning.

use std::time::{Duration, Instant};
use tokenformer_core::generate::Sampling;
use tokenformer_serve::job::{Event, Job};
use tokenformer_serve::queue::Queue;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Events = (usize, Event);

/// The texts of a request, numbered from `first`.
fn request(first: usize, count: usize, events: &UnboundedSender<Events>) -> Vec<Job> {
    let job = |index| Job {
        model: 0,
        newest_stage: None,
        prompt: vec![1],
        max_tokens: 1,
        sampling: Sampling::default(),
        bias: Vec::new(),
        stops: Vec::new(),
        alternatives: None,
        scores_prompt: false,
        index,
        events: events.clone(),
    };
    (first..first + count).map(job).collect()
}

/// Takes the next text that may begin.
fn take(queue: &mut Queue, may_begin: impl Fn(&Job) -> bool, now: Instant) -> Option<usize> {
    let (place, _) = queue.next(may_begin)?;
    queue.take(place, now).map(|(_, job)| job.index)
}

/// The texts that were told that they had no place.
fn told(events: &mut UnboundedReceiver<Events>) -> Vec<usize> {
    std::iter::from_fn(|| events.try_recv().ok())
        .map(|(index, event)| {
            assert_eq!(event, Event::Busy);
            index
        })
        .collect()
}

#[test]
fn a_request_whose_texts_wait_for_each_other_has_one_turn() {
    let (events, _reader) = unbounded_channel();
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.push(request(0, 4, &events), now);
    assert_eq!(take(&mut queue, |_| true, now), Some(0));
    // While its first text reads their common beginning, the others wait, and another request comes.
    assert_eq!(take(&mut queue, |job| job.index >= 100, now), None);
    queue.push(request(100, 3, &events), now);
    assert_eq!(take(&mut queue, |job| job.index >= 100, now), Some(100));
    assert_eq!(queue.len(), 5);
    let order: Vec<_> = std::iter::from_fn(|| take(&mut queue, |_| true, now)).collect();
    assert_eq!(order, [1, 101, 2, 102, 3]);
    assert!(queue.is_empty());
}

#[test]
fn a_text_that_waits_does_not_hold_back_the_others_of_its_request() {
    let (events, _reader) = unbounded_channel();
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.push(request(0, 3, &events), now);
    assert_eq!(take(&mut queue, |job| job.index == 2, now), Some(2));
    assert_eq!(take(&mut queue, |_| true, now), Some(0));
}

#[test]
fn a_request_waits_as_long_as_none_of_its_texts_begins() {
    let (events, mut reader) = unbounded_channel();
    let (mut queue, start) = (Queue::default(), Instant::now());
    let wait = Duration::from_secs(10);
    let at = |seconds| start + Duration::from_secs(seconds);
    queue.push(request(0, 3, &events), start);
    queue.push(request(100, 1, &events), start);
    assert_eq!(take(&mut queue, |_| true, at(9)), Some(0));
    assert_eq!(queue.drop_left(wait, at(11)), 0);
    assert_eq!(told(&mut reader), [100]);
    assert_eq!(take(&mut queue, |_| true, at(18)), Some(1));
    assert_eq!(queue.drop_left(wait, at(28)), 0);
    assert!(told(&mut reader).is_empty());
    assert_eq!(queue.drop_left(wait, at(29)), 0);
    assert_eq!(told(&mut reader), [2]);
    assert!(queue.is_empty());
}

#[test]
fn readers_who_are_gone_are_counted() {
    let (gone, reader) = unbounded_channel();
    let (events, _reader) = unbounded_channel();
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.push(request(0, 2, &gone), now);
    queue.push(request(100, 1, &events), now);
    drop(reader);
    assert_eq!(queue.drop_left(Duration::from_secs(1), now), 2);
    assert_eq!(queue.len(), 1);
}

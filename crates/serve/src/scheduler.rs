//! Continuous batching: texts join and leave between tokens, and share every pass over the weights.
//!
//! One thread runs [`run`]. A step takes the next token of every text that is being continued, and a bounded number of
//! tokens of prompts, through the model at once. What a text gets does not depend on the others: the model computes each
//! row by itself, and every text has its own sampler. The file holds the whole loop of that thread; the queue, the cache of
//! prompts and the log-probabilities are in files of their own.

use crate::failures::Failures;
use crate::job::{Event, Job, TokenLogprobs};
use crate::logprobs;
use crate::metrics::{Metrics, add, seconds, set};
use crate::models::Served;
use crate::prefix_cache::{Owner, PrefixCache, shared};
use crate::queue::Queue;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokenformer_core::generate::{Feed, Sampler};
use tokenformer_core::model::TokenWeights;
use tokenformer_core::{Cache, Graph};
use tokenformer_train::{Continuation, End};
use tokio::sync::oneshot;

/// Limits of the work at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Texts that are continued together.
    pub batch: usize,
    /// Tokens of prompts in a step: more make prompts faster, and the other texts wait longer between their tokens.
    pub prompt_tokens: usize,
    /// Bytes of keys and values.
    pub cache_bytes: usize,
    /// Threads that choose the next tokens, at least 1. The model has threads of its device.
    pub threads: usize,
    /// Logits of a step for which a further of these threads is started, which takes as long as choosing from some thousands.
    pub logits_per_thread: usize,
    /// How long the texts of a request may wait for one of them to begin.
    pub wait: Duration,
}

/// What the thread of the models is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Continue the texts of a request.
    Continue(Vec<Job>),
    /// Tell which parameter tokens the last of some tokens uses.
    TokenWeights {
        /// Number of the model.
        model: usize,
        /// The newest stage that takes part.
        newest_stage: Option<u32>,
        /// At least one, at most as many as the context.
        tokens: Vec<u32>,
        /// Takes the answer, or why there is none.
        answer: oneshot::Sender<Result<Vec<TokenWeights>, String>>,
    },
}

/// A text that is being continued.
struct Sequence<'m> {
    job: Job,
    owner: Owner,
    /// Name of the model.
    name: &'m str,
    cache: Cache,
    cache_bytes: usize,
    /// The prompt and the new tokens. Those beyond what the cache has seen are still to be fed.
    tokens: Vec<u32>,
    continuation: Continuation<'m>,
    /// Probabilities of the prompt so far, if they are asked for.
    scores: Vec<TokenLogprobs>,
    arrived: Instant,
    last_token: Option<Instant>,
    is_done: bool,
}

impl Sequence<'_> {
    fn pending(&self) -> usize {
        self.tokens.len() - self.cache.len()
    }

    fn is_reading(&self) -> bool {
        self.cache.len() + 1 < self.job.prompt.len()
    }

    fn send(&self, event: Event) {
        // A reader who left is noticed before the next step.
        let _ = self.job.events.send((self.job.index, event));
    }

    fn fail(&mut self, error: String) {
        self.send(Event::Failed(error));
        self.is_done = true;
    }
}

/// The share of a sequence in a step: how many tokens it feeds, and the rows of logits that it wants.
struct Share {
    sequence: usize,
    feeds: usize,
    rows: usize,
}

/// Works until every sender of commands is gone and everything is done.
pub fn run(models: &[Served], limits: Limits, commands: &Receiver<Command>, metrics: &Metrics) {
    set(&metrics.cache_limit_bytes, limits.cache_bytes);
    let mut scheduler = Scheduler {
        models,
        limits,
        metrics,
        cache: PrefixCache::new(limits.cache_bytes),
        queue: Queue::default(),
        last_reader: None,
        sequences: Vec::new(),
        logits: Vec::new(),
        failures: Failures::new(),
    };
    loop {
        if scheduler.is_idle() {
            scheduler.rest();
            match commands.recv() {
                Ok(command) => scheduler.take(command),
                Err(_) => return,
            }
        }
        while let Ok(command) = commands.try_recv() {
            scheduler.take(command);
        }
        scheduler.step();
    }
}

struct Scheduler<'m> {
    models: &'m [Served],
    limits: Limits,
    metrics: &'m Metrics,
    cache: PrefixCache,
    queue: Queue,
    /// Whose prompts were read first in the last step that read some.
    last_reader: Option<Owner>,
    sequences: Vec<Sequence<'m>>,
    logits: Vec<f32>,
    failures: Failures,
}

impl<'m> Scheduler<'m> {
    fn is_idle(&self) -> bool {
        self.sequences.is_empty() && self.queue.is_empty()
    }

    /// Returns memory that only work needs.
    fn rest(&mut self) {
        self.logits = Vec::new();
        for served in self.models {
            served.model.device().trim();
        }
        self.gauges();
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Continue(jobs) => self.queue.push(jobs, Instant::now()),
            Command::TokenWeights {
                model,
                newest_stage,
                tokens,
                answer,
            } => {
                let fired = self.models[model].model.fired(&tokens, newest_stage);
                let _ = answer.send(fired.map_err(|error| error.to_string()));
            }
        }
    }

    fn step(&mut self) {
        self.drop_left();
        self.admit();
        self.gauges();
        let mut prompt_tokens = self.limits.prompt_tokens;
        for owner in self.turns() {
            let shares = self.shares(owner, &mut prompt_tokens);
            if shares.is_empty() {
                continue;
            }
            self.metrics.batch.observe(shares.len() as f64);
            match self.pass(owner, &shares) {
                Ok(()) => self.hand_out(&shares),
                Err(error) => {
                    let error = error.to_string();
                    self.failures.tell(&self.models[owner.0].name, &error);
                    for share in &shares {
                        self.sequences[share.sequence].fail(error.clone());
                    }
                }
            }
        }
        self.drop_done();
    }

    /// The owners of all texts, in the order in which they take their shares of the step. Those with prompts to read take turns
    /// to be the first of them, because the first may leave nothing to the others.
    fn turns(&mut self) -> Vec<Owner> {
        let mut owners: Vec<Owner> = self.sequences.iter().map(|s| s.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        let next = owners.partition_point(|&owner| Some(owner) <= self.last_reader);
        owners.rotate_left(next);
        let reads =
            |owner: Owner| (self.sequences.iter()).any(|s| s.owner == owner && s.pending() > 1);
        let reader = owners.iter().copied().find(|&owner| reads(owner));
        self.last_reader = reader.or(self.last_reader);
        owners
    }

    fn gauges(&self) {
        set(&self.metrics.queued, self.queue.len());
        set(&self.metrics.running, self.sequences.len());
        set(&self.metrics.cache_bytes, self.cache.used_bytes());
    }

    /// Drops texts whose client has left, and texts that have waited too long.
    fn drop_left(&mut self) {
        let mut left = self.queue.drop_left(self.limits.wait, Instant::now());
        for sequence in &mut self.sequences {
            if sequence.job.events.is_closed() {
                sequence.is_done = true;
                left += 1;
            }
        }
        add(&self.metrics.cancelled, left);
        self.drop_done();
    }

    /// Removes finished texts, and keeps their keys and values for later texts with the same beginning.
    fn drop_done(&mut self) {
        let is_done = |s: &mut Sequence<'_>| s.is_done;
        for sequence in self.sequences.extract_if(.., is_done) {
            let mut tokens = sequence.tokens;
            tokens.truncate(sequence.cache.len());
            let Sequence {
                owner,
                cache,
                cache_bytes,
                ..
            } = sequence;
            self.cache.keep(owner, tokens, cache, cache_bytes);
        }
    }

    /// Lets texts begin while there is a place and memory, in the order of the queue. The first that finds no memory
    /// blocks those behind it, so that every text gets its turn.
    fn admit(&mut self) {
        while self.sequences.len() < self.limits.batch {
            // What another text is reading now, a text that begins alike can copy then.
            let next = self.queue.next(|job| !self.is_read_by_another(job));
            let Some((place, job)) = next else {
                break;
            };
            let served = &self.models[job.model];
            let capacity = capacity(served, job);
            let bytes = capacity * served.position_bytes();
            if !self.cache.take(bytes) {
                break;
            }
            let Some((arrived, job)) = self.queue.take(place, Instant::now()) else {
                self.cache.give(bytes);
                break;
            };
            let owner = (job.model, job.newest_stage);
            match self.begin(&job, owner, capacity) {
                Ok((cache, continuation)) => {
                    add(&self.metrics.prompt_tokens, job.prompt.len());
                    add(&self.metrics.shared_tokens, cache.len());
                    self.sequences.push(Sequence {
                        owner,
                        name: &served.name,
                        cache,
                        cache_bytes: bytes,
                        tokens: job.prompt.clone(),
                        continuation,
                        scores: Vec::new(),
                        arrived,
                        last_token: None,
                        is_done: false,
                        job,
                    });
                }
                Err(error) => {
                    self.cache.give(bytes);
                    self.failures.tell(&served.name, &error);
                    let _ = job.events.send((job.index, Event::Failed(error)));
                }
            }
        }
    }

    fn is_read_by_another(&self, job: &Job) -> bool {
        let owner = (job.model, job.newest_stage);
        let mut reading = self
            .sequences
            .iter()
            .filter(|s| s.owner == owner && s.is_reading());
        !job.scores_prompt
            && reading.any(|s| {
                shared(&s.job.prompt, &job.prompt) > shared(&s.tokens[..s.cache.len()], &job.prompt)
            })
    }

    /// The keys and values that a text begins with, copied from one that begins alike if there is one, and its
    /// continuation.
    fn begin(
        &mut self,
        job: &Job,
        owner: Owner,
        capacity: usize,
    ) -> Result<(Cache, Continuation<'m>), String> {
        let served = &self.models[job.model];
        let error = |error: tokenformer_core::Error| error.to_string();
        let sampler = Sampler::new(job.sampling.clone()).map_err(error)?;
        let sampler = sampler.with_bias(job.bias.clone());
        let running = self.sequences.iter().filter(|s| s.owner == owner);
        let running = running
            .map(|s| (&s.cache, shared(&s.tokens[..s.cache.len()], &job.prompt)))
            .max_by_key(|&(_, len)| len);
        let kept = self.cache.longest(owner, &job.prompt);
        let longest = running.into_iter().chain(kept).max_by_key(|&(_, len)| len);
        let cache = match longest {
            // The logits of a prompt's tokens are needed to score them.
            Some((cache, len)) if len > 0 && !job.scores_prompt => {
                cache.prefix(served.model.device(), len, capacity)
            }
            _ => served.model.cache(1, capacity),
        };
        let continuation = Continuation::new(
            &served.tokenizer,
            &job.prompt,
            sampler,
            job.max_tokens,
            &job.stops,
        );
        Ok((cache.map_err(error)?, continuation))
    }

    /// What each sequence of an owner feeds in this step. New tokens go first; prompts share the rest.
    fn shares(&self, owner: Owner, prompt_tokens: &mut usize) -> Vec<Share> {
        let mut shares = Vec::new();
        for (at, sequence) in self.sequences.iter().enumerate() {
            if sequence.owner != owner || sequence.is_done {
                continue;
            }
            let pending = sequence.pending();
            let feeds = match pending {
                1 => 1,
                _ => pending.min(*prompt_tokens),
            };
            if feeds == 0 {
                continue;
            }
            if pending > 1 {
                *prompt_tokens -= feeds;
            }
            let rows = match (sequence.job.scores_prompt, feeds == pending) {
                (true, _) if sequence.cache.len() < sequence.job.prompt.len() => feeds,
                (_, true) => 1,
                (_, false) => 0,
            };
            shares.push(Share {
                sequence: at,
                feeds,
                rows,
            });
        }
        shares
    }

    /// One pass of the model for all shares; the logits of the rows that they want are then in `logits`.
    fn pass(&mut self, owner: Owner, shares: &[Share]) -> tokenformer_core::Result<()> {
        let (mut feeds, mut rows, mut end) = (Vec::new(), Vec::new(), 0);
        let mut shares = shares.iter().peekable();
        for (at, sequence) in self.sequences.iter_mut().enumerate() {
            let Some(share) = shares.next_if(|share| share.sequence == at) else {
                continue;
            };
            let seen = sequence.cache.len();
            feeds.push(Feed {
                cache: &mut sequence.cache,
                tokens: &sequence.tokens[seen..seen + share.feeds],
            });
            end += share.feeds;
            rows.extend((end - share.rows..end).map(|row| row as u32));
        }
        let model = &self.models[owner.0].model;
        let mut g = Graph::inference(model.device()).until_stage(owner.1);
        model.logits_each(&mut g, &mut feeds, &rows, &mut self.logits)
    }

    /// Gives each sequence its logits. Choosing from a large vocabulary takes a while, so threads share it.
    fn hand_out(&mut self, shares: &[Share]) {
        let mut rest = &self.logits[..];
        let mut work = Vec::with_capacity(shares.len());
        let mut shares = shares.iter().peekable();
        for (at, sequence) in self.sequences.iter_mut().enumerate() {
            let Some(share) = shares.next_if(|share| share.sequence == at) else {
                continue;
            };
            let vocab = self.models[sequence.owner.0].model.vocab();
            let (logits, others) = rest.split_at(share.rows * vocab);
            rest = others;
            work.push((sequence, logits, share.rows));
        }
        let more_threads = (self.logits.len() / self.limits.logits_per_thread.max(1))
            .min(self.limits.threads.saturating_sub(1))
            .min(work.len().saturating_sub(1));
        let (metrics, failures) = (self.metrics, &self.failures);
        let work = Mutex::new(work.into_iter());
        let take_turns = || {
            loop {
                let next = work.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((sequence, logits, rows)) = next else {
                    return;
                };
                take_logits(sequence, logits, rows, metrics, failures);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..more_threads {
                // Where the system gives no further thread, this one does all.
                let _ = std::thread::Builder::new().spawn_scoped(scope, take_turns);
            }
            take_turns();
        });
    }
}

/// Gives a sequence its `rows` rows of logits.
fn take_logits(
    sequence: &mut Sequence<'_>,
    logits: &[f32],
    rows: usize,
    metrics: &Metrics,
    failures: &Failures,
) {
    if rows == 0 {
        return;
    }
    if sequence.job.scores_prompt {
        score_prompt(sequence, logits, rows);
    }
    if sequence.pending() == 0 {
        let vocab = logits.len() / rows;
        next_token(sequence, &logits[logits.len() - vocab..], metrics, failures);
    }
}

/// Positions that a text can take: the same as when it is generated alone.
fn capacity(served: &Served, job: &Job) -> usize {
    let all = job.prompt.len().saturating_add(job.max_tokens);
    all.min(served.model.context())
}

/// Records the probabilities of the prompt's tokens from `rows` rows of logits, and reports them when all are
/// known.
fn score_prompt(sequence: &mut Sequence<'_>, logits: &[f32], rows: usize) {
    let prompt = &sequence.job.prompt;
    let seen = sequence.cache.len();
    if sequence.scores.len() == prompt.len() {
        return;
    }
    let count = sequence.job.alternatives.unwrap_or(0);
    if sequence.scores.is_empty() {
        sequence.scores.push(TokenLogprobs {
            token: prompt[0],
            logprob: None,
            top: Vec::new(),
        });
    }
    let vocab = logits.len() / rows;
    for (row, position) in logits.chunks_exact(vocab).zip(seen - rows..seen) {
        if let Some(&next) = prompt.get(position + 1) {
            sequence.scores.push(logprobs::of_token(row, next, count));
        }
    }
    if sequence.scores.len() == prompt.len() {
        sequence.send(Event::Prompt(sequence.scores.clone()));
    }
}

/// Chooses the next token of a sequence and reports it.
fn next_token(sequence: &mut Sequence<'_>, logits: &[f32], metrics: &Metrics, failures: &Failures) {
    let room = sequence.cache.capacity() - sequence.cache.len();
    let next = sequence.continuation.next(logits, &sequence.tokens, room);
    let now = Instant::now();
    let (token, text, end): (_, _, Option<End>) = match next {
        Ok(piece) => (piece.token, piece.text, piece.end),
        Err(error) => {
            let error = error.to_string();
            failures.tell(sequence.name, &error);
            sequence.fail(error);
            return;
        }
    };
    match sequence.last_token {
        None => metrics.first_token.observe(seconds(now - sequence.arrived)),
        Some(last) => metrics.per_token.observe(seconds(now - last)),
    }
    sequence.last_token = Some(now);
    if let Some(token) = token {
        add(&metrics.new_tokens, 1);
        let count = sequence.job.alternatives;
        let token_logprob = count.map(|count| logprobs::of_token(logits, token, count));
        sequence.send(Event::Token {
            token,
            text: text.clone(),
            token_logprob,
        });
    }
    match (token, end) {
        (Some(token), None) => sequence.tokens.push(token),
        (token, end) => {
            let rest = if token.is_none() { text } else { String::new() };
            sequence.send(Event::End(end.unwrap_or(End::Length), rest));
            sequence.is_done = true;
        }
    }
}
